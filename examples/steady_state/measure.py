"""Examines the state: its norm, its rank, when it moves, and what can be read from it."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from .cell import SteadyCell
from .events import NONE, SYMBOLS, Streams, draw_streams

READING_NOISE = 0.01  # added to a state before it is read: smaller differences count as no information
RIDGE = 1e-3
SETTLED_STEPS = 10  # before this, few streams have shown two symbols
STEPS, STREAMS = 40, 400


class Probe(NamedTuple):
    """A linear probe, whose scores of the symbols are state @ weight + bias."""

    weight: Tensor
    bias: Tensor


def measure(cell: SteadyCell) -> dict[str, float]:
    streams = draw_streams(torch.Generator().manual_seed(99), STEPS, 2 * STREAMS)
    with torch.no_grad():
        states = cell(streams.inputs)
    settled = states[SETTLED_STEPS:]
    norms = states[:-1].norm(dim=2)
    moved = (states[1:] - states[:-1]).norm(dim=2)[SETTLED_STEPS:]
    news = streams.news[1:][SETTLED_STEPS:]
    there = norms[SETTLED_STEPS:].mean().clamp(min=1e-12)
    return {
        "norm": float(settled.norm(dim=2).mean()),
        "weights": float(cell.inward.detach().norm()),
        "rank": effective_rank(settled.flatten(0, 1)),
        "moved by news": float(moved[news].mean() / there),
        "moved by nothing": float(moved[~news].mean() / there),
        "latest": accuracy(states, streams.latest),
        "before": accuracy(states, streams.before),
    }


def effective_rank(states: Tensor) -> float:
    """Returns exp(entropy) of the principal directions' shares in the variance; 0 for states that never vary."""
    shares = torch.linalg.eigvalsh(torch.cov(states.double().T)).clamp(min=0)
    if float(shares.sum()) < READING_NOISE**2:
        return 0.0
    shares = shares / shares.sum()
    return float(torch.exp(-(shares * torch.log(shares.clamp(min=1e-30))).sum()))


def fit(states: Tensor, wanted: Tensor) -> Probe:
    """Fits a linear probe by least squares. states: [N, STATE_SIZE]; wanted: the symbol of each, [N]."""
    noisy = states + READING_NOISE * torch.randn(states.shape, generator=torch.Generator().manual_seed(7))
    known = wanted != NONE
    x = torch.cat([noisy[known], torch.ones(int(known.sum()), 1)], dim=1).double()
    y = torch.nn.functional.one_hot(wanted[known], SYMBOLS).double()
    normal = x.T @ x / len(x) + RIDGE * READING_NOISE * torch.eye(x.shape[1], dtype=torch.double)
    solution = torch.linalg.solve(normal, x.T @ y / len(x)).float()
    return Probe(solution[:-1], solution[-1])


def accuracy(states: Tensor, wanted: Tensor) -> float:
    """Returns the accuracy of a probe fitted to half of the streams, on the other half.

    states: [T, B, STATE_SIZE]; wanted: [T, B].
    """
    settled, symbols = states[SETTLED_STEPS:], wanted[SETTLED_STEPS:]
    probe = fit(settled[:, :STREAMS].flatten(0, 1), symbols[:, :STREAMS].flatten())
    noise = READING_NOISE * torch.randn(settled[:, STREAMS:].shape, generator=torch.Generator().manual_seed(8))
    read = ((settled[:, STREAMS:] + noise) @ probe.weight + probe.bias).argmax(dim=2)
    known = symbols[:, STREAMS:] != NONE
    return float((read == symbols[:, STREAMS:])[known].double().mean())


def readout(cell: SteadyCell) -> Probe:
    """Returns the probe for the latest symbol that goes into the bundle."""
    streams: Streams = draw_streams(torch.Generator().manual_seed(98), STEPS, STREAMS)
    with torch.no_grad():
        states: Any = cell(streams.inputs)
    return fit(states[SETTLED_STEPS:].flatten(0, 1), streams.latest[SETTLED_STEPS:].flatten())
