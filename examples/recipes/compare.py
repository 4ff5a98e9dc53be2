"""What every recipe does with its model: imports and serves it, streams through it, and compares the outputs."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cellkeeper import Client
from cellkeeper_service.converters import Imported
from numpy.typing import NDArray

from examples.serving import served

Array = NDArray[Any]
TOLERANCE = 1e-5  # of the largest output


@dataclass(frozen=True)
class Recipe:
    """A model and its outputs for one sequence.

    into: writes the bundle, whose name is the recipe's. samples: one for each time step, as a session takes them.
    expected: [T, ...], the model's own outputs for the whole sequence. exact: the bits must be the same.
    """

    name: str
    into: Callable[[Path], Imported]
    samples: Sequence[Any]
    expected: Array
    exact: bool = False


def difference(client: Client, recipe: Recipe) -> float:
    """Returns the largest difference between a session's and the model's outputs, relative to the largest output."""
    with client.session(f"recipe-{recipe.name}", model=recipe.name) as session:
        came = np.stack(list(session.stream(recipe.samples)))
    return float(np.abs(came - recipe.expected).max() / np.abs(recipe.expected).max())


def allowed(recipe: Recipe) -> float:
    return 0.0 if recipe.exact else TOLERANCE


def main(recipe: Recipe) -> None:
    """Runs the recipe. Exits with status 1 if the outputs differ."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="cellkeeper-recipe-") as name:
        bundle = Path(name) / recipe.name
        recipe.into(bundle)
        with served(bundle) as (client, _, _):
            gap = difference(client, recipe)
    verdict = "the same bits" if gap == 0 else f"largest difference {gap:.1e} of the largest output"
    print(f"{recipe.name}: {len(recipe.samples)} time steps through gRPC against the model itself: {verdict}")
    sys.exit(gap > allowed(recipe))
