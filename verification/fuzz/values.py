"""Hostile values: for single fields, for whole messages, and bytes that are not messages."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Sequence
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

U32 = (0, 1, 2, 3, 31, 1023, 1024, 1025, 2**16, 2**31 - 1, 2**31, 2**32 - 1)
U64 = (0, 1, 2, 64, 4096, 2**31, 2**32, 2**53 + 1, 2**62 - 1, 2**62, 2**63 - 1, 2**63, 2**64 - 1)
TTLS = (0, 1, 2, 1000, 10 * 366 * 86_400_000, 10 * 366 * 86_400_000 + 1, 2**63 - 1, 2**63, 2**64 - 1)
TEXTS = (
    "",
    "\0",
    "a\0b",
    "..",
    "a/b",
    "{}",
    "*",
    "%",
    "_",
    "?[a]",
    "'; --",
    "\n\r\t",
    "\u202e\ufeff",
    "\U0001f600" * 64,
    "\U0001f600" * 65,
    "x" * 256,
    "x" * 257,
    "é" * 128,
    "é" * 129,
    "0:",
    "-1",
    "18446744073709551616",
)
LENGTHS = (0, 1, 7, 8, 9, 15, 16, 17, 31, 32, 33, 64, 255, 4096)
FLOATS = (0.0, -0.0, 1.0, float("nan"), float("inf"), float("-inf"), 3.4e38, 1e-45, -1.0, 1e9)


def text(draw: random.Random, known: Sequence[str]) -> str:
    dice = draw.random()
    if dice < 0.45:
        return draw.choice(known)
    if dice < 0.85:
        return draw.choice(TEXTS)
    if dice < 0.995:
        return "".join(chr(draw.choice((draw.randrange(1, 128), draw.randrange(0xE000, 0x10FFFF)))) for _ in range(9))
    return draw.choice(("y", "\U0001f600", "\0")) * draw.choice((5_000, 100_000))


def blob(draw: random.Random, known: Sequence[bytes]) -> bytes:
    """Returns bytes of a critical length, special floats, or a slightly changed valid value."""
    dice = draw.random()
    if dice < 0.35:
        return flipped(draw, draw.choice(known))
    if dice < 0.6:
        return struct.pack("<f", draw.choice(FLOATS)) * draw.choice((1, 1, 2, 3, 16))
    if dice < 0.7:
        return bytes(draw.choice(LENGTHS))
    if dice < 0.998:
        return draw.randbytes(draw.choice(LENGTHS))
    return bytes(draw.choice((100_000, 1_000_000)))


def flipped(draw: random.Random, data: bytes) -> bytes:
    """Cuts or lengthens the data, or changes a few of its bytes."""
    if not data:
        return draw.randbytes(draw.randrange(4))
    dice, changed = draw.random(), bytearray(data)
    if dice < 0.3:
        return bytes(changed[: draw.randrange(len(changed))])
    if dice < 0.4:
        return bytes(changed) + draw.randbytes(draw.randrange(1, 20))
    for _ in range(draw.choice((1, 1, 1, 2, 8))):
        changed[draw.randrange(len(changed))] = draw.choice((0, 1, 0x7F, 0x80, 0xFF, draw.randrange(256)))
    return bytes(changed)


def garbage(draw: random.Random, valid: bytes) -> bytes:
    """Returns what may come instead of a message, for a method that takes `valid`."""
    dice = draw.random()
    if dice < 0.6:
        return flipped(draw, valid)
    if dice < 0.8:
        return draw.randbytes(draw.choice((1, 2, 3, 10, 100, 2000)))
    if dice < 0.9:  # unknown fields of every wire type
        return valid + b"".join(_unknown(draw) for _ in range(draw.randrange(1, 5)))
    if dice < 0.97:  # a declared length far past the end
        return valid + bytes([draw.randrange(1, 16) << 3 | 2]) + b"\xff\xff\xff\xff\x07"
    return b"\x0a" * draw.choice((100, 100_000))  # nested or repeated as deep as possible


def mutate(draw: random.Random, message: Message, texts: Sequence[str], blobs: Sequence[bytes]) -> None:
    """Changes some of the message's fields in place."""
    fields = message.DESCRIPTOR.fields
    if not fields:
        return
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        _change(draw, message, draw.choice(list[Any](fields)), texts, blobs)


def _change(
    draw: random.Random, message: Any, field: FieldDescriptor, texts: Sequence[str], blobs: Sequence[bytes]
) -> None:
    if draw.random() < 0.12:
        message.ClearField(field.name)
        return
    repeated = field.is_repeated
    if field.message_type is not None:
        inner = getattr(message, field.name)
        if field.message_type.GetOptions().map_entry:
            if not inner or draw.random() < 0.4:
                inner[text(draw, texts)].SetInParent()
            mutate(draw, inner[draw.choice(list(inner))], texts, blobs)
        elif not repeated:
            mutate(draw, inner, texts, blobs)
        elif len(inner) and draw.random() < 0.7:
            mutate(draw, draw.choice(list(inner)), texts, blobs)
        elif len(inner) and draw.random() < 0.5:
            inner.add().CopyFrom(inner[0])  # a duplicate
        else:
            for _ in range(_count(draw)):
                inner.add()
        return
    make = _maker(draw, field, texts, blobs)
    if not repeated:
        setattr(message, field.name, make())
        return
    values = getattr(message, field.name)
    if len(values) and draw.random() < 0.5:
        values[draw.randrange(len(values))] = make()
    elif len(values) and draw.random() < 0.4:
        values.append(values[0])
    elif len(values) and draw.random() < 0.3:
        del values[draw.randrange(len(values))]
    else:
        values.extend([make()] * _count(draw))


def _maker(
    draw: random.Random, field: FieldDescriptor, texts: Sequence[str], blobs: Sequence[bytes]
) -> Callable[[], Any]:
    kinds: dict[int, Callable[[], Any]] = {
        FieldDescriptor.TYPE_STRING: lambda: text(draw, texts),
        FieldDescriptor.TYPE_BYTES: lambda: blob(draw, blobs),
        FieldDescriptor.TYPE_BOOL: lambda: draw.random() < 0.5,
        FieldDescriptor.TYPE_INT32: lambda: draw.choice((0, 1, -1, 2**31 - 1, -(2**31))),
        FieldDescriptor.TYPE_INT64: lambda: draw.choice((0, 1, 2, -1, 3, 1024, 1025, 2**63 - 1, -(2**63))),
        FieldDescriptor.TYPE_FLOAT: lambda: draw.choice(FLOATS),
        FieldDescriptor.TYPE_DOUBLE: lambda: draw.choice(FLOATS),
        FieldDescriptor.TYPE_UINT32: lambda: draw.choice(U32),
        FieldDescriptor.TYPE_UINT64: lambda: draw.choice(TTLS if "ttl" in field.name else U64),
        FieldDescriptor.TYPE_ENUM: lambda: draw.choice((0, 1, 1, 2, 3, 4, 5, 6, 99, 2**31 - 1, -1)),
    }
    return kinds[field.type]


def _count(draw: random.Random) -> int:
    """Returns a count: usually small, sometimes far too large."""
    return draw.choice((1, 1, 2, 3, 5, 33)) if draw.random() < 0.98 else draw.choice((1025, 20_000))


def _unknown(draw: random.Random) -> bytes:
    number, wire = draw.choice((16, 100, 536870911, 0)), draw.choice((0, 1, 2, 3, 4, 5, 6))
    return _varint(number << 3 | wire) + draw.randbytes(draw.randrange(12))


def _varint(value: int) -> bytes:
    parts = bytearray()
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)
