"""How far off predictions are, on ordinary values and on jumps, and which jumps were predicted."""

from __future__ import annotations

import torch
from torch import Tensor

from .ensemble import Ensemble
from .series import JUMP, Floats, Series
from .training import WINDOW
from .variants import TWO_PARTS, Variant, likelier, mean_of_both, values

CALLED = JUMP / 2  # a prediction of at least this much announces a jump
THRESHOLDS = (0.5, 0.3, 0.2)  # probabilities from which the two-part model may announce a jump

Figures = dict[str, float]


def windowed(model: Ensemble, series: Series) -> Tensor:
    """Predicts each value from the WINDOW steps up to it alone: outputs [M, T - WINDOW + 1, B, OUTPUTS]."""
    features = torch.from_numpy(series.features)
    starts = range(len(features) - WINDOW + 1)
    with torch.no_grad():
        return torch.stack([model(features[start : start + WINDOW])[0][:, -1] for start in starts], dim=1)


def carried(model: Ensemble, series: Series) -> Tensor:
    """Predicts the same values, with the state carried from the first step on."""
    with torch.no_grad():
        outputs: Tensor = model(torch.from_numpy(series.features))[0]
    return outputs[:, WINDOW - 1 :]


def judged(variants: tuple[Variant, ...], outputs: Tensor, target: Floats) -> list[Figures]:
    """Returns the figures of each variant. outputs: [M, T - WINDOW + 1, B, OUTPUTS]."""
    predictions = values(variants, outputs)
    scores = [out[..., 0] if v == TWO_PARTS else p for v, out, p in zip(variants, outputs, predictions, strict=True)]
    return [
        {**figures(predicted, target), "ranked": ranked(score, target)}
        for predicted, score in zip(predictions, scores, strict=True)
    ]


def decided(outputs: Tensor, target: Floats) -> dict[str, Figures]:
    """Returns figures of the two-part model, [T - WINDOW + 1, B, OUTPUTS], for each way to combine its parts."""
    found = {f"a jump from {p:.0%} on": figures(likelier(outputs, p), target) for p in THRESHOLDS}
    return {**found, "the mean of both": figures(mean_of_both(outputs), target)}


def figures(predicted: Tensor, target: Floats) -> Figures:
    """Returns the figures of one model's predictions. predicted: [T - WINDOW + 1, B]; target: [T, B]."""
    wanted = torch.from_numpy(target[WINDOW - 1 :])
    jumped, called = wanted >= JUMP, predicted >= CALLED
    error = (predicted - wanted).abs().double()
    hits = int((jumped & called).sum())
    return {
        "ordinary": float(error[~jumped].mean()),
        "jumps": float(error[jumped].mean()),
        "recall": hits / int(jumped.sum()),
        "precision": hits / max(1, int(called.sum())),
        "constant": float(predicted.std() < 1e-6),
    }


def ranked(score: Tensor, target: Floats) -> float:
    """Returns the share of jumps among the N highest scores, where N is the number of jumps.

    This needs no threshold. Equal scores count as if drawn at random.
    """
    jumped = torch.from_numpy(target[WINDOW - 1 :]) >= JUMP
    places = int(jumped.sum())
    last = score.flatten().topk(places).values[-1]
    above, tied = score > last, score == last
    drawn = (places - int(above.sum())) / int(tied.sum())
    return (int((above & jumped).sum()) + drawn * int((tied & jumped).sum())) / places
