"""Fitted scalers of scikit-learn, and plain dicts, become a bundle's pre- and postprocessing."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cellkeeper_service.converters import ImportRefused, Normalization, import_torch
from cellkeeper_service.converters.command import run_import
from cellkeeper_service.converters.processing import checked, parse_processing
from cellkeeper_service.converters.reference import apply
from cellkeeper_service.converters.scalers import read_scaler
from cellkeeper_service.converters.stack import Convert
from cellkeeper_service.engine.load import offline
from cellkeeper_service.errors import StartError
from cellkeeper_service.model.bundle import read_bundle
from numpy.typing import NDArray
from safetensors.torch import save_file
from sklearn.compose import ColumnTransformer
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import (
    MaxAbsScaler,
    MinMaxScaler,
    OneHotEncoder,
    PowerTransformer,
    QuantileTransformer,
    RobustScaler,
    StandardScaler,
)
from torch import nn

from examples.recipes.power_transform import Power

QUICK: dict[str, Any] = {"max_batch": 8, "report": str}
NAMES = ["flow", "heat", "load"]
TABLE: NDArray[np.float64] = np.random.default_rng(6).normal([300.0, -2.0, 0.01], [20.0, 0.5, 0.002], (200, 3))
pandas: Any = import_module("pandas")
FRAME = pandas.DataFrame(TABLE, columns=NAMES)

SCALERS: dict[str, Any] = {
    "standard": StandardScaler(),
    "standard without mean": StandardScaler(with_mean=False),
    "standard without std": StandardScaler(with_std=False),
    "min_max": MinMaxScaler((-1.0, 3.0)),
    "robust": RobustScaler(quantile_range=(10.0, 80.0), unit_variance=True),
    "robust without scaling": RobustScaler(with_scaling=False),
    "max_abs": MaxAbsScaler(),
    "pipeline": make_pipeline(StandardScaler(), MinMaxScaler((0.0, 2.0)), "passthrough", RobustScaler()),
    "columns": ColumnTransformer([("a", StandardScaler(), [0, 1]), ("b", make_pipeline(MinMaxScaler()), [2])]),
    "columns passed": ColumnTransformer([("a", MinMaxScaler(), slice(0, 1))], remainder="passthrough"),
    "columns by a mask": ColumnTransformer([("a", RobustScaler(), [True, True, False]), ("b", "passthrough", [-1])]),
}


@pytest.mark.parametrize("name", SCALERS)
def test_the_numbers_are_scikit_learns(name: str) -> None:
    scaler = SCALERS[name].fit(TABLE)
    processing = checked(scaler, None, scaler)
    numbers = processing.normalization
    assert isinstance(numbers, Normalization)
    scaled = (TABLE - np.array(numbers.offset)) / np.array(numbers.scale)
    np.testing.assert_allclose(scaled, scaler.transform(TABLE), rtol=1e-9, atol=1e-9)
    back = scaled
    for transform in processing.output:
        back = apply(Convert("output", transform), back)
    np.testing.assert_allclose(back, TABLE, rtol=1e-9, atol=1e-9)


def test_a_column_that_never_changes() -> None:
    still = np.column_stack([np.full(20, 7.0), np.arange(20.0)])
    for scaler in (StandardScaler(), MinMaxScaler(), RobustScaler()):
        fitted = read_scaler(scaler.fit(still), "normalization")
        np.testing.assert_allclose(still * fitted.factor + fitted.shift, scaler.transform(still), atol=1e-12)


def test_dicts_are_the_same() -> None:
    standard, robust = StandardScaler().fit(TABLE), RobustScaler().fit(TABLE)
    bounds = MinMaxScaler((-1.0, 1.0)).fit(TABLE)
    for scaler, value in (
        (standard, {"type": "standard", "mean": standard.mean_.tolist(), "scale": standard.scale_.tolist()}),
        (robust, {"type": "robust", "center": robust.center_, "scale": robust.scale_, "features": NAMES}),
        (
            bounds,
            {
                "type": "min_max",
                "data_min": bounds.data_min_.tolist(),
                "data_max": bounds.data_max_.tolist(),
                "feature_range": [-1, 1],
            },
        ),
    ):
        one, other = read_scaler(scaler, "a"), read_scaler(value, "b")
        np.testing.assert_allclose(one.factor, other.factor, rtol=1e-12)
        np.testing.assert_allclose(one.shift, other.shift, rtol=1e-9, atol=1e-9)
        assert other.names == tuple(value.get("features", ()))


def test_a_model_behind_a_scaler_takes_the_users_units(tmp_path: Path) -> None:
    rnn, head = nn.GRU(3, 8), nn.Linear(8, 2)
    targets = np.random.default_rng(1).normal(50.0, 9.0, (100, 2))
    into, back = RobustScaler().fit(FRAME), MinMaxScaler().fit(targets)
    imported = import_torch([rnn, head], tmp_path / "m", normalization=into, output=back, **QUICK)
    assert imported.parity.relative < 1e-5
    assert imported.bundle.spec.feature_names == tuple(NAMES)
    with torch.no_grad():
        scaled = torch.tensor(into.transform(FRAME[:40]), dtype=torch.float32)
        expected = back.inverse_transform(head(rnn(scaled[:, None])[0])[:, 0].numpy())
    served = offline(tmp_path / "m", TABLE[:40].astype(np.float32))["prediction"]
    largest = float(np.abs(expected).max())  # the scale of float32's rounding: a single value may be close to 0
    np.testing.assert_allclose(served, expected, rtol=0, atol=1e-5 * largest)


def test_a_model_whose_output_is_as_small_as_its_input_behind_a_scaler(tmp_path: Path) -> None:
    """Without biases (Keras starts with zeros), nothing hides float32's rounding of raw inputs far from zero."""
    torch.manual_seed(0)
    layers = [nn.GRU(3, 8, bias=False), nn.Linear(8, 2, bias=False)]
    far = StandardScaler().fit(np.random.default_rng(0).normal(310.0, 5.0, (200, 3)))
    imported = import_torch(layers, tmp_path / "m", normalization=far, **QUICK)
    assert imported.parity.relative < 1e-5


