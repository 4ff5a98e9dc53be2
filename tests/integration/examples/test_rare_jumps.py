"""The finding of examples/rare_jumps, in the committed results and as served from the committed bundle."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from examples.rare_jumps import FOLDER
from examples.rare_jumps.ensemble import Ensemble
from examples.rare_jumps.experiment import TEST
from examples.rare_jumps.measure import THRESHOLDS, carried, figures, judged, ranked
from examples.rare_jumps.series import JUMP, Series, draw_series
from examples.rare_jumps.serving import WINDOWS, answers, from_odds
from examples.rare_jumps.training import WINDOW, train
from examples.rare_jumps.variants import LOSSES, SCALES, TWO_PARTS, Variant
from examples.report import read_results

RESULTS = read_results(FOLDER)
SCALE_NAMES = [scale.name for scale in SCALES]


def runs(scale: str, head: str, loss: str) -> list[dict[str, float]]:
    found: list[dict[str, Any]] = RESULTS["variants"]
    (variant,) = [v for v in found if (v["scale"], v["head"], v["loss"]) == (scale, head, loss)]
    return list(variant["runs"])


def test_every_seed_has_the_finding() -> None:
    parts, mse, log = runs(*TWO_PARTS), runs("standardised", "linear", "MSE"), runs("log1p", "linear", "MSE")
    for scale in SCALE_NAMES:  # the median of a rare event is no event
        assert all(run["recall"] == 0 for run in runs(scale, "linear", "MAE"))
    for i in range(len(parts)):
        assert runs("raw", "linear", "Huber")[i]["recall"] == 0  # a jump is far above Huber's delta ...
        assert runs("min-max", "linear", "Huber")[i]["recall"] > 0.5  # ... and here nothing is
        assert log[i]["ordinary"] < 0.6 * mse[i]["ordinary"]  # MSE in the target's units neglects ordinary values ...
        assert log[i]["jumps"] > 1.4 * mse[i]["jumps"]  # ... and in logarithms, jumps
        assert parts[i]["ordinary"] < 0.6 * mse[i]["ordinary"]  # two parts have the better of both
        assert parts[i]["jumps"] < log[i]["jumps"]
        assert parts[i]["precision"] > mse[i]["precision"]


def test_the_threshold_is_chosen_afterwards() -> None:
    careful, even, eager = (RESULTS["decisions"][f"a jump from {p:.0%} on"] for p in THRESHOLDS)
    for few, some, many in zip(careful, even, eager, strict=True):
        assert few["recall"] < some["recall"] < many["recall"]
        assert few["precision"] > some["precision"] > many["precision"]


def test_a_relu_dies_where_targets_are_near_zero() -> None:
    dead = {
        scale: sum(run["constant"] for loss in LOSSES for run in runs(scale, "relu", loss)) for scale in SCALE_NAMES
    }
    assert dead["min-max"] > 0
    assert dead["standardised"] > 0
    assert dead["log1p"] == dead["asinh"] == 0
    assert not any(
        run["constant"] for variant in RESULTS["variants"] if variant["head"] == "linear" for run in variant["runs"]
    )


def test_training_with_mae_finds_no_jumps_and_with_mse_it_does() -> None:
    variants = (
        Variant("standardised", "linear", "MAE"),
        Variant("standardised", "linear", "MSE"),
        Variant("standardised", "relu", "MAE"),
    )
    model, test = train(variants, 4, carry=False, updates=120), draw_series(*TEST)
    median, mean, dead = judged(variants, carried(model, test), test.target)
    assert median["recall"] == 0
    assert median["ordinary"] < 0.5 * mean["ordinary"]
    assert mean["recall"] > 0.3
    assert dead["constant"]


def test_the_bundle_answers_in_the_units_of_the_target() -> None:
    test = draw_series(*TEST)
    some = Series(test.features[:, :2], test.target[:, :2])
    streams, windows = answers(FOLDER / "bundle", some)
    assert streams.shape == (*some.target.shape, 3)
    assert (streams > 0).all()
    found = figures(torch.from_numpy(from_odds(streams))[WINDOW - 1 :], some.target)
    assert found["recall"] > 0.6
    assert found["precision"] > 0.7
    assert found["ordinary"] < 0.5
    assert windows.shape == (WINDOWS, 3)
    odds = streams[-WINDOWS:, 0, 0]
    assert ((windows[:, 0] >= 1) == (odds >= 1)).mean() > 0.9  # this model has learned not to need the window


def test_of_equal_scores_as_many_count_as_if_drawn() -> None:
    target = np.ones((WINDOW + 9, 1), np.float32)
    target[WINDOW - 1 : WINDOW + 1] = JUMP
    assert ranked(torch.zeros(10, 1), target) == pytest.approx(0.2)
    assert ranked(torch.arange(10.0, 0.0, -1.0)[:, None], target) == 1
    assert ranked(torch.arange(10.0)[:, None], target) == 0


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
