"""The GPU engine around its kernels, on the host: buckets, slices, staging, states, memory, graphs, failures."""

from __future__ import annotations

import logging
from typing import Any
from weakref import ref

import numpy as np
import pytest
from cellkeeper_service.domain.engine import EngineLost
from cellkeeper_service.engine.cuda import engine as engine_module
from cellkeeper_service.engine.cuda.buckets import MAX_GRAPH_STEPS, Layout, shapes, sliced
from cellkeeper_service.engine.cuda.engine import CudaEngine
from cellkeeper_service.engine.exactness import settle
from cellkeeper_service.engine.load import load_engine
from cellkeeper_service.engine.precision import Precision
from cellkeeper_service.errors import StartError
from cellkeeper_service.server.config import Settings
from cellkeeper_service.server.versions import serve_version

from testing.bundles import Array
from tests.unit.engine.cases import bundle_of, config_of, inputs_of, start_rows
from tests.unit.engine.reference import reference_run

from .double import FailingDevice, HostDevice, Temporaries, TorchKernelCells

WANTED = frozenset(["prediction", "hidden"])
CASES = ("lstm", "gru_reset_before", "tokens", "hold", "constant", "proj", "transforms")


@pytest.fixture
def _double(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "KernelCells", TorchKernelCells)


def new(case: str = "lstm", max_batch: int = 6, device: Any = None, precision: Precision = "fp32") -> CudaEngine:
    return CudaEngine(bundle_of(case), max_batch, device or FailingDevice(), precision)


def of_sequence(case: str, inputs: Array) -> dict[str, Array]:
    return reference_run(config_of(case), bundle_of(case).tensors, inputs)


