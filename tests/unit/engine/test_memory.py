"""What an engine keeps for the shapes that it has been called with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from cellkeeper_service.engine.load import load_engine

from testing.bundles import make_bundle

WANTED = frozenset(["prediction", "hidden"])
STEPS = 64
MAX_BATCH = 64


def resident_bytes() -> int:
    pages = Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * 4096


def test_larger_batches_do_not_keep_the_buffers_of_smaller_ones(tmp_path: Path) -> None:
    """The largest buffer takes 8 MiB here; those of all batch sizes together take 270 MiB."""
    engine = load_engine(make_bundle(tmp_path / "m", hidden_size=512), "cpu", MAX_BATCH)
    engine.reserve(MAX_BATCH)
    rows = np.arange(MAX_BATCH, dtype=np.intp)
    engine.write_states(rows, np.tile(np.frombuffer(engine.initial_state, np.uint8), (MAX_BATCH, 1)))
    before = resident_bytes()
    for batch in range(1, MAX_BATCH + 1):
        engine.run(np.zeros((STEPS, batch, 3), np.float32), rows[:batch], rows[:batch], WANTED)
    assert resident_bytes() - before < 100 << 20
