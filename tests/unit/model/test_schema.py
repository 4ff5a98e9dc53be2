"""config.json's JSON Schema and the loader agree on every bundle and on every way to spoil one."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cellkeeper_service.errors import StartError
from cellkeeper_service.model.config import ACTIVATIONS, CELLS, OPS, OPS_WITH_VALUE
from cellkeeper_service.model.fields import Fields
from cellkeeper_service.model.parsing import parse_config
from cellkeeper_service.model.schema import CONFIG_SCHEMA, DEFINITIONS
from jsonschema import Draft202012Validator

ROOT = Path(__file__).parents[3]
BUNDLES = sorted(path for folder in ("examples", "tests") for path in (ROOT / folder).rglob("config.json"))
VALIDATOR = Draft202012Validator(CONFIG_SCHEMA)

FEATURES: dict[str, Any] = {
    "format": "cellkeeper-bundle/1",
    "name": "m",
    "input_size": 2,
    "hidden_size": 3,
    "num_layers": 2,
    "bias": True,
    "bidirectional": False,
    "initial_state": "learned",
    "input": {
        "kind": "features",
        "normalization": {"offset": [0.0, 1], "scale": [1.0, 2.5]},
        "missing": {"policy": "hold", "value": 0.5},
    },
    "head": [{"units": 4, "activation": "tanh", "bias": False}, {"units": 2}],
    "output": [{"op": "scale", "value": [1.0, 2.0]}, {"op": "offset", "value": 3.5}, {"op": "expm1"}],
    "feedback": [0, "known"],
    "feature_names": ["flow", "pressure"],
}
TOKENS: dict[str, Any] = {
    "format": "cellkeeper-bundle/1",
    "name": "tokens",
    "cell": "rnn_relu",
    "input_size": 8,
    "hidden_size": 3,
    "input": {"kind": "tokens", "vocabulary": 5, "embedding_size": 8},
    "head": [{"units": 5}],
    "feedback": "argmax",
}
GRAPH: dict[str, Any] = {
    "format": "cellkeeper-bundle/1",
    "name": "graph",
    "cell": "onnx",
    "graph": "model.onnx",
    "layout": "time_first",
    "batch": "one",
    "input": {"kind": "features", "name": "x", "size": 2, "missing": {"policy": "constant", "value": [1.5, 2.0]}},
    "states": [{"name": "h", "input": "h0", "output": "h1", "shape": [1, 3], "batch_axis": 0, "dtype": "int64"}],
    "outputs": [{"name": "prediction", "output": "y", "shape": [2]}],
    "constants": ["rate"],
    "feedback": [0, 1],
    "feature_names": ["flow", "pressure"],
}
IMAGES = GRAPH | {"input": {"kind": "features", "name": "x", "shape": [2, 3]}, "feature_names": [], "feedback": [0] * 6}
GRAPH_TOKENS = GRAPH | {"input": {"kind": "tokens", "name": "ids", "vocabulary": 2}, "feature_names": []}
GRAPH_TOKENS["feedback"] = "argmax"
SEVERAL = {key: value for key, value in GRAPH.items() if key not in ("input", "feature_names")} | {
    "inputs": [
        {"name": "audio", "input": "a", "shape": [2], "dtype": "float32"},
        {"name": "speaker", "shape": [], "dtype": "int64", "vocabulary": 2},
    ],
    "feedback": {"audio": [0, 1], "speaker": "known"},
}
GOOD = {
    **{cell: FEATURES | {"cell": cell} for cell in CELLS},
    "lstm with a projection": FEATURES | {"cell": "lstm", "proj_size": 1, "head": [], "output": [], "feedback": [0, 0]},
    "gru with reset_after": FEATURES | {"cell": "gru", "reset_after": False},
    "tokens": TOKENS,
    "graph": GRAPH,
    "images": IMAGES,
    "graph of tokens": GRAPH_TOKENS,
    "graph of several inputs": SEVERAL,
}
SPOILED: list[Any] = [None, True, 0, -1, 0.5, 10**9, -1e39, "", "x\n", "x" * 201, [], [0], ["x"], {}]
ACROSS_KEYS = (
    "numbers, or none",  # as many as there are features
    "distinct strings of up to 200 printable characters, or []",
    "finite float32 numbers",  # of a given length
    "0, or for an lstm less than hidden_size",
    "numbers of at least 1e-30 in magnitude",
    "the embedding_size",
    "an index below",  # into the prediction
    "with one predicted value for each",
    f"up to {65_536} values",  # over all axes
    "with distinct names",
    "indices below",  # into the prediction
    "an object with each of the inputs",
    "at least one input that takes the prediction",
    'expected "known"',  # for integers
)
"""The loader's messages for rules across several values, which the schema leaves to the loader."""


