"""PyTorch modules and weights become bundles with the same values. What cannot be kept is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cellkeeper_service.converters import fit_normalization, fit_output, import_torch
from cellkeeper_service.converters.drawn import random_sequences
from cellkeeper_service.converters.stack import Dense, Stack
from cellkeeper_service.engine.load import offline
from cellkeeper_service.model.config import GraphConfig, Missing, RecurrentConfig
from safetensors.torch import save_file
from torch import nn

from verification.parity.case import Case
from verification.parity.torch_cases import Forecaster, torch_cases

from .leftovers import refused

QUICK: dict[str, Any] = {"max_batch": 8, "report": str}
CASES = [case for case in torch_cases() if not case.slow]
pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")


@pytest.mark.parametrize("case", CASES, ids=[case.title for case in CASES])
def test_same_values_as_torch(case: Case, tmp_path: Path) -> None:
    imported = case.run(tmp_path / "m", 8)
    assert imported.parity.source.startswith("torch ")
    assert imported.parity.relative < 1e-5
    assert imported.parity.exact
    assert imported.bundle.path == tmp_path / "m"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_layers_of_one_kind_become_a_recurrent_bundle_and_others_a_graph(tmp_path: Path) -> None:
    alike = import_torch([nn.LSTM(3, 8, 2), nn.LSTM(8, 8), nn.Linear(8, 1)], tmp_path / "a", **QUICK)
    assert isinstance(alike.bundle.config, RecurrentConfig)
    assert alike.bundle.config.num_layers == 3
    other = import_torch([nn.LSTM(3, 8), nn.LSTM(8, 6), nn.Linear(6, 1)], tmp_path / "b", **QUICK)
    assert isinstance(other.bundle.config, GraphConfig)
    assert [state.name for state in other.bundle.config.states] == ["h_0", "c_0", "h_1", "c_1"]


def test_the_report_has_the_largest_difference(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    imported = import_torch(nn.LSTM(3, 8), tmp_path / "pump", max_batch=8)
    printed = capsys.readouterr().out
    assert printed == f"{imported}\n"
    assert f"largest difference {imported.parity.difference:.2e}" in printed
    assert "model pump, lstm 1x8; takes 3 features, gives 8 values" in printed
    assert "served stream: exact" in printed


def test_outputs_of_nothing_but_rounding_are_no_difference(tmp_path: Path) -> None:
    """onnxruntime's tanh is exact for 1, not for 1e-7; and the first output of a sequence may cancel to zero."""
    import_torch([nn.RNN(3, 8, bias=False), nn.Linear(8, 1, bias=False)], tmp_path / "tiny", **QUICK)
    rnn, head = nn.GRU(3, 8), nn.Linear(8, 1)
    x = random_sequences(Stack(3, (Dense("any", np.eye(3)),)))[0][:1]  # as the import draws them
    with torch.no_grad():
        head.bias.sub_(head(rnn(torch.from_numpy(x)[:, None])[0]).flatten())
    imported = import_torch([rnn, head], tmp_path / "cancelled", **QUICK)
    assert imported.parity.relative < 1e-4


def test_normalised_inputs_and_outputs_in_their_own_units(tmp_path: Path) -> None:
    draw = np.random.default_rng(8)
    data = draw.normal([300.0, -2.0, 0.01], [20.0, 0.5, 0.002], (500, 3))
    targets = draw.lognormal(3.0, 1.0, (500, 2))
    normalization, output = fit_normalization(data), fit_output(targets, log1p=True)
    rnn, head = nn.LSTM(3, 16), nn.Linear(16, 2)
    missing = Missing("hold", 300.0)
    options: dict[str, Any] = {"normalization": normalization, "output": output, "missing": missing}
    imported = import_torch([rnn, head], tmp_path / "m", **options, **QUICK)
    assert imported.parity.relative < 1e-5
    assert isinstance(imported.bundle.config, RecurrentConfig)
    x = data[:40].astype(np.float32)
    scaled = (data[:40] - data.mean(axis=0)) / data.std(axis=0)
    with torch.no_grad():
        hidden, _ = rnn(torch.tensor(scaled, dtype=torch.float32)[:, None])
        y = head(hidden)[:, 0].numpy()
    logs = np.log1p(targets)
    expected = np.expm1(y * logs.std(axis=0) + logs.mean(axis=0))
    np.testing.assert_allclose(offline(tmp_path / "m", x)["prediction"], expected, rtol=2e-4)
    # also around layers that become a graph
    mixed = import_torch([nn.Linear(3, 5), nn.GRU(5, 16), head], tmp_path / "g", **options, **QUICK)
    assert isinstance(mixed.bundle.config, GraphConfig)
    assert mixed.parity.relative < 1e-5


