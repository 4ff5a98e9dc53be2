"""What every engine must do for every model: right values, and the same bits whatever is computed alongside."""

from __future__ import annotations

import numpy as np
import pytest
from cellkeeper_service.engine.load import offline

from testing.bundles import Array
from tests.unit.engine.cases import (
    MAX_BATCH,
    bundle_of,
    config_of,
    each_case,
    each_engine,
    inputs_of,
    start_rows,
    take_engine,
)
from tests.unit.engine.reference import reference_run

WANTED = frozenset(["prediction", "hidden"])


@each_engine
@each_case
def test_matches_the_float64_reference(kind: str, case: str) -> None:
    engine = take_engine(kind, case)
    inputs = inputs_of(case, 30, 1)[:, 0]
    served = offline(engine, inputs)
    expected = reference_run(config_of(case), bundle_of(case).tensors, inputs)
    for name in ("prediction", "hidden"):
        assert served[name].dtype == np.float32
        np.testing.assert_allclose(served[name], expected[name], rtol=2e-4, atol=2e-5, err_msg=name)
    for name in ("h", "c"):
        if f"state.{name}" in served:
            np.testing.assert_allclose(served[f"state.{name}"], expected[name], rtol=2e-4, atol=2e-5, err_msg=name)


@each_engine
@each_case
def test_same_bits_in_any_company_place_and_chunking(kind: str, case: str) -> None:
    engine = take_engine(kind, case)
    assert engine.exact, engine.tolerance
    sessions, steps = 20, 16
    inputs = inputs_of(case, steps, sessions, seed=3)
    expected = [offline(engine, inputs[:, i]) for i in range(sessions)]

    seed = int(np.random.SeedSequence().generate_state(1)[0])
    print("seed", seed)
    draw = np.random.default_rng(seed)
    engine.reserve(2 * sessions)
    rows = draw.permutation(2 * sessions).astype(np.intp)
    current, spare = rows[:sessions].copy(), rows[sessions:].copy()
    start_rows(engine, current)
    done = np.zeros(sessions, int)
    parts: list[dict[str, list[Array]]] = [{"prediction": [], "hidden": []} for _ in range(sessions)]
    while (done < steps).any():
        chunk = int(draw.choice([1, 1, 2, 4, 8]))
        ready = np.flatnonzero(done + chunk <= steps)
        if not len(ready):
            continue
        chosen = draw.permutation(ready)[: draw.integers(1, len(ready) + 1)]
        x = np.stack([inputs[done[i] : done[i] + chunk, i] for i in chosen], axis=1)
        computed = engine.run(x, current[chosen], spare[chosen], WANTED)
        assert computed.finite is None
        current[chosen], spare[chosen] = spare[chosen], current[chosen].copy()
        done[chosen] += chunk
        for place, i in enumerate(chosen):
            for name in WANTED:
                parts[i][name].append(computed.outputs[name][:, place])
    for i in range(sessions):
        for name in WANTED:
            np.testing.assert_array_equal(np.concatenate(parts[i][name]), expected[i][name], err_msg=f"{i} {name}")
        state = b"".join(expected[i][f"state.{spec.name}"].tobytes() for spec in engine.spec.states)
        assert engine.read_states(current[i : i + 1])[0].tobytes() == state, f"state of session {i}"


