"""What is compared: the target's scale, the head, the loss, and a two-part model."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from .series import JUMP


class Scale(NamedTuple):
    """Converts between the user's units and those that the network is trained on."""

    name: str
    there: Callable[[Tensor], Tensor]
    back: Callable[[Tensor], Tensor]


class Variant(NamedTuple):
    scale: str
    head: str
    loss: str


HEADS = ("linear", "relu")
LOSSES = ("MSE", "MAE", "Huber")
TWO_PARTS = Variant("two parts", "linear", "two parts")
LARGEST = 100.0  # of the target, known beforehand
MEAN, SPREAD = 2.0, 8.0  # of the target, rounded
SIZE_CENTRE = 4.0  # of log(size of a jump)
JUMP_WEIGHT = 20.0  # of a jump, for learning its probability: rare jumps are found sooner ...
LOG_ODDS_SHIFT = -math.log(JUMP_WEIGHT)  # ... and this corrects the odds afterwards

SCALES = (
    Scale("raw", lambda y: y, lambda z: z),
    Scale("min-max", lambda y: y / LARGEST, lambda z: z * LARGEST),
    Scale("standardised", lambda y: (y - MEAN) / SPREAD, lambda z: z * SPREAD + MEAN),
    Scale("log1p", torch.log1p, lambda z: torch.expm1(z.clamp(max=8))),
    Scale("asinh", torch.asinh, lambda z: torch.sinh(z.clamp(max=8))),
)
VARIANTS = (*(Variant(s.name, head, loss) for s in SCALES for head in HEADS for loss in LOSSES), TWO_PARTS)


def losses(variants: tuple[Variant, ...], outputs: Tensor, target: Tensor) -> Tensor:
    """outputs: [M, T, B, 3]; target in the user's units, [T, B] -> one loss for each variant, [M].

    All but the two-part model use only the first output.
    """
    scaled = {scale.name: scale.there(target) for scale in SCALES}
    return torch.stack([_loss(v, outputs[i], target, scaled) for i, v in enumerate(variants)])


def values(variants: tuple[Variant, ...], outputs: Tensor) -> Tensor:
    """outputs: [M, ..., 3] -> predictions in the user's units [M, ...]."""
    back = {scale.name: scale.back for scale in SCALES}
    parts = [
        likelier(out) if variant == TWO_PARTS else back[variant.scale](head(variant, out[..., 0]))
        for variant, out in zip(variants, outputs, strict=True)
    ]
    return torch.stack(parts)


def head(variant: Variant, output: Tensor) -> Tensor:
    return torch.relu(output) if variant.head == "relu" else output


def likelier(outputs: Tensor, called_from: float = 0.5) -> Tensor:
    """Returns a jump's size if its probability is at least `called_from`, otherwise an ordinary value.

    outputs, [..., 3]: log odds of a jump as trained, log of an ordinary value, log of a jump's size less SIZE_CENTRE.
    """
    probability, ordinary, size = two_parts(outputs)
    return torch.where(probability >= called_from, size, ordinary)


def mean_of_both(outputs: Tensor) -> Tensor:
    """Returns both parts weighted by their probabilities: what a model trained with MSE aims at."""
    probability, ordinary, size = two_parts(outputs)
    return probability * size + (1 - probability) * ordinary


def two_parts(outputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the probability of a jump, the value without one, and the value with one."""
    odds, ordinary, size = outputs.unbind(-1)
    return torch.sigmoid(odds + LOG_ODDS_SHIFT), torch.exp(ordinary), torch.exp(size + SIZE_CENTRE)


def _loss(variant: Variant, output: Tensor, target: Tensor, scaled: dict[str, Tensor]) -> Tensor:
    functional = torch.nn.functional
    if variant == TWO_PARTS:
        jumped = target >= JUMP
        odds, ordinary, size = output.unbind(-1)
        wanted = torch.log(target)
        weight = torch.tensor(JUMP_WEIGHT)
        known = functional.binary_cross_entropy_with_logits(odds, jumped.float(), pos_weight=weight)
        sizes = ((size + SIZE_CENTRE - wanted) ** 2)[jumped].sum() / jumped.sum().clamp(min=1)
        return 3 * known + ((ordinary - wanted) ** 2)[~jumped].mean() + 0.3 * sizes
    predicted, wanted = head(variant, output[..., 0]), scaled[variant.scale]
    if variant.loss == "MSE":
        return functional.mse_loss(predicted, wanted)
    if variant.loss == "MAE":
        return functional.l1_loss(predicted, wanted)
    return functional.huber_loss(predicted, wanted)
