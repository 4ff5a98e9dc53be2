"""The bare engine: one call on some rows after another, in the event loop's thread."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from cellkeeper_service.engine.load import load_engine

from bench.load import Load
from bench.loops import Send

from .samples import samples


class EngineCalls:
    """Calls the engine directly. folder: where the bundles are."""

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)

    async def prepare(self, load: Load) -> Send:
        engine = load_engine(self._folder / load.model, "cpu", max_batch=load.items)
        rows = np.arange(load.items, dtype=np.intp)
        engine.reserve(load.items)
        engine.write_states(rows, np.tile(np.frombuffer(engine.initial_state, np.uint8), (load.items, 1)))
        inputs, wanted = samples(load.model, load.steps, load.items), frozenset({"prediction"})

        async def send(flow: int) -> int:
            engine.run(inputs, rows, rows, wanted)
            return load.items * load.steps

        return send

    async def close(self) -> None:
        return None
