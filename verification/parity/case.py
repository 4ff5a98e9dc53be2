"""One architecture: how it is made and imported."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cellkeeper_service.converters import Imported

Importer = Callable[[Path, int], Imported]  # (the bundle's folder, max_batch)


@dataclass(frozen=True)
class Case:
    """One architecture to import. slow: it takes more than a few seconds."""

    framework: str
    title: str
    run: Importer
    slow: bool = False
