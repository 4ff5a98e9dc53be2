"""The server-side scripts of this package."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from hashlib import sha1
from importlib.resources import files

from .link import bulk


@dataclass(frozen=True, slots=True)
class Script:
    """One Lua script. sha: the hexadecimal SHA-1 by which EVALSHA calls it. call: the same, as a packed argument."""

    text: bytes
    sha: bytes
    call: bytes


@cache
def script(name: str) -> Script:
    """Returns the script `name`.lua of this package's lua folder, with elements.lua before it, and, for write.lua,
    trim.lua before that."""
    here = files("cellkeeper_service.store.redis") / "lua"
    parts = ("trim", "elements", name) if name == "write" else ("elements", name)
    return of_text(b"".join([here.joinpath(f"{part}.lua").read_bytes() for part in parts]))


def of_text(text: bytes) -> Script:
    """Returns the script with this text."""
    sha = sha1(text).hexdigest().encode()
    return Script(text, sha, bulk(sha))
