"""What an HTTP request asks for: the names in its path, its query and its body."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote_to_bytes

from cellkeeper_service.domain.spec import ModelSpec
from cellkeeper_service.errors import invalid
from cellkeeper_service.rpc.catalog import Catalog

from .fields import Fields
from .json_text import read_json, shown

TIMEOUT = "timeout_ms"
MAX_QUERY_FIELDS = 16
ENCODED = "percent-encoded UTF-8"
_NO_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
"""A % that begins no escape. Python's parsers take it for itself, so that two paths would name one session."""


@dataclass(slots=True)
class Asked:
    """The parts of a request.

    catalog: with the limits for JSON replies. path: by the names in the route's template. query: by name, without
    `timeout_ms`.
    """

    catalog: Catalog
    path: Mapping[str, str]
    query: Mapping[str, str]
    body: Fields = field(default_factory=lambda: Fields({}))

    @property
    def model(self) -> str:
        return self.path["model"]

    @property
    def session(self) -> str:
        return self.path["session"]

    @property
    def spec(self) -> ModelSpec:
        """The spec of the model in the path. Raises a Rejection."""
        return self.catalog.spec(self.model)


def read_path(template: str, raw: str) -> dict[str, str]:
    """Returns the values of the names in braces in the template. Raises a Rejection if a value is not encoded UTF-8.

    raw: the path as sent, matching the template; a "/" within a value is %2F.
    """
    found = {}
    for part, given in zip(template.split("/"), raw.split("/"), strict=True):
        if part.startswith("{"):
            try:
                found[part[1:-1]] = unquote_to_bytes(given).decode()
            except UnicodeDecodeError:
                raise invalid(part[1:-1], shown(given), ENCODED) from None
            if _NO_ESCAPE.search(given):
                raise invalid(part[1:-1], shown(given), ENCODED)
    return found


def read_query(raw: str, names: Sequence[str]) -> dict[str, str]:
    """Returns the query by name. Raises a Rejection for unknown and repeated names, and for bad UTF-8."""
    permitted = f"each of {', '.join(names)} at most once" if names else "none"
    if _NO_ESCAPE.search(raw):
        raise invalid("query", "a % without two hexadecimal digits", ENCODED)
    try:
        pairs = parse_qsl(raw, keep_blank_values=True, errors="strict", max_num_fields=MAX_QUERY_FIELDS)
    except UnicodeDecodeError:
        raise invalid("query", "bytes that are not UTF-8", ENCODED) from None
    except ValueError:
        raise invalid("query", f"more than {MAX_QUERY_FIELDS} fields", permitted) from None
    found: dict[str, str] = {}
    for name, value in pairs:
        if name not in names or name in found:
            came = f"{shown(name)} twice" if name in found else shown(name)
            raise invalid("query", came, permitted)
        found[name] = value
    return found


def read_body(data: bytes) -> Fields:
    """Returns the fields of a JSON object; no body is an empty object. Raises a Rejection."""
    return Fields(read_json(data) if data else {})
