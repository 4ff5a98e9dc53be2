"""The finding of examples/steady_state, in the committed results and as served from the committed bundles."""

from __future__ import annotations

from examples.report import read_results
from examples.steady_state import FOLDER
from examples.steady_state.objectives import INFORMATION, NAIVE, NORM, VARIANCE
from examples.steady_state.serving import CHANGE, serve, share_below
from examples.steady_state.serving import NORM as NORM_METRIC
from examples.steady_state.training import Job, train

RESULTS = read_results(FOLDER)
CHANCE = 1 / 8


def test_every_seed_has_the_finding() -> None:
    found = RESULTS["objectives"]
    for naive, norm, variance, information in zip(
        found[NAIVE], found[NORM], found[VARIANCE], found[INFORMATION], strict=True
    ):
        assert naive["norm"] < 0.2
        assert naive["latest"] < CHANCE + 0.1
        assert norm["norm"] > 0.5
        assert norm["latest"] < information["latest"] - 0.2
        assert information["latest"] > 0.6
        assert variance["rank"] > naive["rank"]
        assert information["moved by news"] > 2 * information["moved by nothing"]


def test_the_objective_alone_makes_the_state_vanish() -> None:
    start, later = (train(Job(NAIVE, 1, updates)) for updates in (1, 60))
    assert later.inward.norm() < 0.9 * start.inward.norm()


def test_the_metrics_show_which_one_collapsed() -> None:
    served = serve({name: FOLDER / f"bundle_{name}" for name in ("collapsed", "steady")}, sessions=4)
    assert served["steady"]["latest"] > 0.6
    assert served["collapsed"]["latest"] < 0.35
    assert share_below(served["collapsed"][NORM_METRIC], 0.1) > 0.9
    assert share_below(served["steady"][NORM_METRIC], 0.1) < 0.1
    assert share_below(served["steady"][CHANGE], 1.0) > 0.5