@pytest.mark.parametrize("max_batch", [1, 2, 3, 48, 256, 1000])
def test_every_call_is_made_of_buckets(max_batch: int) -> None:
    kept = set(shapes(max_batch))
    assert len(kept) <= 3 * (max_batch.bit_length() + 1)
    assert all(steps == 1 or steps * batch <= MAX_GRAPH_STEPS for steps, batch in kept)
    for batch in {1, 2, max_batch // 2 + 1, max_batch} - {max_batch + 1}:
        for steps in (1, 2, 15, 16, 17, 70):
            parts = sliced(steps, batch, max_batch)
            assert sum(length for length, _ in parts) == steps
            assert {size for _, size in parts} == {min(max_batch, 1 << (batch - 1).bit_length())}
            assert set(parts) <= kept


def test_only_wanted_outputs_travel_with_the_flags() -> None:
    layout = Layout(bundle_of("lstm").spec, 16, 4)
    assert layout.wanted_bytes(frozenset()) == 4  # a flag for each session
    prediction, hidden = (layout.wanted_bytes(frozenset([name])) for name in ("prediction", "hidden"))
    assert 16 * 4 * 4 <= prediction < hidden == layout.wanted_bytes(WANTED) <= layout.down_bytes


@pytest.mark.usefixtures("_double")
@pytest.mark.parametrize("case", CASES)
def test_values_in_any_batch_and_chunk(case: str) -> None:
    engine = new(case)
    steps, batch = 23, 5
    inputs = inputs_of(case, steps, batch, seed=2)
    engine.reserve(12)
    rows, targets = np.array([3, 0, 11, 7, 5], np.intp), np.array([1, 2, 4, 6, 8], np.intp)
    start_rows(engine, rows)
    computed = engine.run(inputs, rows, targets, WANTED)
    assert computed.finite is None
    alone = np.zeros(1, np.intp)
    for i in range(batch):
        expected = of_sequence(case, inputs[:, i])
        for name in WANTED:
            np.testing.assert_allclose(computed.outputs[name][:, i], expected[name], rtol=2e-4, atol=2e-5)
        start_rows(engine, alone)
        parts = [engine.run(inputs[step : step + 1, i : i + 1], alone, alone, WANTED) for step in range(steps)]
        for name in WANTED:
            stepped = np.concatenate([part.outputs[name][:, 0] for part in parts])
            np.testing.assert_array_equal(stepped, computed.outputs[name][:, i])
        np.testing.assert_array_equal(engine.read_states(alone)[0], engine.read_states(targets[i : i + 1])[0])


@pytest.mark.usefixtures("_double")
def test_the_trial_at_load_finds_it_exact() -> None:
    engine = new("gru", 3)
    settle(engine)
    assert (engine.exact, engine.min_batch) == (True, 1)
    assert 0 < engine.tolerance < 1e-5  # compared to float64
    assert engine.numerics.startswith("cuda fp32 double torch ")


@pytest.mark.usefixtures("_double")
def test_a_filled_up_batch() -> None:
    engine = new(max_batch=6)
    engine.reserve(12)
    engine.settle(4, True, 0.5)
    assert engine.tolerance == 0.5
    assert "min_batch=4" in engine.numerics
    row = np.array([9], np.intp)
    start_rows(engine, row)
    inputs = inputs_of("lstm", 1, 1)
    came = engine.run(inputs, row, row, WANTED).outputs["hidden"][0]
    np.testing.assert_allclose(came, of_sequence("lstm", inputs[:, 0])["hidden"], rtol=2e-4, atol=2e-5)


@pytest.mark.usefixtures("_double")
def test_the_results_of_a_call_stay_when_the_next_one_runs() -> None:
    engine = new()
    engine.reserve(8)
    first, second = np.array([0, 1, 2], np.intp), np.array([4, 5], np.intp)
    inputs = inputs_of("lstm", 16, 5)  # one slice, which is not concatenated; the second call needs no larger buffers
    start_rows(engine, np.arange(8, dtype=np.intp))
    one = engine.run(inputs[:, :3], first, first, WANTED).outputs["prediction"]
    two = engine.run(inputs[:, 3:], second, second, WANTED).outputs["prediction"]
    came = np.concatenate([one, two], axis=1)
    for i in range(5):
        expected = of_sequence("lstm", inputs[:, i])["prediction"]
        np.testing.assert_allclose(came[:, i], expected, rtol=2e-4, atol=2e-5)


@pytest.mark.usefixtures("_double")
@pytest.mark.parametrize("step", [0, 17, 20])
def test_an_input_that_cannot_be_taken_in_any_slice_flags_its_row(step: int) -> None:
    """The cell hides it: an infinite pre-activation gives finite gates."""
    engine = new()
    engine.reserve(3)
    rows = np.arange(3, dtype=np.intp)
    start_rows(engine, rows)
    inputs = inputs_of("lstm", 21, 3)
    inputs[step, 1, 0] = np.inf
    finite = engine.run(inputs, rows, rows, WANTED).finite
    assert finite is not None
    assert finite.tolist() == [True, False, True]
    assert np.isfinite(engine.read_states(rows).view(np.float32)).all()


@pytest.mark.usefixtures("_double")
def test_a_call_after_a_larger_one() -> None:
    """The staging buffers for inputs and outputs grew in between."""
    engine = new()
    engine.reserve(8)
    inputs = inputs_of("lstm", 23, 6)
    rows = np.arange(6, dtype=np.intp)
    start_rows(engine, rows)
    for start, steps in ((0, 1), (1, 21), (22, 1)):
        for some in (rows[:1], rows[1:]):
            came = engine.run(np.ascontiguousarray(inputs[start : start + steps, some]), some, some, WANTED)
            for i, row in enumerate(some):
                expected = of_sequence("lstm", inputs[:, row])["hidden"][start : start + steps]
                np.testing.assert_allclose(came.outputs["hidden"][:, i], expected, rtol=2e-4, atol=2e-5)


@pytest.mark.usefixtures("_double")
def test_forks_read_the_state_as_it_was() -> None:
    engine = new()
    engine.reserve(8)
    start_rows(engine, np.arange(8, dtype=np.intp))
    inputs = np.repeat(inputs_of("lstm", 5, 1), 3, axis=1)
    engine.run(inputs, np.array([2, 2, 2], np.intp), np.array([2, 0, 7], np.intp), WANTED)
    after = engine.read_states(np.array([2, 0, 7], np.intp))
    np.testing.assert_array_equal(after, after[[0, 0, 0]])


@pytest.mark.usefixtures("_double")
def test_states_travel_in_parts_of_bounded_size(monkeypatch: pytest.MonkeyPatch) -> None:
    device = FailingDevice()
    engine = new("hold", device=device)
    engine.reserve(50)
    monkeypatch.setattr(engine_module, "STATE_COPY_BYTES", 7 * (8 + engine.spec.state_bytes))
    draw = np.random.default_rng(1)
    states = draw.integers(0, 255, (50, engine.spec.state_bytes), dtype=np.uint8)
    rows = draw.permutation(50).astype(np.intp)
    device.waited = 0
    engine.write_states(rows, states)
    assert device.waited == 8  # for 7 rows each time, and for the last one
    np.testing.assert_array_equal(engine.read_states(rows), states)
    assert device.waited == 16
    np.testing.assert_array_equal(engine.read_states(rows[[3, 3, 0]]), states[[3, 3, 0]])
    assert engine.read_states(rows[:0]).shape == (0, engine.spec.state_bytes)


@pytest.mark.usefixtures("_double")
def test_rows_and_outputs_that_are_not_there() -> None:
    engine = new()
    engine.reserve(2)
    inputs, rows = inputs_of("lstm", 1, 2), np.arange(2, dtype=np.intp)
    with pytest.raises(ValueError, match="outputs: got"):
        engine.run(inputs, rows, rows, frozenset(["nonsense"]))
    with pytest.raises(IndexError, match="the arena has 2"):
        engine.run(inputs, rows, rows + 1, WANTED)
    with pytest.raises(IndexError):
        engine.read_states(rows - 1)
    with pytest.raises(ValueError, match="batch: got 2"):
        engine.run(inputs, rows[:1], rows, WANTED)
    engine.reserve(20)
    many = np.arange(7, dtype=np.intp)
    with pytest.raises(ValueError, match="1 to 6"):
        engine.run(inputs_of("lstm", 1, 7), many, many, WANTED)


@pytest.mark.usefixtures("_double")
def test_every_bucket_is_a_graph_before_serving() -> None:
    device = FailingDevice()
    engine = new(device=device)
    engine.reserve(100)
    device.captured, before = 0, device.captured
    assert before >= len(shapes(6))
    rows = np.arange(6, dtype=np.intp)
    start_rows(engine, rows)
    device.replayed = 0
    engine.run(inputs_of("lstm", 21, 6), rows, rows, WANTED)
    assert device.captured == 0
    assert device.replayed == len(sliced(21, 6, 6))


def test_the_memory_of_a_graph_is_kept_as_long_as_the_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    """A graph writes to addresses: memory that is freed would be another tensor's, or nobody's."""
    made: list[ref[Temporaries]] = []

    class Cells(TorchKernelCells):
        def scratch(self, steps: int, batch: int) -> Temporaries:
            temporaries = Temporaries()
            made.append(ref(temporaries))
            return temporaries

    class Device(FailingDevice):
        def capture(self, launch: Any) -> Any:
            return lambda: None  # a graph keeps no tensor

    def alive() -> int:
        return sum(one() is not None for one in made)

    monkeypatch.setattr(engine_module, "KernelCells", Cells)
    engine = new(device=Device())
    assert alive() == len(shapes(6))
    engine.reserve(100)
    assert alive() == len(shapes(6))
    del engine
    assert alive() == 0


@pytest.mark.usefixtures("_double")
def test_without_graphs_it_computes_all_the_same_and_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        engine = new(device=FailingDevice(captures=False))
    engine.reserve(2)
    row = np.zeros(1, np.intp)
    start_rows(engine, row)
    inputs = inputs_of("lstm", 5, 1)
    came = engine.run(inputs, row, row, WANTED).outputs["hidden"][:, 0]
    np.testing.assert_allclose(came, of_sequence("lstm", inputs[:, 0])["hidden"], rtol=2e-4, atol=2e-5)
    assert [record.getMessage() for record in caplog.records if "graphs cannot be captured" in record.getMessage()] == [
        "model lstm: CUDA graphs cannot be captured (operation not permitted when stream is capturing); kernels are "
        "launched one by one, which is slower"
    ]
    assert not engine.captured
    assert new(device=FailingDevice()).captured


@pytest.mark.usefixtures("_double")
def test_the_arena_takes_half_of_the_free_memory_unless_it_is_told() -> None:
    engine = new("lstm", device=FailingDevice(memory_bytes=8 << 20))
    slot_bytes = 2 * engine.spec.state_bytes
    words = ["m", "--store=memory:", "--max-batch=6"]
    for more, shares, bytes_of_it in (([], 1, 4 << 20), ([], 2, 2 << 20), (["--arena-mib=1"], 1, 1 << 20)):
        version = serve_version(engine, Settings.read([*words, *more], {}), shares)
        assert version.slot_count == bytes_of_it // slot_bytes


@pytest.mark.usefixtures("_double")
def test_an_arena_that_does_not_fit() -> None:
    engine = new(device=FailingDevice(memory_bytes=1 << 20))
    expected = r"^arena_mib: 100000 rows of states of lstm take 37 MiB on cuda:0 a device of tests, of which 1 MiB are "
    with pytest.raises(StartError, match=expected + "free; lower --arena-mib"):
        engine.reserve(100_000)


@pytest.mark.usefixtures("_double")
def test_a_precision_that_the_device_lacks() -> None:
    with pytest.raises(StartError, match=r"precision: got bf16, cuda:0 .* choose --precision fp32"):
        new(device=FailingDevice(reduced=False), precision="bf16")


@pytest.mark.usefixtures("_double")
@pytest.mark.parametrize("uses", [0, 1, 2, 5, 20, 60])
def test_a_device_that_fails_while_it_loads(uses: int, monkeypatch: pytest.MonkeyPatch) -> None:
    device = FailingDevice()
    device.arm(uses)
    monkeypatch.setattr("cellkeeper_service.engine.cuda.device.CudaDevice", lambda name: device)
    with pytest.raises(
        StartError, match=r"^[^\n]*cuda:0 [^\n]* failed: CUDA error: [^\n]*(lower|choose) [^\n]*--[^\n]*$"
    ):
        load_engine(bundle_of("lstm"), "cuda:0", 2)


@pytest.mark.usefixtures("_double")
@pytest.mark.parametrize("uses", [0, 1])
def test_a_device_that_fails_in_a_call(uses: int) -> None:
    device = FailingDevice()
    engine = new(device=device)
    engine.reserve(4)
    rows = np.arange(2, dtype=np.intp)
    start_rows(engine, rows)
    device.arm(uses)
    with pytest.raises(EngineLost, match=r"cuda:0 .* failed: CUDA error"):
        engine.run(inputs_of("lstm", 2, 2), rows, rows, WANTED)
    device.arm(0)
    with pytest.raises(EngineLost):
        engine.read_states(rows)
    with pytest.raises(EngineLost):
        engine.write_states(rows, np.zeros((2, engine.spec.state_bytes), np.uint8))


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.filterwarnings("ignore:overflow")
def test_with_the_kernels_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the real kernels, interpreted and small. tests/unit/kernels has the kernels' own contract."""
    from tests.unit.kernels.interpreter import INTERPRETED, install

    if not INTERPRETED:
        pytest.skip("a device is there: the tests marked gpu run the same on it")
    install()
    monkeypatch.setattr(engine_module, "relative_error", lambda *_: 0.0)
    monkeypatch.setattr("cellkeeper_service.engine.cuda.buckets.SLICE_STEPS", (4, 1))
    engine = new("gru", 3, HostDevice())
    engine.reserve(6)
    rows, targets = np.array([4, 0, 2], np.intp), np.array([4, 1, 3], np.intp)
    start_rows(engine, rows)
    inputs = inputs_of("gru", 5, 3)
    inputs[2, 1] = np.inf
    computed = engine.run(inputs, rows, targets, WANTED)
    assert computed.finite is not None
    assert computed.finite.tolist() == [True, False, True]
    for i in (0, 2):
        expected = of_sequence("gru", inputs[:, i])
        for name in WANTED:
            np.testing.assert_allclose(computed.outputs[name][:, i], expected[name], rtol=2e-4, atol=2e-5)


@pytest.mark.usefixtures("_double")
def test_a_call_that_lacks_memory_fails_before_its_kernels_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is repeated, with fewer sessions, from the same rows; kernels may have written these."""
    engine = new()
    engine.reserve(2)
    rows = np.arange(2, dtype=np.intp)
    start_rows(engine, rows)
    inputs = inputs_of("lstm", 3, 2)
    launched: list[object] = []

    def no_memory(*_: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr(np, "empty", no_memory)
        patched.setattr(TorchKernelCells, "launch", lambda *_: launched.append(_))
        with pytest.raises(MemoryError):
            engine.run(inputs, rows, rows, WANTED)
    assert launched == []
