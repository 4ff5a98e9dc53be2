"""The exactness test at load: it must find engines whose bits depend on the rest of the batch, and fix or name them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cellkeeper_service.domain.engine import Array, Computed, Rows
from cellkeeper_service.engine.exactness import settle
from cellkeeper_service.engine.load import load_engine, offline
from cellkeeper_service.engine.ort import OnnxRuntimeEngine
from cellkeeper_service.model.bundle import read_bundle

from testing.bundles import make_bundle
from tests.unit.engine.cases import bundle_of, new_engine, start_rows

LAST_BIT = np.float32(1.0) + np.finfo(np.float32).eps


class Fickle(OnnxRuntimeEngine):
    """A faulty engine: calls with fewer than `needs` sessions round the prediction differently."""

    needs = 0

    def run(self, inputs: Array, read: Rows, write: Rows, wanted: frozenset[str]) -> Computed:
        computed = super().run(inputs, read, write, wanted)
        if max(self.min_batch, inputs.shape[1]) < self.needs:
            computed.outputs["prediction"][...] *= LAST_BIT
        return computed


class FickleInPlaces(OnnxRuntimeEngine):
    """A faulty engine: it rounds the last session of a call differently."""

    def run(self, inputs: Array, read: Rows, write: Rows, wanted: frozenset[str]) -> Computed:
        computed = super().run(inputs, read, write, wanted)
        computed.outputs["prediction"][:, -1] *= LAST_BIT
        return computed


class FickleInChunks(OnnxRuntimeEngine):
    """A faulty engine: it rounds the state after a chunk of 16 steps differently."""

    def run(self, inputs: Array, read: Rows, write: Rows, wanted: frozenset[str]) -> Computed:
        computed = super().run(inputs, read, write, wanted)
        if len(inputs) == 16:
            self.write_states(write, (self.read_states(write).view("<f4") * LAST_BIT).view(np.uint8))
        return computed


class FickleForLargeValues(OnnxRuntimeEngine):
    """A faulty engine: it rounds chunks of several steps differently if they have values larger than `most`."""

    most = 100.0

    def run(self, inputs: Array, read: Rows, write: Rows, wanted: frozenset[str]) -> Computed:
        computed = super().run(inputs, read, write, wanted)
        large = np.abs(inputs).max(axis=(0, 2)) > self.most
        if len(inputs) > 1:
            computed.outputs["prediction"][:, large] *= LAST_BIT
        return computed


class FickleInOddChunks(OnnxRuntimeEngine):
    """A faulty engine: it rounds chunks of 3, 5, 7 ... steps differently, up to 15."""

    def run(self, inputs: Array, read: Rows, write: Rows, wanted: frozenset[str]) -> Computed:
        computed = super().run(inputs, read, write, wanted)
        if len(inputs) in range(3, 16, 2):
            computed.outputs["prediction"][...] *= LAST_BIT
        return computed


@pytest.mark.parametrize(("needs", "found"), [(0, 1), (2, 2), (3, 3), (5, 5), (30, 31), (40, 64), (64, 64)])
def test_finds_the_smallest_batch_that_agrees(needs: int, found: int) -> None:
    engine = Fickle(bundle_of("lstm"), 64)
    engine.needs = needs
    settle(engine)
    assert (engine.min_batch, engine.exact, engine.tolerance) == (found, True, 0.0)
    assert f"min_batch={found}" in engine.numerics


@pytest.mark.parametrize("flaw", [FickleInPlaces, FickleInChunks])
def test_names_what_cannot_be_mended(flaw: Any) -> None:
    engine = flaw(bundle_of("lstm"), 64)
    settle(engine)
    assert not engine.exact
    assert 1e-9 < engine.tolerance < 1e-6
    assert "threads=1" in engine.numerics


@pytest.mark.parametrize("max_batch", [1, 2, 3, 8, 64])
def test_tries_extreme_sequences_with_any_max_batch(max_batch: int) -> None:
    engine = FickleForLargeValues(bundle_of("lstm"), max_batch)
    settle(engine)
    assert not engine.exact


def test_bits_count_even_where_the_size_of_a_difference_does_not() -> None:
    engine = FickleForLargeValues(bundle_of("lstm"), 8)
    engine.most = 1e5  # only sequences that are there as neighbors
    settle(engine)
    assert not engine.exact
    assert 0 < engine.tolerance < 1e-20


def test_tries_chunks_of_any_length() -> None:
    engine = FickleInOddChunks(bundle_of("lstm"), 8)
    settle(engine)
    assert not engine.exact


@pytest.mark.parametrize("max_batch", [1, 2, 5, 33])
def test_any_max_batch(max_batch: int, tmp_path: Path) -> None:
    bundle = read_bundle(make_bundle(tmp_path / "m", cell="rnn_tanh", hidden_size=40, num_layers=2))
    engine = load_engine(bundle, "cpu", max_batch)
    assert engine.exact
    assert len(offline(engine, np.ones((5, 3), np.float32))["prediction"]) == 5


@pytest.mark.parametrize("kind", ["onnxruntime", "torch"])
def test_filling_up_is_invisible(kind: str) -> None:
    engine = new_engine(kind, bundle_of("hold"))
    engine.settle(8, True, 0.0)
    plain = new_engine(kind, bundle_of("hold"))
    for one in (engine, plain):
        one.reserve(6)
        start_rows(one, np.arange(6, dtype=np.intp))
    inputs = np.random.default_rng(1).standard_normal((2, 3, 3)).astype(np.float32)
    inputs[0, 1] = np.nan
    read, write = np.array([4, 0, 2], np.intp), np.array([5, 1, 3], np.intp)
    wanted = frozenset(["prediction"])
    came, expected = engine.run(inputs, read, write, wanted), plain.run(inputs, read, write, wanted)
    assert came.outputs["prediction"].shape == (2, 3, 1)
    assert came.finite is None
    np.testing.assert_allclose(came.outputs["prediction"], expected.outputs["prediction"], rtol=1e-5, atol=1e-6)
    untouched = np.array([0, 2, 4], np.intp)
    assert (engine.read_states(untouched) == plain.read_states(untouched)).all()


@pytest.mark.parametrize("case", ["lstm", "gru", "softplus", "sinh", "no_head_curve", "curves"])
def test_the_head_needs_no_large_batches(case: str) -> None:
    """Without its zero columns, a softplus differs at most sizes, and only a single batch size would fix that."""
    engine = new_engine("onnxruntime", bundle_of(case))
    assert engine.exact
    assert engine.min_batch <= 4
