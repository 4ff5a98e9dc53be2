"""The finding of examples/rare_jumps, in the committed results and as served from the committed bundle."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from examples.rare_jumps import FOLDER
from examples.rare_jumps.ensemble import Ensemble
from examples.rare_jumps.experiment import TEST
from examples.rare_jumps.measure import figures
from examples.rare_jumps.series import Series, draw_series
from examples.rare_jumps.serving import answers, from_odds
from examples.rare_jumps.training import WINDOW, train
from examples.rare_jumps.variants import Variant
from examples.report import read_results

RESULTS = read_results(FOLDER)


def runs(scale: str, head: str, loss: str) -> list[dict[str, float]]:
    found: list[dict[str, Any]] = RESULTS["variants"]
    (variant,) = [v for v in found if (v["scale"], v["head"], v["loss"]) == (scale, head, loss)]
    return list(variant["runs"])


def test_every_seed_has_the_finding() -> None:
    for scale in ("raw", "min-max", "standardised", "log1p", "asinh"):  # the median of a rare event is no event
        assert all(run["recall"] < 0.5 for run in runs(scale, "linear", "MAE"))
    assert any(run["constant"] for loss in ("MSE", "MAE", "Huber") for run in runs("min-max", "relu", loss))
    for parts, plain, log in zip(
        runs("two parts", "linear", "two parts"),
        runs("raw", "linear", "MSE"),
        runs("log1p", "linear", "MSE"),
        strict=True,
    ):
        assert parts["recall"] > 0.8
        assert parts["ordinary"] < plain["ordinary"]
        assert parts["jumps"] < log["jumps"]
        assert log["ordinary"] < plain["ordinary"]


def test_the_bundle_answers_in_the_units_of_the_target() -> None:
    test = draw_series(*TEST)
    some = Series(test.features[:, :2], test.target[:, :2])
    came = answers(FOLDER / "bundle", some)
    assert came.shape == (*some.target.shape, 3)
    assert (came > 0).all()
    found = figures(torch.from_numpy(from_odds(came))[WINDOW - 1 :], some.target)
    assert found["recall"] > 0.7
    assert found["precision"] > 0.7
    assert found["ordinary"] < 1.0


def test_models_of_an_ensemble_do_not_feel_each_other() -> None:
    linear, relu = Variant("log1p", "linear", "MSE"), Variant("raw", "relu", "MAE")
    alone = train((linear,), 5, False, updates=3)
    together = train((relu, linear), 5, False, updates=3)
    first, second = dict(alone.named_parameters()), dict(together.named_parameters())
    for name, value in first.items():
        np.testing.assert_allclose(value[0].detach(), second[name][1].detach(), atol=1e-6)


def test_the_ensemble_is_an_lstm() -> None:
    torch.manual_seed(0)
    model = Ensemble(2)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    tensors = model.bundle_tensors(1)
    lstm = torch.nn.LSTM(10, 16)
    lstm.load_state_dict({name[4:]: value for name, value in tensors.items() if name.startswith("rnn.")})
    x = torch.randn(30, 5, 10)
    with torch.no_grad():
        expected = lstm(x)[0] @ tensors["head.0.weight"].T + tensors["head.0.bias"]
        torch.testing.assert_close(model(x)[0][1], expected)
