"""Masked elements, None and NA count as missing in data that a model is fitted, imported or run with.

The fill values below a mask are never used.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cellkeeper_service.converters import ImportRefused, fit_normalization, fit_output, import_torch
from cellkeeper_service.engine.load import offline
from cellkeeper_service.errors import StartError
from cellkeeper_service.model.config import Normalization, RecurrentConfig, Transform
from cellkeeper_service.model.fit import fit_bundle
from cellkeeper_service.model.missing import as_numbers
from cellkeeper_service.model.write import write_bundle

from testing.bundles import bundle_config, counting_bundle, make_bundle, random_tensors, token_bundle

NAN = float("nan")
WHOLE = np.array([[1.0, 20.0], [2.0, 40.0], [4.0, NAN], [NAN, 80.0], [8.0, 160.0]])


def masked() -> Any:
    return np.ma.masked_array(np.where(np.isnan(WHOLE), -9999.0, WHOLE), np.isnan(WHOLE))


def with_missing() -> dict[str, Any]:
    """Returns the same table with each way to mark a value as missing."""
    nones = WHOLE.astype(object)
    nones[np.isnan(WHOLE)] = None
    tables: dict[str, Any] = {
        "mask": masked(),
        "mask, integers": masked().astype("i8"),
        "masked rows": list(masked()),
        "masked elements": [list(row) for row in masked()],
        "None": nones,
        "None in lists": nones.tolist(),
    }
    try:
        pandas: Any = import_module("pandas")
    except ImportError:  # comes with the extra "demo"
        return tables
    tables["frame of Float64"] = pandas.DataFrame(nones).astype("Float64")
    tables["frame of objects"] = pandas.DataFrame(nones).astype("Float64").astype(object)
    return tables


@pytest.mark.parametrize("name", with_missing())
def test_fits_leave_out_what_is_missing(name: str, tmp_path: Path) -> None:
    table = with_missing()[name]
    for method in ("standard", "min_max", "robust"):
        assert fit_normalization(table, method) == fit_normalization(WHOLE, method)
    assert fit_output(table, log1p=True) == fit_output(WHOLE, log1p=True)
    source = make_bundle(tmp_path / "a", input_size=2, head=(2,))
    fitted = fit_bundle(source, tmp_path / "b", inputs=table, targets=table).config
    assert fitted == fit_bundle(source, tmp_path / "c", inputs=WHOLE, targets=WHOLE).config
    assert isinstance(fitted, RecurrentConfig)


@pytest.mark.parametrize(
    "data", [[["1", "2"]], [[1, "2"]], [[1, None], ["a", 2]], [[1j, 1]], np.ma.masked_array(WHOLE, True)]
)
def test_what_is_no_number_is_not_fitted(data: Any) -> None:
    for fit in (fit_normalization, fit_output):
        with pytest.raises(StartError, match=r"not numbers|a feature without any number"):
            fit(data)


def test_buffers_hold_no_masks() -> None:
    table: Any = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert as_numbers(memoryview(table)).tolist() == table.tolist()


def test_offline_runs_fill_by_the_models_policy_or_refuse(tmp_path: Path) -> None:
    filling = {"kind": "features", "missing": {"policy": "constant", "value": 100.0}}
    fill = counting_bundle(tmp_path / "fill", features=2, input=filling)
    whole = counting_bundle(tmp_path / "whole", features=2)
    expected = np.nan_to_num(WHOLE, nan=100.0).cumsum(axis=0)
    for table in with_missing().values():
        values: Any = np.asanyarray(table) if not isinstance(table, list) else table
        np.testing.assert_array_equal(offline(fill, values)["prediction"], expected)
        with pytest.raises(StartError, match=r"inputs: got nan at time step 2, feature 1, expected .* none of them"):
            offline(whole, values)
    words = token_bundle(tmp_path, "words")
    with pytest.raises(StartError, match="inputs: got nan at time step 1, expected integers of 0 to 9"):
        offline(words, np.ma.masked_array([3, 4], [False, True]))


def test_weights_are_never_missing(tmp_path: Path) -> None:
    config = bundle_config()
    tensors = random_tensors(config)
    name = sorted(tensors)[0]
    mask = np.zeros(tensors[name].shape, bool)
    mask.flat[0] = True
    with pytest.raises(StartError, match="NaN or infinity"):
        write_bundle(tmp_path / "m", config, {**tensors, name: np.ma.masked_array(tensors[name], mask)})
    assert not (tmp_path / "m").exists()


def test_the_processing_of_an_import_is_never_missing(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    layers = [torch.nn.LSTM(2, 4, batch_first=True), torch.nn.Linear(4, 2)]
    two: Any = np.array([1.0, 2.0])
    gap: Any = np.ma.masked_array([1.0, -9999.0], [False, True])
    with pytest.raises(ImportRefused, match="normalization: offset: holds NaN or infinity"):
        import_torch(layers, tmp_path / "m", normalization=Normalization(gap, two))
    with pytest.raises(
        ImportRefused, match=r"output\[1\]: value: got .*expected finite numbers, without missing values"
    ):
        import_torch(layers, tmp_path / "m", output=[Transform("expm1"), Transform("scale", gap)])
    assert not (tmp_path / "m").exists()
    taken = import_torch(
        layers,
        tmp_path / "m",
        normalization=Normalization(np.ma.masked_array(two, False), two),  # type: ignore[arg-type]
        output=[Transform("scale", two)],
        report=lambda _: None,
    )
    assert taken.bundle.config.output == (Transform("scale", (1.0, 2.0)),)  # type: ignore[union-attr]
