"""The fields of a JSON object: each is read once, as its type, and none may be left over."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from cellkeeper_proto.v1 import cellkeeper_pb2 as pb

from cellkeeper_service.domain.position import GENERATION_BYTES, HEAD_BYTES
from cellkeeper_service.domain.record import ORIGIN_BYTES
from cellkeeper_service.errors import Reason, Rejection, invalid

from .json_text import shown

MOST = 2**64
FINGERPRINT_BYTES = 32
GENERATION = f"{2 * GENERATION_BYTES} hexadecimal digits: the generation in the session's position"
MAX_NAME = 64


class UnknownField(Rejection):
    """A field that the request has and should not have. Its name is the caller's, whatever a message calls so."""

    def __init__(self, field: str, known: Sequence[str]) -> None:
        text = f"{field}: got an unknown field, expected some of {', '.join(known)}"
        super().__init__(Reason.INVALID_FIELD, text, field=field)


class Fields:
    """The fields of one object. where: the prefix of their names in a refusal, such as "items[2]."."""

    def __init__(self, value: Any, where: str = "", whole: str = "body") -> None:
        """whole: the name in a refusal of an object that is not a field of another."""
        if type(value) is not dict:
            raise invalid(where.rstrip(".") or whole, shown(value), "an object")
        self._left: dict[str, Any] = dict(value)
        self._known: dict[str, None] = {}
        self.where = where

    def name(self, field: str) -> str:
        return self.where + field

    def has(self, field: str) -> bool:
        """Returns True if the field is present. null is a value, which no field accepts."""
        self._known[field] = None
        return field in self._left

    def value(self, field: str, expected: str) -> Any:
        """Returns the field's value. Raises a Rejection if it is missing."""
        if not self.has(field):
            raise invalid(self.name(field), "nothing", expected)
        return self._left.pop(field)

    def text(self, field: str, expected: str = "a string") -> str:
        return text(self.value(field, expected), self.name(field), expected)

    def flag(self, field: str) -> bool:
        """Returns False if the field is missing."""
        if not self.has(field):
            return False
        value = self.value(field, "true or false")
        if type(value) is not bool:
            raise invalid(self.name(field), shown(value), "true or false")
        return value

    def integer(self, field: str, most: int = MOST) -> int:
        return integer(self.value(field, "a whole number"), self.name(field), most)

    def raw(self, field: str, count: int) -> bytes:
        """Reads bytes from hexadecimal digits."""
        return raw(self.text(field, f"{2 * count} hexadecimal digits"), self.name(field), count)

    def request_id(self) -> bytes:
        """Returns the caller's request id, or a new one if there is none; a retry is then another request."""
        return self.raw("request_id", ORIGIN_BYTES) if self.has("request_id") else os.urandom(ORIGIN_BYTES)

    def generation(self) -> bytes:
        """Returns the generation that the caller names."""
        return raw(self.text("generation", GENERATION), self.name("generation"), GENERATION_BYTES)

    def position(self, field: str) -> pb.Position:
        fields = Fields(self.value(field, "a position"), f"{self.name(field)}.")
        found = pb.Position(
            generation=fields.raw("generation", GENERATION_BYTES),
            step=fields.integer("step"),
            head=fields.raw("head", HEAD_BYTES),
        )
        fields.end()
        return found

    def end(self) -> None:
        """Raises UnknownField if unknown fields are left."""
        for field in self._left:
            plain = field.isascii() and field.isidentifier() and len(field) <= MAX_NAME
            raise UnknownField(self.name(field if plain else shown(field)), [*self._known])


def text(value: Any, field: str, expected: str = "a string") -> str:
    if type(value) is not str:
        raise invalid(field, shown(value), expected)
    if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
        raise invalid(field, "half of a surrogate pair", "text that UTF-8 can encode")
    return value


def integer(value: Any, field: str, most: int = MOST) -> int:
    """Reads a whole number, 0 or more: a number, or a string of digits (for clients that lose digits beyond 2^53)."""
    if type(value) is str and len(value) <= len(str(MOST)) and value.isascii() and value.isdecimal():
        value = int(value)
    if type(value) is not int or not 0 <= value < most:
        raise invalid(field, shown(value), f"a whole number of 0 or more, below {most}")
    return value


def raw(value: str, field: str, count: int) -> bytes:
    try:
        found = bytes.fromhex(value) if value.isalnum() else b""
    except ValueError:
        found = b""
    if len(found) != count:
        raise invalid(field, shown(value), f"{2 * count} hexadecimal digits")
    return found


def query(values: Mapping[str, str], name: str, default: int = 0) -> int:
    """Reads a whole number from the query."""
    return integer(values[name], name, 2**32) if name in values else default
