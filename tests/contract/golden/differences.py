"""Shows the differences between two recordings, entry by entry, with decoded messages."""

from __future__ import annotations

from typing import Any

from cellkeeper_proto.v1 import cellkeeper_pb2 as pb
from google.protobuf import message_factory, text_format
from google.protobuf.message import DecodeError
from google.rpc import status_pb2

SERVICE = pb.DESCRIPTOR.services_by_name["Cellkeeper"]
SHOWN = 5


def differences(expected: str, got: str) -> str:
    """Returns the first entries that differ; "" if none does."""
    before, after = _entries(expected), _entries(got)
    found = [title for title in {**before, **after} if before.get(title) != after.get(title)]
    if not found and expected != got:
        return "the entries come in another order"
    texts = [f"{len(found)} entries differ:"] if found else []
    for title in found[:SHOWN]:
        lines, other = before.get(title, []), after.get(title, [])
        texts.append(f"## {title}")
        texts += [f"- {_spelled(line, lines)}" for line in lines if line not in other]
        texts += [f"+ {_spelled(line, other)}" for line in other if line not in lines]
        if sorted(lines) == sorted(other):
            texts.append("  the same lines in another order")
    return "\n".join(texts)


def _entries(text: str) -> dict[str, list[str]]:
    """Returns the lines of each entry, by its title."""
    parts = [part.splitlines() for part in text.split("## ")[1:]]
    return {title: [line for line in lines if line] for title, *lines in parts}


def _spelled(line: str, entry: list[str]) -> str:
    """Returns the line; for a message, followed by its fields."""
    sign, _, rest = line.partition(" ")
    if sign not in ("<", ">"):
        return line
    method = entry[0].split()[1]
    first, data, *_ = rest.split(" ")
    form = SERVICE.methods_by_name[method]
    kind: Any = form.input_type if sign == ">" else form.output_type
    message = message_factory.GetMessageClass(kind) if first in ("OK", method) else status_pb2.Status
    try:
        text = text_format.MessageToString(message.FromString(bytes.fromhex(data)), as_one_line=True)
    except (DecodeError, ValueError) as error:
        text = f"no {message.DESCRIPTOR.name}: {error}"
    return f"{line}\n    {text}"
