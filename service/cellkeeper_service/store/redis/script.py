"""The server-side scripts of this package."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from hashlib import sha1
from importlib.resources import files

from cellkeeper_service.store.redis.link import bulk


@dataclass(frozen=True, slots=True)
class Script:
    """sha: the hexadecimal SHA-1 that it is called by. call: the same as an argument."""

    text: bytes
    sha: bytes
    call: bytes


@cache
def script(name: str) -> Script:
    """The script `name`.lua of this package's lua folder, with elements.lua in front, and trim.lua in front of that."""
    here = files("cellkeeper_service.store.redis") / "lua"
    parts = ("trim", "elements", name) if name == "write" else ("elements", name)
    text = b"".join([here.joinpath(f"{part}.lua").read_bytes() for part in parts])
    sha = sha1(text).hexdigest().encode()
    return Script(text, sha, bulk(sha))
