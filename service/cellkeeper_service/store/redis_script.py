"""The server-side scripts of this package."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from hashlib import sha1
from importlib.resources import files

from cellkeeper_service.store.redis_link import bulk


@dataclass(frozen=True, slots=True)
class Script:
    """sha: the hexadecimal SHA-1 that it is called by. call: the same as an argument."""

    text: bytes
    sha: bytes
    call: bytes


@cache
def script(name: str) -> Script:
    """The script `name`.lua of this package, with elements.lua in front."""
    here = files("cellkeeper_service.store")
    text = here.joinpath("elements.lua").read_bytes() + here.joinpath(f"{name}.lua").read_bytes()
    sha = sha1(text).hexdigest().encode()
    return Script(text, sha, bulk(sha))
