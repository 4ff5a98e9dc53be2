"""Ten features and one positive target: a machine whose load builds up and is suddenly released.

Load accumulates at every step and leaks slowly. Once there is enough of it, a shock releases it within a few steps: the
target, mostly between 0.3 and 4, jumps to 20 to 100, and the load is gone. One feature measures the load, with so much
noise that a single time step says little about it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

FEATURES = 10
LOAD, SHOCK, LEVEL, SIZE, GAUGE = range(5)  # the features that matter; the other five are noise
KEPT = 0.985  # of the load, from step to step
READY = 22.0  # the load from which a shock releases it
GAUGE_NOISE = 16.0  # of the load's gauge at each time step, in units of load
DELAY_STEPS = 3  # from the shock to the jump
JUMP = 20.0  # values from here on are jumps


class Series(NamedTuple):
    """Independent streams side by side. features: [T, B, 10]; target: [T, B]."""

    features: Floats
    target: Floats


def draw_series(seed: int, steps: int, streams: int) -> Series:
    draw = np.random.default_rng(seed)
    features = np.empty((steps, streams, FEATURES), np.float32)
    target = np.empty((steps, streams), np.float32)
    level, load = np.zeros((2, streams))
    load += draw.uniform(0, READY, streams)
    due = np.full(streams, -1)  # steps until the jump; -1: none pending
    size = np.zeros(streams)
    for t in range(steps):
        noise = draw.standard_normal((streams, FEATURES))
        level = 0.9 * level + 0.4 * noise[:, LEVEL]
        noise[:, LEVEL] = level
        noise[:, LOAD] = np.maximum(0.0, 0.6 + 0.6 * noise[:, LOAD])
        noise[:, GAUGE] += (load - READY) / GAUGE_NOISE
        features[t] = noise
        load = KEPT * load + noise[:, LOAD]
        fired = (noise[:, SHOCK] > 1.5) & (load > READY) & (due < 0)
        due[fired] = DELAY_STEPS
        size[fired] = 20 + 80 / (1 + np.exp(-0.25 * (load - READY - 6) - 1.2 * noise[:, SIZE]))[fired]
        load[fired] = 0.0
        target[t] = np.exp(0.5 * level + 0.25 * draw.standard_normal(streams))
        jump = due == 0
        target[t, jump] = np.clip(size[jump] * np.exp(0.05 * draw.standard_normal(jump.sum())), JUMP, 100)
        due[due >= 0] -= 1
    return Series(features, target)