def moving() -> ColumnTransformer:
    parts = [("b", StandardScaler(), ["load"]), ("a", MinMaxScaler(), ["flow", "heat"])]
    return ColumnTransformer(parts, verbose_feature_names_out=False)


@pytest.mark.parametrize(
    "scaler",
    [
        make_pipeline(StandardScaler(), moving()),
        make_pipeline(moving(), RobustScaler()),
        make_pipeline(moving(), MinMaxScaler(), moving()),
        ColumnTransformer([("moved", moving(), ["flow", "heat", "load"])]),
    ],
    ids=["a scaler before", "a scaler behind", "twice", "nested"],
)
def test_columns_that_are_moved_within_another_keep_their_numbers(scaler: Any) -> None:
    scaler.set_output(transform="pandas").fit(FRAME)
    fitted = read_scaler(scaler, "normalization")
    moved = FRAME[list(fitted.names)].to_numpy()
    assert fitted.names == ("load", "flow", "heat")
    np.testing.assert_allclose(moved * fitted.factor + fitted.shift, scaler.transform(FRAME), rtol=1e-9, atol=1e-9)


def test_columns_that_are_moved_keep_their_names() -> None:
    scaler = ColumnTransformer([("b", StandardScaler(), ["load"]), ("a", MinMaxScaler(), ["flow", "heat"])])
    fitted = read_scaler(scaler.fit(FRAME), "normalization")
    assert fitted.names == ("load", "flow", "heat")
    moved = FRAME[list(fitted.names)].to_numpy()
    np.testing.assert_allclose(moved * fitted.factor + fitted.shift, scaler.transform(FRAME), rtol=1e-9, atol=1e-9)
    assert checked(scaler, None, (), fitted.names).feature_names == fitted.names
    with pytest.raises(ImportRefused, match=r"feature_names: got .*'flow', 'heat', 'load'.*expected those that the"):
        checked(scaler, None, (), FRAME)


def clipping(scaler: Any) -> Any:
    """Sets an argument that older versions of scikit-learn do not have."""
    scaler.clip = True
    return scaler


@pytest.mark.parametrize(
    ("scaler", "words"),
    [
        (StandardScaler(), r"normalization \(StandardScaler\): is not fitted: it has no n_features_in_"),
        (MinMaxScaler(clip=True).fit(TABLE), "clip: got True, expected False"),
        (clipping(MaxAbsScaler().fit(TABLE)), r"normalization \(MaxAbsScaler\): clip: got True, expected False"),
        (
            PowerTransformer().fit(TABLE),
            r"\(PowerTransformer\): is not linear, .* compute it in the module, .*Recipes: a power transform",
        ),
        (
            make_pipeline(StandardScaler(), QuantileTransformer(n_quantiles=9)).fit(TABLE),
            r"\(QuantileTransformer\): is not linear, but a bundle",
        ),
        (make_pipeline(StandardScaler(), PowerTransformer()).fit(TABLE), r"Pipeline\): powertransformer \(Power"),
        (Pipeline([("none", "passthrough")]), "has no step"),
        (ColumnTransformer([("a", OneHotEncoder(), [0])]).fit(TABLE), r"a \(OneHotEncoder\): cannot be written"),
        (
            ColumnTransformer([("a", MinMaxScaler(), [2, 0])]).fit(TABLE),
            r"the order \[2, 0\], without names",
        ),
        (
            ColumnTransformer([("a", MinMaxScaler(), [0]), ("b", MaxAbsScaler(), [0, 1])]).fit(TABLE),
            r"the columns \[0, 0, 1\], some of them twice, expected each once",
        ),
        ({"type": "log"}, "type: got 'log', expected one of standard, min_max, robust"),
        (
            {"type": "standard", "mean": [0.0, 1.0], "scale": [1.0, 1.0, 2.0]},
            r"mean, scale: got shapes \[2\] and \[3\], expected one number for each feature in both",
        ),
        ({"type": "standard", "mean": [1.0]}, "scale: missing or unknown, expected mean, scale for standard"),
        ({"type": "standard", "mean": [1.0], "scale": [1.0], "with": 1}, "with: missing or unknown"),
        ({"type": "standard", "mean": [1.0, 2.0], "scale": [1.0]}, "one for each feature"),
        ({"type": "standard", "mean": [1.0], "scale": [0.0]}, "scales that are not 0"),
        ({"type": "standard", "mean": ["x"], "scale": [1.0]}, r"mean: got \['x'\], expected numbers"),
        (
            {"type": "min_max", "data_min": [0.0], "data_max": [1.0], "feature_range": [1, 0]},
            r"feature_range: got \[1, 0\], expected two numbers",
        ),
        ({"type": "standard", "mean": [1.0], "scale": [1.0], "features": [3]}, "features: got .*expected strings"),
        (3, "normalization: got int, expected Normalization"),
    ],
)
def test_what_is_no_straight_line_is_refused(scaler: Any, words: str) -> None:
    with pytest.raises(ImportRefused, match=words):
        checked(scaler, None, ())


