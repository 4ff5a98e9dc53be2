"""Parses the PTX of one kernel, as Triton emits it."""

from __future__ import annotations

import re
from dataclasses import dataclass


class UnsupportedPTX(ValueError):
    """The text has something that the emulator does not know. Nothing is skipped."""


@dataclass(frozen=True, slots=True)
class Address:
    """[base + offset]. base: a register, `global_smem`, or the name of a parameter."""

    base: str
    offset: int


Operand = str | tuple[str, ...] | Address
"""A register, a number or a name, as written; {a, b}; or [address]."""


@dataclass(frozen=True, slots=True)
class Instruction:
    """guard: the predicate of `@%p`; "" if it always executes. used_bytes: of a load, a bit for each byte that matters,
    if Triton says so; 0: all."""

    opcode: str
    operands: tuple[Operand, ...]
    guard: str
    guard_negated: bool
    used_bytes: int
    text: str
    line: int


@dataclass(frozen=True, slots=True)
class Program:
    """parameters: name and bytes of each, in order. threads: of one CTA. labels: name -> index of an instruction."""

    name: str
    parameters: tuple[tuple[str, int], ...]
    threads: int
    instructions: tuple[Instruction, ...]
    labels: dict[str, int]


_ENTRY = re.compile(r"\.visible \.entry (\w+)\((.*?)\)\s*((?:\.\w+ \d+(?:, \d+)*\s*)*)\{\n(.*?)\n\}", re.DOTALL)
_PARAMETER = re.compile(r"\.param \.[a-z](\d+)(?: \.ptr \.global)?(?: \.align \d+)? (\w+)")
_STATEMENT = re.compile(r"(?:@(!?)(%p\d+)\s+)?([a-z][\w.:]*)(?:\s+(.*))?;")
_USED_BYTES = re.compile(r'\.pragma "used_bytes_mask (0x[0-9a-f]+)";')
_ADDRESS = re.compile(r"\[\s*([%\w]+)(?:\s*\+\s*(-?\d+))?\s*\]")
_OPERAND = re.compile(r"\[[^]]*\]|\{[^}]*\}|[^,\s][^,]*")
_IGNORED = re.compile(r"(?:\.loc\b.*|\.reg \.\w+\s+%\w+<\d+>;|)")
_SHARED = re.compile(r"\.extern \.shared \.align (\d+) \.b8 global_smem\[\];")


def parse(text: str) -> Program:
    """Raises UnsupportedPTX if the text is not one kernel in the form that Triton emits."""
    entries = _ENTRY.findall(text)
    if len(entries) != 1:
        raise UnsupportedPTX(f"expected one kernel, got {len(entries)}")
    name, parameters, directives, body = entries[0]
    threads = re.search(r"\.reqntid (\d+)(?:, 1)*\s", directives)
    shared = _SHARED.search(text)
    if threads is None or (shared is None and "global_smem" in body):
        raise UnsupportedPTX(f"expected .reqntid and a declaration of global_smem, got {directives!r}")
    first_line = text[: text.index(body)].count("\n") + 1
    instructions: list[Instruction] = []
    labels: dict[str, int] = {}
    used_bytes = 0
    for line, whole in enumerate(body.split("\n"), first_line):
        statement = whole.partition("//")[0].strip()
        if label := re.fullmatch(r"(\$\w+):", statement):
            labels[label[1]] = len(instructions)
        elif pragma := _USED_BYTES.fullmatch(statement):
            used_bytes = int(pragma[1], 16)
        elif found := _STATEMENT.fullmatch(statement):
            negated, guard, opcode, rest = found.groups()
            operands = tuple(_operand(part.strip()) for part in _OPERAND.findall(rest or ""))
            instructions.append(Instruction(opcode, operands, guard or "", bool(negated), used_bytes, statement, line))
            used_bytes = 0
        elif not _IGNORED.fullmatch(statement):
            raise UnsupportedPTX(f"line {line}: {statement}")
    sizes = tuple((parameter, int(bits) // 8) for bits, parameter in _PARAMETER.findall(parameters))
    if len(sizes) != parameters.count(".param"):
        raise UnsupportedPTX(f"parameters: {parameters}")
    return Program(name, sizes, int(threads[1]), tuple(instructions), labels)


def _operand(text: str) -> Operand:
    if text.startswith("{"):
        return tuple(part.strip() for part in text[1:-1].split(","))
    if text.startswith("["):
        found = _ADDRESS.fullmatch(text)
        if found is None:
            raise UnsupportedPTX(f"address: {text}")
        return Address(found[1], int(found[2] or 0))
    return text
