"""The console's files: read from the package once, and served unchanged."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent / "console"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}
INDEX = "index.html"


@dataclass(frozen=True, slots=True)
class ConsoleFile:
    """One file. tag: a hash of its body, for ETag; without quotes."""

    content_type: str
    body: bytes
    tag: str


def read_console(folder: Path = FOLDER) -> dict[str, ConsoleFile]:
    """Returns files by their path below /console/; index.html also as "". Skips file types that are not in TYPES."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix in TYPES:
            body = path.read_bytes()
            tag = hashlib.sha256(body).hexdigest()[:32]
            found[path.relative_to(folder).as_posix()] = ConsoleFile(TYPES[path.suffix], body, tag)
    if INDEX in found:
        found[""] = found[INDEX]
    return found
