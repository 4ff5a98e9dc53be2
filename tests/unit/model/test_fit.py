"""What is fitted from data inverts what was done to it, and is written to config.json."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cellkeeper_service.engine.load import offline
from cellkeeper_service.errors import StartError
from cellkeeper_service.model.bundle import read_bundle
from cellkeeper_service.model.config import RecurrentConfig
from cellkeeper_service.model.fit import fit_bundle, fit_normalization, fit_output

from testing.bundles import Array, make_bundle


def data() -> Array:
    values = np.random.default_rng(4).lognormal([1.0, 3.0, -2.0], 0.5, (4, 60, 3))
    values[1, 7, 2] = values[3, 0, 0] = np.nan
    return values


def test_the_three_methods() -> None:
    table = data().reshape(-1, 3)
    standard = fit_normalization(data())
    np.testing.assert_allclose(standard.offset, np.nanmean(table, axis=0))
    np.testing.assert_allclose(standard.scale, np.nanstd(table, axis=0))
    ranged = fit_normalization(data(), "min_max")
    np.testing.assert_allclose(np.nanmin((table - ranged.offset) / ranged.scale, axis=0), 0.0, atol=1e-12)
    np.testing.assert_allclose(np.nanmax((table - ranged.offset) / ranged.scale, axis=0), 1.0)
    robust = fit_normalization(data(), "robust")
    np.testing.assert_allclose(robust.offset, np.nanmedian(table, axis=0))
    np.testing.assert_allclose(robust.scale, np.diff(np.nanquantile(table, [0.25, 0.75], axis=0), axis=0)[0])


def test_a_feature_that_never_changes_gets_the_scale_1() -> None:
    values = np.full((10, 2), 0.1)
    values[:, 1] = np.arange(10)
    for method in ("standard", "min_max", "robust"):
        assert fit_normalization(values, method).scale[0] == 1.0


def test_a_bundle_with_what_was_fitted(tmp_path: Path) -> None:
    source = make_bundle(tmp_path / "a", head=(2,))
    targets = np.random.default_rng(5).lognormal(2.0, 1.0, (200, 2))
    bundle = fit_bundle(source, tmp_path / "b", inputs=data(), targets=targets, method="robust", log1p=True)
    assert isinstance(bundle.config, RecurrentConfig)
    assert [step.op for step in bundle.config.output] == ["scale", "offset", "expm1"]
    assert read_bundle(tmp_path / "b").spec.fingerprint != read_bundle(source).spec.fingerprint
    normal, logs = fit_normalization(data(), "robust"), np.log1p(targets)
    x = np.nan_to_num(data()[0], nan=1.0)
    plain = offline(source, ((x - normal.offset) / normal.scale).astype(np.float32))["prediction"].astype(float)
    spread = np.diff(np.quantile(logs, [0.25, 0.75], axis=0), axis=0)[0]
    expected = np.expm1(plain * spread + np.median(logs, axis=0))
    np.testing.assert_allclose(offline(tmp_path / "b", x.astype(np.float32))["prediction"], expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: fit_normalization([1.0, 2.0]), r"data: got shape \[2\]"),
        (lambda: fit_normalization(np.full((3, 2), np.nan)), "a feature without any number"),
        (lambda: fit_normalization([[np.inf]]), "got an infinity"),
        (lambda: fit_normalization([["a"]]), "data: not numbers"),
        (
            lambda: fit_normalization([[1.0]], "zscore"),
            "method: got 'zscore', expected one of standard, min_max, robust",
        ),
        (lambda: fit_output([[-1.0]], log1p=True), "targets: got -1.0, expected more than -1"),
    ],
)
def test_data_that_cannot_be_taken(call: Any, words: str) -> None:
    with pytest.raises(StartError, match=words):
        call()


def test_data_of_another_width(tmp_path: Path) -> None:
    source = make_bundle(tmp_path / "a")
    with pytest.raises(StartError, match="inputs: got 2 features, expected 3"):
        fit_bundle(source, tmp_path / "b", inputs=np.ones((4, 2)))
    with pytest.raises(StartError, match="targets: got 2 features, expected 1"):
        fit_bundle(source, tmp_path / "b", targets=np.ones((4, 2)))
    assert not (tmp_path / "b").exists()
