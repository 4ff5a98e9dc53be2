"""The console's files: read once, from the package, and served as they are."""

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
    ".png": "image/png",
    ".json": "application/json",
    ".txt": "text/plain; charset=utf-8",
    ".md": "text/plain; charset=utf-8",
}
INDEX = "index.html"


@dataclass(frozen=True, slots=True)
class ConsoleFile:
    """tag: of its content, for ETag."""

    content_type: str
    body: bytes
    tag: str


def read_console(folder: Path = FOLDER) -> dict[str, ConsoleFile]:
    """By the path below /console/, with index.html as "" too. Files of another kind than TYPES are left out."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix in TYPES:
            body = path.read_bytes()
            tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
            found[path.relative_to(folder).as_posix()] = ConsoleFile(TYPES[path.suffix], body, tag)
    if INDEX in found:
        found[""] = found[INDEX]
    return found
