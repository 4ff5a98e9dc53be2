"""Overload in miniature, with wide bounds for a shared machine.

The measurement is `python -m verification.load.overload`.
"""

from __future__ import annotations

import pytest

from .overload import overload


@pytest.mark.fire
@pytest.mark.parametrize("store", ["sqlite", "memory"])
def test_under_three_times_the_load_work_goes_on_and_the_rest_is_refused(store: str) -> None:
    figures, _ = overload(2.5, store, 64, [])
    assert figures["goodput_ratio"] > 0.25, figures  # without admission control it was 0.03
    assert figures["refused_share"] > 0.2, figures
    assert figures["late_share"] < 0.3, figures  # without admission control it was 0.99
    assert figures["recovery_s"] < 2.0, figures
    assert figures["queue_depth_after"] == 0
    assert figures["other"] == {}


@pytest.mark.fire
@pytest.mark.parametrize("store", ["memory", "redis"])
def test_the_official_client_gets_its_share_done(store: str) -> None:
    figures, _ = overload(2.5, store, 1, [], official=True)
    assert figures["goodput_ratio"] > 0.25, figures
    assert figures["refused_share"] > 0.1, figures
    assert figures["recovery_s"] < 2.0, figures
    assert figures["queue_depth_after"] == 0
    assert figures["other"] == {}


@pytest.mark.fire
@pytest.mark.parametrize("store", ["sqlite", "memory", "redis"])
def test_what_clients_hold_back_costs_the_server_nothing(store: str) -> None:
    figures, _ = overload(2.5, store, 1, [], held_back=True)
    assert figures["goodput_ratio"] > 0.5, figures
    assert figures["refused_by_client_share"] > 0.2, figures
    assert figures["refused_ms_median_p99_max"][0] < 100, figures
    assert figures["late_share"] < 0.1, figures
    assert figures["recovery_s"] < 2.0, figures
    assert figures["queue_depth_after"] == 0
    assert figures["other"] == {}
