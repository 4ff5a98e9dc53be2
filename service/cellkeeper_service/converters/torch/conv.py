"""Causal convolutions of a traced module: their last inputs become a state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .export import WatchedCall


def causal_convolutions(model: nn.Module) -> list[tuple[str, nn.Conv1d]]:
    """Returns the convolutions of [B, C, T] that may look only backwards, with one output for each time step.

    They have no padding of their own (the forward pads on the left), or are padded by all that they reach back (the
    forward cuts the end off).
    """
    return [
        (name, child)
        for name, child in model.named_modules()
        if isinstance(child, nn.Conv1d)
        and child.stride == (1,)
        and _reach(child)
        and child.padding in ((0,), (_reach(child),))
    ]


def _reach(conv: nn.Conv1d) -> int:
    """Returns how many time steps the convolution reaches back."""
    return (conv.kernel_size[0] - 1) * conv.dilation[0]


def watched_convolution(
    name: str, conv: nn.Conv1d, called: Callable[[WatchedCall], tuple[Tensor, ...] | None], after: list[Any]
) -> Callable[[Tensor, Tensor, Tensor | None], Tensor]:
    """Returns what takes the place of the convolution's CONV_FORWARD (private.py). It gets the previous inputs from
    `called` and appends those for the next step to `after`."""
    reach, padded = _reach(conv), conv.padding != (0,)

    def forward(value: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if value.ndim != 3:
            raise TypeError(f"{name} takes {value.ndim} axes, expected [B, C, T]")
        whole = F.pad(value, (reach, 0)) if padded else value
        past = whole[..., :reach]
        steps = whole.shape[-1] - reach
        begin = called(WatchedCall(name, "Conv1d", steps, (past,), (past,), 0, ("past",)))
        if begin is not None:
            whole = torch.cat([begin[0], whole[..., reach:]], -1)
        after.append((whole[..., steps:],))
        y = F.conv1d(whole, weight, bias, 1, 0, conv.dilation, conv.groups)
        return F.pad(y, (0, reach)) if padded else y  # the forward cuts these off

    return forward