@pytest.mark.parametrize("policy", ["hold", "constant"])
def test_each_feature_has_its_own_value_for_missing_ones(policy: str, tmp_path: Path) -> None:
    """Training means as an array: what a normalization turns into zeros."""
    data = np.random.default_rng(8).normal([300.0, -2.0, 0.01], [20.0, 0.5, 0.002], (500, 3))
    normalization, means = fit_normalization(data), data.mean(axis=0)
    rnn, head = nn.LSTM(3, 16), nn.Linear(16, 2)
    options: dict[str, Any] = {"normalization": normalization, "missing": Missing(policy, means)}
    for layers in ([rnn, head], [nn.Linear(3, 3), rnn, head]):  # the second becomes a graph
        folder = tmp_path / str(len(layers))
        import_torch(layers, folder, **options, **QUICK)
        x = data[:1].astype(np.float32)
        filled, given = np.where([True, False, True], means, x).astype(np.float32), x.copy()
        given[0, [0, 2]] = np.nan
        served = offline(folder, given)["prediction"]
        np.testing.assert_array_equal(served, offline(folder, filled)["prediction"])


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([1.0, 2.0], "value: got 2 numbers, expected one, or one for each of 3 features"),
        (np.ones((1, 3)), "value: got array.*expected a finite number, or one for each feature, in one dimension"),
        ([1.0, np.nan, 2.0], r"value: got \[1.0, nan, 2.0\], expected a finite number, or one for each feature"),
        ("mean", "value: got 'mean', expected a finite number"),
    ],
    ids=["too few", "two dimensions", "not finite", "text"],
)
def test_values_for_missing_ones_that_do_not_fit_are_refused(value: Any, words: str, tmp_path: Path) -> None:
    layers, missing = [nn.LSTM(3, 4), nn.Linear(4, 1)], Missing("constant", value)
    refused(tmp_path, f"^missing: {words}", import_torch, layers, tmp_path / "m", missing=missing)


def test_token_ids_are_never_missing(tmp_path: Path) -> None:
    layers, missing = [nn.Embedding(10, 4), nn.GRU(4, 8)], Missing("hold")
    refused(
        tmp_path,
        "^missing: got hold, expected reject: token ids are never missing",
        import_torch,
        layers,
        tmp_path / "m",
        missing=missing,
    )


def test_a_bidirectional_layer_is_named(tmp_path: Path) -> None:
    model = nn.ModuleDict({"rnn": nn.LSTM(3, 8, bidirectional=True), "head": nn.Linear(16, 1)})
    refused(tmp_path, r"rnn \(LSTM\): bidirectional; the backward", import_torch, model, tmp_path / "m")
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    words = {"layers": "lstm=rnn dense=head"}
    refused(tmp_path, "lstm=rnn: bidirectional", import_torch, tmp_path / "w.safetensors", tmp_path / "m", **words)


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        ([nn.LSTM(3, 8), nn.MultiheadAttention(8, 2)], r"MultiheadAttention\): attends to the whole sequence"),
        ([nn.LSTM(3, 8), nn.BatchNorm1d(8)], r"1 \(BatchNorm1d\): not a layer that a bundle can hold"),
        ([nn.LSTM(3, 8), nn.LayerNorm((5, 8))], r"1 \(LayerNorm\): normalized_shape: got \[5, 8\], expected the"),
        ([nn.LSTM(3, 8), nn.LayerNorm(7)], r"layer_norm=1: offset: got shape \[7\], expected \[8\]"),
        ([nn.LSTM(3, 8), nn.PReLU(8)], r"1 \(PReLU\): num_parameters: got 8, expected 1"),
        ([nn.LSTM(3, 8), nn.LogSoftmax(0)], r"1 \(LogSoftmax\): dim: got 0, expected -1"),
        ([nn.LSTM(3, 8), nn.Linear(9, 1)], r"dense=.*weight: got shape \[1, 9\], expected \[units, 8\]"),
        ([nn.LSTM(3, 8), nn.GRU(7, 8)], r"weight_ih: got shape \[24, 7\], expected \[24, 8\]"),
        ([nn.Linear(3, 8)], "has no recurrent layer"),
        ([nn.LSTM(3, 8), nn.Embedding(5, 8)], "got an embedding, expected it as the first layer"),
        (
            [nn.LSTM(3, 8, proj_size=4), nn.LSTM(4, 8)],
            "got proj_size 4, expected a projection only in LSTMs .*; make one module of the list, and pass example=x",
        ),
        ([], "no recurrent layer"),
        (["lstm"], "got str, expected a torch module"),
    ],
)
def test_layers_that_cannot_be_served(layers: list[Any], words: str, tmp_path: Path) -> None:
    refused(tmp_path, words, import_torch, layers, tmp_path / "m", **QUICK)


def test_weights_that_are_not_finite(tmp_path: Path) -> None:
    rnn = nn.LSTM(3, 8)
    with torch.no_grad():
        rnn.get_parameter("weight_hh_l0")[0, 0] = float("nan")
    refused(tmp_path, "tensor weight_hh_l0: holds NaN or infinity", import_torch, rnn, tmp_path / "m")


def test_a_model_is_left_as_it_was(tmp_path: Path) -> None:
    model = Forecaster().double().train()
    import_torch(model.float(), tmp_path / "m", **QUICK)
    assert model.training
    assert model.rnn.training


def test_a_target_that_is_there(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    refused(tmp_path, "exists; remove it first", import_torch, nn.LSTM(3, 8), tmp_path / "m")
    refused(tmp_path, "name: got ''", import_torch, nn.LSTM(3, 8), tmp_path / "n", name="")


def test_a_difference_that_is_too_large_leaves_nothing(tmp_path: Path) -> None:
    options = {"tolerance": 1e-12, **QUICK}
    refused(tmp_path, "served values differ from torch", import_torch, nn.LSTM(3, 64), tmp_path / "m", **options)
