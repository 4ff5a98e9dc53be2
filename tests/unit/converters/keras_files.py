"""Keras files, changed."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any


def rewritten(path: Path, target: Path, change: Callable[[dict[str, Any]], None], **more: bytes) -> Path:
    """Copies a .keras file with a changed config.json and additional entries."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(parts["config.json"])
    change(config)
    parts["config.json"] = json.dumps(config).encode()
    with zipfile.ZipFile(target, "w") as archive:
        for name, data in {**parts, **more}.items():
            archive.writestr(name, data)
    return target