@each_engine
@each_case
def test_same_bits_in_every_batch_size(kind: str, case: str) -> None:
    engine = take_engine(kind, case)
    rows = np.arange(2 * MAX_BATCH, dtype=np.intp)
    engine.reserve(2 * MAX_BATCH)
    inputs = inputs_of(case, 1, MAX_BATCH, seed=9)
    draw = np.random.default_rng(9)
    states = draw.uniform(-0.9, 0.9, (MAX_BATCH, engine.spec.state_bytes // 4)).astype("<f4").view(np.uint8)
    engine.write_states(rows[:MAX_BATCH], states)
    whole = engine.run(inputs, rows[:MAX_BATCH], rows[MAX_BATCH:], WANTED)
    after = engine.read_states(rows[MAX_BATCH:])
    for size in range(1, MAX_BATCH):
        first = (size * 7) % (MAX_BATCH - size + 1)
        some = slice(first, first + size)
        computed = engine.run(np.ascontiguousarray(inputs[:, some]), rows[some], rows[MAX_BATCH:][:size], WANTED)
        for name in WANTED:
            np.testing.assert_array_equal(computed.outputs[name], whole.outputs[name][:, some], err_msg=f"{size}")
        np.testing.assert_array_equal(engine.read_states(rows[MAX_BATCH:][:size]), after[some], err_msg=f"{size}")


@each_engine
@each_case
def test_bad_input_stays_with_its_session(kind: str, case: str) -> None:
    engine = take_engine(kind, case)
    batch = 6
    inputs = inputs_of(case, 3, batch, seed=5)
    rows, targets = np.arange(batch, dtype=np.intp), np.arange(batch, 2 * batch, dtype=np.intp)
    engine.reserve(2 * batch)
    start_rows(engine, rows)
    good = engine.run(inputs, rows, targets, WANTED)
    assert good.finite is None
    states = engine.read_states(targets)
    spoilt = inputs.copy()
    if engine.spec.vocabulary:
        spoilt[1, 2], spoilt[2, 4] = engine.spec.vocabulary, -1
    else:
        spoilt[1, 2], spoilt[2, 4] = (np.inf if engine.spec.missing_values else np.nan), -np.inf
    bad = engine.run(spoilt, rows, targets, WANTED)
    others = np.array([0, 1, 3, 5])
    assert bad.finite is not None
    assert bad.finite.tolist() == [True, True, False, True, False, True]
    for name in WANTED:
        np.testing.assert_array_equal(bad.outputs[name][:, others], good.outputs[name][:, others])
    np.testing.assert_array_equal(engine.read_states(targets)[others], states[others])


@each_engine
@each_case
def test_the_row_read_is_left_as_it_was(kind: str, case: str) -> None:
    engine = take_engine(kind, case)
    engine.reserve(12)
    everything = np.arange(12, dtype=np.intp)
    draw = np.random.default_rng(11)
    states = draw.standard_normal((12, engine.spec.state_bytes // 4)).astype("<f4").view(np.uint8)
    engine.write_states(everything, states)
    np.testing.assert_array_equal(engine.read_states(everything), states)
    read, write = np.array([7, 2, 9], np.intp), np.array([1, 2, 4], np.intp)  # 2 is advanced in place
    inputs = inputs_of(case, 2, 3)
    engine.run(inputs, read, write, frozenset())
    after = engine.read_states(everything)
    untouched = [0, 3, 5, 6, 7, 8, 9, 10, 11]
    np.testing.assert_array_equal(after[untouched], states[untouched])
    assert not (after[write] == states[read]).all(axis=1).any()
    np.testing.assert_array_equal(engine.read_states(np.array([4, 4, 1], np.intp)), after[[4, 4, 1]])


@each_engine
@each_case
def test_outputs_are_those_wanted_and_stay(kind: str, case: str) -> None:
    engine = take_engine(kind, case)
    rows = np.arange(MAX_BATCH, dtype=np.intp)
    engine.reserve(MAX_BATCH)
    start_rows(engine, rows)
    first = inputs_of(case, 1, MAX_BATCH)
    one = engine.run(first, rows, rows, frozenset(["hidden"])).outputs
    assert set(one) == {"hidden"}
    assert one["hidden"].shape == (1, MAX_BATCH, *engine.spec.outputs[1].shape)
    kept = one["hidden"].copy()
    assert engine.run(inputs_of(case, 1, MAX_BATCH, 1), rows, rows, frozenset()).outputs == {}
    other = engine.run(inputs_of(case, 1, MAX_BATCH, 2), rows, rows, WANTED).outputs
    assert other["prediction"].shape == (1, MAX_BATCH, *engine.spec.outputs[0].shape)
    np.testing.assert_array_equal(one["hidden"], kept)  # a later call does not write into it


@each_engine
@each_case
def test_initial_state_is_a_checkpoint(kind: str, case: str) -> None:
    engine = take_engine(kind, case)
    assert len(engine.initial_state) == engine.spec.state_bytes
    values = np.frombuffer(engine.initial_state, "<f4")
    tensors = bundle_of(case).tensors
    expected = [tensors[name].ravel() for name in ("initial.h", "initial.c") if name in tensors]
    if expected:
        np.testing.assert_array_equal(values, np.concatenate(expected))
    elif case in ("hold", "hold_each"):
        assert values[-3:].tolist() == ([0.25] * 3 if case == "hold" else [0.25, -1.5, 3.0])
        assert not values[:-3].any()
    else:
        assert not values.any()


@pytest.mark.parametrize(("kind", "broken"), [("onnxruntime", "ort.all_finite"), ("torch", "torch_engine.finite_rows")])
def test_a_call_that_fails_changes_no_state(kind: str, broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is repeated, with fewer sessions, from the same rows."""
    engine = take_engine(kind, "hold")
    engine.reserve(2)
    rows = np.arange(2, dtype=np.intp)
    start_rows(engine, rows)
    inputs = inputs_of("hold", 3, 2)
    before = engine.read_states(rows).copy()

    def no_memory(*values: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr(f"cellkeeper_service.engine.{broken}", no_memory)
        with pytest.raises(MemoryError):
            engine.run(inputs, rows, rows, WANTED)
    np.testing.assert_array_equal(engine.read_states(rows), before)
