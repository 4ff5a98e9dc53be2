"""A model's folder as an operator keeps it: a link, which is switched to another folder atomically."""

from __future__ import annotations

import os
from pathlib import Path

from cellkeeper_service.domain.engine import Engine
from cellkeeper_service.engine.load import load_engine

from testing.bundles import make_bundle


class Live:
    """Versions of one model. `path` is given to servers."""

    def __init__(self, folder: Path, *, hidden_size: int = 48, num_layers: int = 2) -> None:
        self.folder = folder
        self.path = folder / "live"
        self._hidden_size = hidden_size
        self._num_layers = num_layers

    def version(self, seed: int) -> Path:
        """Returns the folder of that version, with its own weights."""
        found = self.folder / f"v{seed}"
        if found.exists():
            return found
        return make_bundle(
            found,
            name="m",
            seed=seed,
            hidden_size=self._hidden_size,
            num_layers=self._num_layers,
            feedback=[0, "known", "known"],
        )

    def put(self, target: Path) -> None:
        """Points `path` to this folder from now on."""
        fresh = self.folder / "fresh"
        fresh.symlink_to(target, target_is_directory=True)
        os.replace(fresh, self.path)

    def engines(self, *seeds: int) -> dict[bytes, Engine]:
        """Returns the engines for offline runs, by fingerprint."""
        found = [load_engine(self.version(seed), "cpu") for seed in seeds]
        return {engine.spec.fingerprint: engine for engine in found}
