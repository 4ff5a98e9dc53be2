"""Overload in miniature. The bounds are wide, for a machine that others use too; `python -m tests.load.overload` is the
measurement."""

from __future__ import annotations

import pytest

from .overload import overload


@pytest.mark.fire
def test_under_three_times_the_load_work_goes_on_and_the_rest_is_refused() -> None:
    figures, _ = overload(2.5, "sqlite", 64, [])
    assert figures["goodput_ratio"] > 0.1, figures  # without admission it was 0.03
    assert figures["refused_share"] > 0.2, figures
    assert figures["late_share"] < 0.5, figures  # without admission it was 0.99
    assert figures["recovery_s"] < 2.0, figures
    assert figures["queue_depth_after"] == 0
    assert figures["other"] == {}