@pytest.mark.parametrize("path", BUNDLES, ids=lambda path: path.parent.name)
def test_every_bundle_of_the_repository_is_valid(path: Path) -> None:
    VALIDATOR.validate(json.loads(path.read_text()))


@pytest.mark.parametrize("name", GOOD)
def test_both_accept_each_kind_of_model(name: str) -> None:
    parse_config(GOOD[name])
    VALIDATOR.validate(GOOD[name])


@pytest.mark.parametrize("name", [name for name in GOOD if name == "lstm" or name not in CELLS])
def test_both_refuse_the_same(name: str) -> None:
    """Each key left out, each value replaced by each of SPOILED, and one more key in each object."""
    refused, disagreements = 0, []
    for change, config in spoiled(GOOD[name]):
        said, valid = loaders_error(config), VALIDATOR.is_valid(config)
        refused += bool(said)
        if valid == bool(said) and not (valid and any(text in said for text in ACROSS_KEYS)):
            disagreements.append((change, said or "the loader accepts it"))
    assert refused > 100
    assert disagreements == []


def test_the_schema_has_every_key_that_the_loader_asks_for_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: set[str] = set()

    def noted(call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(fields: Fields, key: str, *rest: Any) -> Any:
            asked.add(key)
            return call(fields, key, *rest)

        return wrapper

    for name in ("any", "has"):
        monkeypatch.setattr(Fields, name, noted(getattr(Fields, name)))
    for config in GOOD.values():
        parse_config(config)
    assert asked == {key for one in DEFINITIONS.values() for key in one["properties"]}


@pytest.mark.parametrize("op", OPS)
def test_a_transform_has_a_value_where_its_op_takes_one(op: str) -> None:
    for step in ({"op": op}, {"op": op, "value": 1.0}):
        config = FEATURES | {"cell": "lstm", "output": [step]}
        assert (
            VALIDATOR.is_valid(config) == (not loaders_error(config)) == (("value" in step) == (op in OPS_WITH_VALUE))
        )


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation_is_valid(activation: str) -> None:
    VALIDATOR.validate(FEATURES | {"cell": "lstm", "head": [{"units": 2, "activation": activation}]})


def test_a_graph_without_a_batch_has_no_batch_first_layout() -> None:
    for layout in ("step", "time_first", "batch_first"):
        config = GRAPH | {"batch": "none", "layout": layout}
        assert VALIDATOR.is_valid(config) == (not loaders_error(config)) == (layout != "batch_first")


@pytest.mark.parametrize("shape", [[], [3], [0, 3], [70_000, 1]])
def test_a_shape_has_two_axes_or_more(shape: list[int]) -> None:
    config = IMAGES | {"input": {"kind": "features", "name": "x", "shape": shape, "size": 3}, "feedback": [0] * 3}
    assert "shape" in loaders_error(config)
    assert not VALIDATOR.is_valid(config)


def test_the_schema_is_one() -> None:
    Draft202012Validator.check_schema(CONFIG_SCHEMA)


def loaders_error(config: Any) -> str:
    """Returns the loader's error; empty if it accepts the config."""
    try:
        parse_config(config)
    except StartError as error:
        return str(error)
    return ""


def spoiled(config: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yields copies of the config with one change each, and a description of the change."""
    for path in places(config):
        for value in SPOILED:
            changed = copy.deepcopy(config)
            parent = at(changed, path[:-1])
            parent[path[-1]] = value
            yield f"{path} = {value!r}", changed
        changed = copy.deepcopy(config)
        del at(changed, path[:-1])[path[-1]]
        yield f"without {path}", changed
        if isinstance(at(config, path), dict):
            changed = copy.deepcopy(config)
            at(changed, path)["unheard_of"] = 1
            yield f"{path} with a key more", changed
    yield "a key more", config | {"unheard_of": 1}


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yields the paths of all values inside, with only the first item of each list."""
    if path:
        yield path
    for key in value if isinstance(value, dict) else range(min(1, len(value))) if isinstance(value, list) else ():
        yield from places(value[key], (*path, key))


def at(value: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        value = value[key]
    return value