def test_names_are_those_of_the_features(tmp_path: Path) -> None:
    for names, words in (
        (["a", "b"], "feature_names: got .*expected 3 distinct strings"),
        (["a", "b", "a"], "feature_names: got .*expected 3 distinct strings"),
        (["a", 2, "c"], "feature_names: got .*expected a list of strings"),
        ("abc", "feature_names: got abc, expected a list of strings"),
    ):
        with pytest.raises(StartError, match=words):
            import_torch(nn.GRU(3, 8), tmp_path / "m", feature_names=names, **QUICK)
    imported = import_torch(nn.GRU(3, 8), tmp_path / "m", feature_names=FRAME, **QUICK)
    assert imported.bundle.spec.feature_names == tuple(NAMES)
    assert json.loads((tmp_path / "m" / "config.json").read_text())["feature_names"] == NAMES
    for sequence in (FRAME.columns, np.array(NAMES), tuple(NAMES)):
        assert checked(None, None, (), sequence).feature_names == tuple(NAMES)
    with pytest.raises(ImportRefused, match="feature_names: got 5, expected a list of strings"):
        checked(None, None, (), np.array(5))


def test_a_scaler_of_more_targets_than_are_predicted(tmp_path: Path) -> None:
    for units, words in ((1, "got 2 values, expected one: the model predicts one"), (3, "one for each of 3 predicted")):
        layers = [nn.GRU(3, 8), nn.Linear(8, units)]
        with pytest.raises(ImportRefused, match=rf"output\[0\]: .*{words}"):
            import_torch(layers, tmp_path / "m", output=MinMaxScaler().fit(TABLE[:, :2]), **QUICK)


def test_the_command_takes_dicts(tmp_path: Path) -> None:
    save_file(nn.GRU(3, 8).state_dict(), tmp_path / "w.safetensors")
    numbers = {"type": "standard", "mean": [1, 2, 3], "scale": [4, 5, 6], "features": NAMES}
    back = {"type": "min_max", "data_min": [0] * 8, "data_max": [2] * 8}
    (tmp_path / "p.json").write_text(json.dumps({"normalization": numbers, "output": back}))
    run_import(
        ["torch", str(tmp_path / "w.safetensors"), str(tmp_path / "m"), "--processing", str(tmp_path / "p.json")]
    )
    config: Any = read_bundle(tmp_path / "m").config
    assert config.input.normalization == Normalization((1.0, 2.0, 3.0), (4.0, 5.0, 6.0))
    assert [(step.op, step.value) for step in config.output] == [("scale", (2.0,) * 8), ("offset", (0.0,) * 8)]
    assert config.feature_names == tuple(NAMES)
    with pytest.raises(ImportRefused, match="expected those that the scaler was fitted on"):
        parse_processing({"normalization": numbers, "feature_names": ["a", "b", "c"]}, "p.json")


@pytest.mark.parametrize("standardize", [True, False])
@pytest.mark.parametrize("method", ["yeo-johnson", "box-cox"])
def test_the_recipe_computes_what_a_power_transformer_does(method: str, standardize: bool) -> None:
    draw = np.random.default_rng(9)
    table = np.column_stack(
        [np.exp(draw.standard_normal(200)), draw.gamma(2.0, 3.0, 200), np.exp(draw.normal(0, 2, 200))]
    )
    table = table if method == "box-cox" else table * [1.0, -1.0, 1.0] - [1.0, 0.0, 0.0]
    fitted = PowerTransformer(method=method, standardize=standardize).fit(table)
    fitted.lambdas_[2] = 0.0  # the logarithm
    expected = fitted.transform(table)
    came = Power(fitted)(torch.tensor(table, dtype=torch.float32)).numpy()
    assert np.abs(came - expected).max() <= 2e-5 * np.abs(expected).max()
    assert np.abs(expected - table).max() > 0.1 * np.abs(table).max()
