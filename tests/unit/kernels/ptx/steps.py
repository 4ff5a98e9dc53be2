"""Turns each instruction into a function of the machine."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .arithmetic import OPERATIONS, TYPES
from .machine import LETTERS, Copy, Machine, Step
from .program import Address, Instruction, Operand, Program, UnsupportedPTX
from .shared_memory import BASE, WARP
from .tensor_cores import MMA, registers_of, rows_of

Values = NDArray[Any]
Read = Callable[[Machine], Values]

_ACCESS = re.compile(r"(ld|st)\.(global|shared)(?:\.v([24]))?\.b(8|16|32|64)")
_MATRIX = re.compile(r"(ld|st)matrix\.sync\.aligned\.m8n8\.x([124])(\.trans)?\.shared\.b16")
_COPY = re.compile(r"cp\.async\.(?:ca|cg)\.shared\.global")
_LETTERS = {8: "h", 16: "h", 32: "u", 64: "U"}


def decode(program: Program) -> list[Step]:
    """Raises UnsupportedPTX if the program has an instruction that the machine does not know."""
    return [_located(program.name, instruction) for instruction in program.instructions]


def _reader(operand: Operand, letter: str) -> Read:
    """Returns what reads an operand of this type."""
    if not isinstance(operand, str):
        raise UnsupportedPTX(f"an operand {operand}")
    kind = TYPES[letter]
    if re.fullmatch(r"%n?(?:tid|ctaid)\.[xyz]", operand):
        return lambda machine: machine.special(operand)
    if operand.startswith("%"):
        prefix = operand.rstrip("0123456789")
        if letter not in LETTERS[prefix]:
            raise UnsupportedPTX(f"{operand} as {kind.__name__}")
        if letter == "p":
            return lambda machine: machine.registers[operand]
        return lambda machine: machine.registers[operand].view(kind)
    if operand == "global_smem":
        number = BASE
    elif re.fullmatch(r"0f[0-9A-Fa-f]{8}", operand):  # the bits of a float32
        number = int(operand[2:], 16)
    elif letter != "f":
        number = int(operand, 0)
    else:
        raise UnsupportedPTX(f"{operand} as a float32")
    bits = 8 * np.dtype(kind).itemsize
    value = np.array([[number % (1 << bits) if letter != "p" else number]], kind if letter == "p" else f"u{bits // 8}")
    constant = value if letter == "p" else value.view(kind)
    return lambda machine: constant


def _guard(instruction: Instruction) -> Read | None:
    if not instruction.guard:
        return None
    name, negated = instruction.guard, instruction.guard_negated
    return lambda machine: ~machine.registers[name] if negated else machine.registers[name]


def _located(name: str, instruction: Instruction) -> Step:
    try:
        return _step(instruction)
    except (KeyError, ValueError) as error:
        raise UnsupportedPTX(f"{name}, PTX line {instruction.line}, {instruction.text}: {error}") from error


def _step(instruction: Instruction) -> Step:
    opcode, operands = instruction.opcode, instruction.operands
    guard = _guard(instruction)
    if opcode in OPERATIONS:
        return _compute(instruction, guard)
    if opcode in ("bra", "bra.uni", "ret"):
        return _branch(guard)
    if access := _ACCESS.fullmatch(opcode):
        kind, space, count, bits = access[1], access[2], int(access[3] or 1), int(access[4])
        return _access(instruction, guard, kind == "ld", space == "shared", count, bits)
    if guard is not None:
        raise UnsupportedPTX("a predicate")
    if opcode in ("ld.param.b32", "ld.param.b64"):
        target, source = operands
        if not isinstance(source, Address) or source.offset:
            raise UnsupportedPTX("a part of a parameter")
        return lambda machine: machine.write(str(target), machine.parameters[source.base])
    if opcode in MMA:
        return _mma(instruction)
    if matrix := _MATRIX.fullmatch(opcode):
        return _matrix(instruction, matrix[1] == "ld", int(matrix[2]), bool(matrix[3]))
    if _COPY.fullmatch(opcode):
        return _copy(instruction)
    return _synchronize(instruction)


def _compute(instruction: Instruction, guard: Read | None) -> Step:
    operation = OPERATIONS[instruction.opcode]
    target, *sources = instruction.operands
    if not isinstance(target, str) or "|" in target or len(sources) != len(operation.types) - 1:
        raise UnsupportedPTX("these operands")
    reads = [_reader(source, letter) for source, letter in zip(sources, operation.types[1:], strict=True)]
    compute = operation.compute

    def step(machine: Machine) -> None:
        values = compute(*[read(machine) for read in reads])
        machine.write(target, values, None if guard is None else guard(machine))

    return step


def _branch(guard: Read | None) -> Step:
    def step(machine: Machine) -> Values:
        if guard is None:
            return np.ones(len(machine.ctas), np.bool_)
        taken = machine.lanes(guard(machine)).reshape(len(machine.ctas), -1)
        if (taken != taken[:, :1]).any():
            raise UnsupportedPTX("threads of a CTA branch differently")
        return np.asarray(taken[:, 0])

    return step


def _registers(operand: Operand) -> tuple[str, ...]:
    if isinstance(operand, Address):
        raise UnsupportedPTX(f"an operand {operand}")
    return (operand,) if isinstance(operand, str) else operand


def _address(operand: Operand, letter: str) -> Read:
    if not isinstance(operand, Address):
        raise UnsupportedPTX(f"an operand {operand}")
    base, offset = _reader(operand.base, letter), np.array(operand.offset).astype(TYPES[letter])
    return lambda machine: base(machine) + offset


def _access(instruction: Instruction, guard: Read | None, load: bool, shared: bool, count: int, bits: int) -> Step:
    target, source = instruction.operands if load else instruction.operands[::-1]
    names = _registers(target)
    if len(names) != count:
        raise UnsupportedPTX(f"{len(names)} registers for {count}")
    address = _address(source, "u" if shared else "U")
    letter = _LETTERS[bits]
    values = [] if load else [_reader(name, letter) for name in names]
    width, kind = bits // 8, np.dtype(f"u{bits // 8}")
    used = instruction.used_bytes

    def load_shared(machine: Machine) -> None:
        mask = None if guard is None else guard(machine)
        lanes = np.flatnonzero(machine.same_in_all_ctas(np.ones((1, 1)) if mask is None else mask))
        addresses = machine.same_in_all_ctas(address(machine))[lanes]
        came = machine.shared.load(addresses, width * count, lanes, used).view(kind)
        out = np.zeros((len(machine.ctas), machine.program.threads, count), TYPES[letter])
        out[:, lanes] = came
        for place, name in enumerate(names):
            machine.write(name, np.ascontiguousarray(out[:, :, place]), mask)

    def store_shared(machine: Machine) -> None:
        mask = np.ones((1, 1), np.bool_) if guard is None else guard(machine)
        lanes = np.flatnonzero(machine.same_in_all_ctas(mask))
        shape = (len(machine.ctas), machine.program.threads)
        new = np.stack([np.broadcast_to(read(machine).astype(kind), shape)[:, lanes] for read in values], axis=-1)
        addresses = machine.same_in_all_ctas(address(machine))[lanes]
        machine.shared.store(addresses, new.view(np.uint8), lanes)

    def load_global(machine: Machine) -> None:
        mask = None if guard is None else guard(machine)
        lanes = machine.lanes(np.ones((1, 1), np.bool_) if mask is None else mask)
        came = machine.memory.load(machine.lanes(address(machine)), width, count, lanes, machine.threads())
        for place, name in enumerate(names):
            machine.write(name, machine.by_thread(came[:, place].astype(TYPES[letter])), mask)

    def store_global(machine: Machine) -> None:
        mask = np.ones((1, 1), np.bool_) if guard is None else guard(machine)
        new = np.stack([machine.lanes(read(machine).astype(kind)) for read in values], axis=-1)
        machine.memory.store(machine.lanes(address(machine)), width, new, machine.lanes(mask), machine.threads())

    if shared:
        return load_shared if load else store_shared
    return load_global if load else store_global


def _mma(instruction: Instruction) -> Step:
    multiply = MMA[instruction.opcode]
    targets, *sources = (_registers(operand) for operand in instruction.operands)
    reads = [[_reader(name, "u") for name in names] for names in sources]

    def step(machine: Machine) -> None:
        a, b, c = ([machine.by_warp(read(machine)) for read in group] for group in reads)
        for name, values in zip(targets, multiply(a, b, c, machine.add), strict=True):
            machine.write(name, machine.by_thread(values))

    return step


def _matrix(instruction: Instruction, load: bool, matrices: int, transposed: bool) -> Step:
    target, source = instruction.operands if load else instruction.operands[::-1]
    names, address = _registers(target), _address(source, "u")
    if len(names) != matrices or (transposed and not load):
        raise UnsupportedPTX("this form")
    reads = [] if load else [_reader(name, "u") for name in names]

    def step(machine: Machine) -> None:
        lanes = np.arange(machine.program.threads).reshape(-1, WARP)[:, : 8 * matrices].ravel()
        addresses = machine.same_in_all_ctas(address(machine))[lanes]
        threads = machine.shared.together(lanes // WARP)
        shape = (len(machine.ctas), machine.program.threads // WARP, 8 * matrices, 16)
        if load:
            rows = machine.shared.load(addresses, 16, threads).reshape(shape)
            for name, values in zip(names, registers_of(rows, transposed), strict=True):
                machine.write(name, machine.by_thread(values))
        else:
            rows = rows_of([machine.by_warp(read(machine)) for read in reads])
            machine.shared.store(addresses, rows.reshape(len(machine.ctas), -1, 16), threads)

    return step


def _copy(instruction: Instruction) -> Step:
    target, source, width_text, *size = instruction.operands
    width = int(str(width_text), 0)
    to, of = _address(target, "u"), _address(source, "U")
    read_size = _reader(size[0], "u") if size else None

    def step(machine: Machine) -> None:
        shape = (len(machine.ctas), machine.program.threads)
        lanes = np.arange(machine.program.threads)
        sizes = np.full((1, 1), width) if read_size is None else read_size(machine)
        if ((sizes != 0) & (sizes != width)).any():
            raise UnsupportedPTX("a part of a copy")
        copy = Copy(
            machine.same_in_all_ctas(to(machine)),
            np.broadcast_to(of(machine), shape),
            np.broadcast_to(sizes, shape),
            width,
            lanes,
        )
        machine.shared.begin_copy(copy.target, width, lanes)
        if not machine.copies_late:
            machine.fetch(copy)
        machine.copies.append(copy)

    return step


def _synchronize(instruction: Instruction) -> Step:
    opcode, operands = instruction.opcode, instruction.operands
    if opcode == "bar.sync" and operands == ("0",):
        return lambda machine: machine.shared.barrier()
    if opcode == "bar.warp.sync" and operands == ("-1",):
        return lambda machine: machine.shared.barrier(of_warps=True)
    if opcode == "cp.async.commit_group":

        def commit(machine: Machine) -> None:
            machine.groups.append(machine.copies)
            machine.copies = []

        return commit
    if opcode == "cp.async.wait_group":
        pending = int(str(operands[0]))

        def wait(machine: Machine) -> None:
            while len(machine.groups) > pending:
                for copy in machine.groups.pop(0):
                    if machine.copies_late:
                        machine.fetch(copy)
                    machine.shared.end_copy(copy.target, copy.width, copy.lanes)

        return wait
    within_warp = np.arange(WARP)
    if opcode in ("shfl.sync.bfly.b32", "shfl.sync.idx.b32") and operands[3:] == ("31", "-1"):
        name, value, where = str(operands[0]), _reader(operands[1], "u"), _reader(operands[2], "u")

        def shuffle(machine: Machine) -> None:
            index = machine.by_warp(where(machine)).astype(np.int64) & (WARP - 1)
            if "bfly" in opcode:
                index = within_warp ^ index
            machine.write(name, machine.by_thread(np.take_along_axis(machine.by_warp(value(machine)), index, axis=-1)))

        return shuffle
    if opcode == "redux.sync.add.s32":
        name, value, members = str(operands[0]), _reader(operands[1], "u"), _reader(operands[2], "u")

        def reduce(machine: Machine) -> None:
            if (members(machine) != 0xFFFFFFFF).any():
                raise UnsupportedPTX("a part of a warp")
            total = machine.by_warp(value(machine)).sum(axis=-1, dtype=np.uint32, keepdims=True)
            machine.write(name, machine.by_thread(np.broadcast_to(total, (*total.shape[:-1], WARP))))

        return reduce
    raise UnsupportedPTX("an unknown instruction")
