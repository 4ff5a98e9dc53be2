"""Counts the fields of an encoded message, without decoding it.

A field may take two bytes on the wire, but far more once decoded: 16 MiB of empty tensors take 600 MiB, and 20 seconds
of the event loop that serves everybody if each is looked at.
"""

from __future__ import annotations

from functools import cache

from google.protobuf.descriptor import Descriptor

MIN_FIELD_BYTES = 2
"""On the wire: its tag, and its value or length."""
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
"""Wire types. Those of a group, 3 and 4, have no value: the fields between them are counted as any others."""
FIXED_BYTES = {FIXED64: 8, FIXED32: 4}


def has_more_fields(data: bytes, message: Descriptor, most: int) -> bool:
    """Returns True if the message, with all messages in it, has more than `most` fields.

    A packed list of numbers is one field. Malformed bytes are not an error here: what follows them is not counted,
    because decoding ends there too.
    """
    if len(data) <= MIN_FIELD_BYTES * most:
        return False
    count = 0
    left = [(0, len(data), message)]
    try:
        while left:
            at, end, kind = left.pop()
            nested = _nested(kind)
            while at < end:
                count += 1
                if count > most:
                    return True
                tag, at = _varint(data, at)
                wire_type = tag & 7
                if wire_type == BYTES:
                    size, at = _varint(data, at)
                    inner = nested.get(tag >> 3)
                    if inner is not None and size:
                        left.append((at, min(at + size, end), inner))
                    at += size
                elif wire_type == VARINT:
                    _, at = _varint(data, at)
                else:
                    at += FIXED_BYTES.get(wire_type, 0)
    except IndexError:  # the data ends within a number
        pass
    return False


@cache
def _nested(message: Descriptor) -> dict[int, Descriptor]:
    """Returns the messages that a message has in it, by field number."""
    return {field.number: field.message_type for field in message.fields if field.message_type is not None}


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Returns the number at `at`, and where it ends. Raises IndexError if the data ends before."""
    value = data[at]
    at += 1
    if value < 128:  # nearly always
        return value, at
    value &= 127
    for shift in range(7, 70, 7):
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            break
    return value, at
