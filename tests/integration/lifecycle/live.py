"""A model's folder as an operator keeps it: a link, which is set to another folder in one instant."""

from __future__ import annotations

import os
from pathlib import Path

from cellkeeper_service.domain.engine import Engine
from cellkeeper_service.engine.load import load_engine

from testing.bundles import make_bundle


class Live:
    """Versions of one model: `path` is what servers are given."""

    def __init__(self, folder: Path, *, hidden_size: int = 48, num_layers: int = 2) -> None:
        self.folder = folder
        self.path = folder / "live"
        self._hidden_size = hidden_size
        self._num_layers = num_layers

    def version(self, seed: int) -> Path:
        """The folder of that version, with weights of its own."""
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
        """From now on `path` leads there."""
        fresh = self.folder / "fresh"
        fresh.symlink_to(target, target_is_directory=True)
        os.replace(fresh, self.path)

    def engines(self, *seeds: int) -> dict[bytes, Engine]:
        """By fingerprint, for offline runs."""
        found = [load_engine(self.version(seed), "cpu") for seed in seeds]
        return {engine.spec.fingerprint: engine for engine in found}
