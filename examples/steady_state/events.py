"""Streams in which little happens: now and then a symbol is shown once, and there is always a little noise."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

SYMBOLS = 8
NEWS = 0.15  # of the time steps show a symbol
NOISE = 0.1
NONE = -1  # no symbol yet


class Streams(NamedTuple):
    """Streams of symbols.

    inputs: [T, B, SYMBOLS]. news: bool [T, B]. latest, before: the last symbol shown and the one before it, or NONE:
    int64 [T, B]. again: the latest symbol once more, with other noise, [T, B, SYMBOLS].
    """

    inputs: Tensor
    news: Tensor
    latest: Tensor
    before: Tensor
    again: Tensor


def draw_streams(generator: torch.Generator, steps: int, streams: int) -> Streams:
    shown = torch.randint(SYMBOLS, (steps, streams), generator=generator)
    news = torch.rand(steps, streams, generator=generator) < NEWS
    noise = NOISE * torch.randn(2, steps, streams, SYMBOLS, generator=generator)
    inputs = torch.nn.functional.one_hot(shown, SYMBOLS) * news[..., None] + noise[0]
    latest, before = torch.full((2, steps, streams), NONE)
    now, past = torch.full((2, streams), NONE)
    for t in range(steps):
        past = torch.where(news[t], now, past)
        now = torch.where(news[t], shown[t], now)
        latest[t], before[t] = now, past
    again = torch.nn.functional.one_hot(latest.clamp(min=0), SYMBOLS) * (latest != NONE)[..., None] + noise[1]
    return Streams(inputs, news, latest, before, again)
