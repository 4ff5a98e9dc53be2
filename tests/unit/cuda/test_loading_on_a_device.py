"""Models are loaded while another one is served, on a device: what its tests on the host cannot show."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
from cellkeeper_service.engine.cuda.device import TORCH_STREAMS, CudaDevice, cuda_devices
from cellkeeper_service.engine.cuda.engine import CudaEngine
from cellkeeper_service.model.bundle import read_bundle

from testing.bundles import Array, make_bundle

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(cuda_devices() == 0, reason="no CUDA device")]

ROWS = np.arange(4, dtype=np.intp)
WANTED = frozenset({"prediction", "hidden"})


def results(engine: Any, inputs: Array) -> bytes:
    """Returns the bits of the outputs and states after a chunk, from the initial state on."""
    engine.write_states(ROWS, np.tile(np.frombuffer(engine.initial_state, np.uint8), (len(ROWS), 1)))
    outputs = engine.run(inputs, ROWS, ROWS, WANTED).outputs
    parts = [*(outputs[name] for name in sorted(WANTED)), engine.read_states(ROWS)]
    return b"".join(part.tobytes() for part in parts)


def test_a_served_model_and_those_loaded_meanwhile_do_not_disturb_each_other(tmp_path: Path) -> None:
    """They share the device, torch's allocators and its 32 streams, of which other models use all. The graphs of those
    no longer served are freed by Python's garbage collector, in either thread and at any time."""
    bundle = read_bundle(make_bundle(tmp_path / "m", num_layers=2))
    inputs = np.random.default_rng(0).standard_normal((21, len(ROWS), 3)).astype(np.float32)
    others = [CudaDevice("cuda:0") for _ in range(TORCH_STREAMS)]
    ended = Event()

    def loaded() -> CudaEngine:
        engine = CudaEngine(bundle, len(ROWS), CudaDevice("cuda:0"))
        engine.reserve(len(ROWS))
        return engine

    served = loaded()
    expected = results(served, inputs)

    def serve() -> int:
        calls = 0
        while not ended.is_set():
            assert results(served, inputs) == expected, f"call {calls}"
            calls += 1
        return calls

    with ThreadPoolExecutor(1) as thread:
        serving = thread.submit(serve)
        try:
            for number in range(TORCH_STREAMS + 8):
                engine = loaded()
                assert engine.captured, f"the graphs of model {number} could not be captured"
                assert results(engine, inputs) == expected, f"model {number}"
                retired: list[Any] = [engine]
                retired.append(retired)
                del engine, retired
        finally:
            ended.set()
        assert serving.result() > 0
    del others
