"""Every recipe imports its model, and a session gives what the model gives for the whole sequence."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from examples.recipes.compare import Recipe, allowed, difference
from examples.serving import served

ROOT = Path(__file__).parents[3]
RECIPES = ROOT / "examples" / "recipes"
BESIDE = {"__init__", "compare", "exporting"}
FAST = ("policy", "min_gru", "state_space")
SLOW = ("residual_lstm", "keyword_spotter", "keras_two_inputs", "enhancer", "power_transform")  # seconds each
pytestmark = [pytest.mark.timeout(300), pytest.mark.filterwarnings("ignore")]  # the exporters' own


def recipe(name: str) -> Recipe:
    made: Recipe = importlib.import_module(f"examples.recipes.{name}").recipe()
    return made


@pytest.mark.parametrize("names", [FAST, pytest.param(SLOW, marks=pytest.mark.fire)], ids=["fast", "slow"])
def test_recipes_stream_what_their_models_compute(names: tuple[str, ...], tmp_path: Path) -> None:
    recipes = [recipe(name) for name in names]
    for one in recipes:
        one.into(tmp_path / one.name)
    with served(*(tmp_path / name for name in names)) as (client, _, _):
        for one in recipes:
            assert len({row.tobytes() for row in one.expected}) == len(one.samples), one.name
            assert difference(client, one) <= allowed(one), one.name


def test_every_recipe_is_tried_and_told_of() -> None:
    names = {path.stem for path in RECIPES.glob("*.py")} - BESIDE
    assert names == {*FAST, *SLOW}
    page = (ROOT / "docs" / "models.md").read_text()
    assert [name for name in names if f"../examples/recipes/{name}.py" not in page] == []
