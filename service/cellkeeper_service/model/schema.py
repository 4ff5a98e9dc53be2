"""The keys of config.json, with their types, limits, choices, defaults and meanings, as a JSON Schema.

`parsing` reads a config by it, and it is published for editors and for programs that write bundles. It accepts
everything that `parsing` accepts. Beyond that, it accepts only errors that depend on several values at once (as many
numbers as features) or on kinds of characters.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .config import (
    ACTIVATIONS,
    BATCHES,
    CELLS,
    FORMAT,
    LARGEST,
    LAYOUTS,
    MAX_LAYERS,
    MAX_RANK,
    MAX_SIZE,
    MAX_VOCABULARY,
    OPS,
    OPS_WITH_VALUE,
    POLICIES,
)
from .feedback import GREEDY, SUPPLIED
from .named_inputs import DTYPES, MAX_IDS, MAX_INPUTS, MAX_VALUES

Schema = dict[str, Any]
MAX_NAME = 200  # characters

_END = "(?![\\s\\S])"  # in some dialects, `$` also matches before a line break
_NO_CONTROL = f"^[^\\u0000-\\u001f\\u007f-\\u009f]+{_END}"

_CELL_TEXTS = {
    "lstm": "LSTM layers",
    "gru": "GRU layers",
    "rnn_tanh": "vanilla RNN layers with tanh",
    "rnn_relu": "vanilla RNN layers with ReLU",
}


def _recurrent(cell: str, text: str) -> Schema:
    projected = _integer(0, MAX_SIZE if cell == "lstm" else 0, "width of the projection, below hidden_size; 0: none", 0)
    keys = {
        "input_size": _integer(1, MAX_SIZE, "values that layer 0 takes: features, or the embedding's width"),
        "hidden_size": _integer(1, MAX_SIZE, "width of the cell's state"),
        "num_layers": _integer(1, MAX_LAYERS, "stacked layers", default=1),
        "proj_size": projected,
        "bias": _flag("whether the layers have biases", default=True),
        "initial_state": _choice(("zeros", "learned"), "of a new session", default="zeros"),
        "head": _list("dense", 32, "dense layers after the top layer; without them its output is the prediction"),
        "output": _list("transform", 32, "applied to the head's output, in this order"),
    }
    if cell == "gru":
        keys["reset_after"] = _flag("PyTorch's and Keras' default form of the reset gate", default=True)
    inputs = _one_of("features", "tokens", "what a time step is")
    return _model(text, cell, inputs, keys, ("input_size", "hidden_size"))


def _graph() -> Schema:
    constants = "further inputs of the graph, each of which always gets the tensor `constant.<name>` of the bundle"
    keys = {
        "graph": _text("file name of the ONNX graph in the bundle") | {"pattern": f"^[^./\\\\\\s][^/\\\\\\s]*{_END}"},
        "layout": _choice(LAYOUTS, "of the input and the outputs: [B, ...], [T, B, ...] or [B, T, ...]"),
        "batch": _choice(BATCHES, "sessions in a call: any number, one, or one without a batch axis", default="free"),
        "states": _list("state", 256, "the graph's states") | {"minItems": 1},
        "outputs": _list("output", 64, "what the graph predicts") | {"minItems": 1},
        "constants": _names(constants, 64),
    }
    one = _one_of("graph_features", "graph_tokens", "the graph's input and what a time step is")
    several = "instead of `input`: the inputs of a time step, in the order in which their bytes are logged"
    keys["inputs"] = {
        key: value for key, value in _list("named_input", MAX_INPUTS, several).items() if key != "default"
    }
    keys["inputs"]["minItems"] = 2
    model = _model("a model that is an ONNX graph", "onnx", one, keys, ("graph", "layout", "states", "outputs"))
    model["required"].remove("input")
    without_batch = {"properties": {"batch": {"const": "none"}}, "required": ["batch"]}
    sources = {"anyOf": [{"const": SUPPLIED}, {"type": "array", "items": {"type": "integer", "minimum": 0}}]}
    by_name = {"feedback": {"type": "object", "additionalProperties": sources}, "feature_names": {"maxItems": 0}}
    return model | {
        "oneOf": [{"required": ["input"]}, {"required": ["inputs"]}],
        "allOf": [
            {"if": without_batch, "then": {"properties": {"layout": {"not": {"const": "batch_first"}}}}},
            {
                "if": {"required": ["inputs"]},
                "then": {"properties": by_name},
                "else": {"properties": {"feedback": {"not": {"type": "object"}}}},
            },
        ],
    }


def _named_input() -> Schema:
    vocabulary = _integer(1, MAX_IDS, "of integers, for which it is required: they are 0 to vocabulary - 1")
    axis = {"type": "integer", "minimum": 1, "maximum": MAX_VALUES}
    named = _object(
        "one of several inputs of a graph",
        name=_text("its name for clients"),
        input=_text("its name in the graph; default: `name`"),
        shape=_shape("of one time step") | {"items": axis},
        dtype=_choice(DTYPES, "of the graph's input"),
        vocabulary=vocabulary,
        required=("name", "shape", "dtype"),
    )
    integers = {"properties": {"dtype": {"pattern": "^int"}}}
    takes = {"required": ["vocabulary"]}
    return named | {"if": integers, "then": takes, "else": {"not": takes}}


def _model(text: str, cell: str, inputs: Schema, keys: Schema, required: tuple[str, ...]) -> Schema:
    shared = {
        "format": {"const": FORMAT, "description": "the format's name and version"},
        "name": _text("the name by which clients address the model", 100),
        "cell": {"const": cell, "description": text},
        "bidirectional": {"const": False, "default": False, "description": "a stream has no backward direction"},
        "input": inputs,
    }
    last = {
        "feedback": {
            "description": "how a prediction becomes the next input in a forecast: for each feature an index into the "
            f'prediction or "{SUPPLIED}"; for token ids "{GREEDY}"; of several inputs each by its name',
            "anyOf": [
                {"const": GREEDY},
                {"type": "object"},
                {"type": "array", "items": {"anyOf": [{"type": "integer", "minimum": 0}, {"const": SUPPLIED}]}},
            ],
        },
        "feature_names": _names("one distinct name for each feature, or none", MAX_SIZE),
    }
    return _object(text, **shared, **keys, **last, required=("format", "name", "cell", "input", *required))


def _transform() -> Schema:
    value = _number_or_numbers(f"for {', '.join(OPS_WITH_VALUE)} only: one number, or one for each output unit")
    transform = _object(
        "a step back to the user's units", op=_choice(OPS, "the operation"), value=value, required=("op",)
    )
    takes = {"properties": {"op": {"enum": list(OPS_WITH_VALUE)}}}
    return transform | {"if": takes, "then": {"required": ["value"]}, "else": {"not": {"required": ["value"]}}}


def _object(description: str, *, required: tuple[str, ...], **properties: Schema) -> Schema:
    return {
        "type": "object",
        "description": description,
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


def _one_of(features: str, tokens: str, description: str) -> Schema:
    kinds = {"features": features, "tokens": tokens}
    return {
        "description": description,
        "type": "object",
        "required": ["kind"],
        "properties": {"kind": {"enum": list(kinds)}},
        "allOf": _variants("kind", kinds),
    }


def _variants(key: str, definitions: Mapping[str, str]) -> list[Schema]:
    """Returns what makes an object one of several. definitions: which one it is, by the value of the key."""
    return [
        {"if": {"properties": {key: {"const": value}}}, "then": {"$ref": f"#/$defs/{name}"}}
        for value, name in definitions.items()
    ]


def _reference(name: str, description: str) -> Schema:
    return {"description": description, "$ref": f"#/$defs/{name}"}


def _list(name: str, longest: int, description: str) -> Schema:
    items = {"$ref": f"#/$defs/{name}"}
    return {"description": description, "type": "array", "items": items, "maxItems": longest, "default": []}


def _integer(low: int, high: int, description: str, default: int | None = None) -> Schema:
    return {"description": description, "type": "integer", "minimum": low, "maximum": high, **_default(default)}


def _number(description: str, default: float | None = None) -> Schema:
    limits = {"minimum": -LARGEST, "maximum": LARGEST}
    return {"description": description, "type": "number", **limits, **_default(default)}


def _numbers(description: str) -> Schema:
    return {"description": description, "type": "array", "items": _number("a finite float32 number")}


def _number_or_numbers(description: str, default: float | None = None) -> Schema:
    return {"description": description, "anyOf": [_number(""), _numbers("")], **_default(default)}


def _shape(description: str) -> Schema:
    axis = {"type": "integer", "minimum": 1, "maximum": MAX_SIZE}
    return {"description": description, "type": "array", "items": axis, "maxItems": MAX_RANK}


def _text(description: str, longest: int = MAX_NAME) -> Schema:
    limits = {"minLength": 1, "maxLength": longest, "pattern": _NO_CONTROL}
    return {"description": description, "type": "string", **limits}


def _names(description: str, most: int) -> Schema:
    limits = {"items": _text("a name"), "maxItems": most, "uniqueItems": True, "default": []}
    return {"description": description, "type": "array", **limits}


def _choice(choices: tuple[str, ...], description: str, default: str | None = None) -> Schema:
    return {"description": description, "enum": list(choices), **_default(default)}


def _flag(description: str, default: bool) -> Schema:
    return {"description": description, "type": "boolean", "default": default}


def _default(value: object) -> Schema:
    return {} if value is None else {"default": value}


DEFINITIONS: dict[str, Schema] = {
    **{cell: _recurrent(cell, f"a model of {text}") for cell, text in _CELL_TEXTS.items()},
    "onnx": _graph(),
    "features": _object(
        "a time step of input_size float32 values",
        kind={"const": "features", "description": "float32 values"},
        normalization={
            "description": "of each feature, before the model",
            "default": None,
            "anyOf": [{"$ref": "#/$defs/normalization"}, {"type": "null"}],
        },
        missing=_reference("missing", "what NaN means; refused by default"),
        required=("kind",),
    ),
    "tokens": _object(
        "a time step of one token id",
        kind={"const": "tokens", "description": "token ids"},
        vocabulary=_integer(1, MAX_VOCABULARY, "ids are below this"),
        embedding_size=_integer(1, MAX_SIZE, "width of the embedding: input_size"),
        required=("kind", "vocabulary", "embedding_size"),
    ),
    "graph_features": _object(
        "a time step of float32 values of a graph",
        name=_text("the graph's input"),
        kind={"const": "features", "description": "float32 values"},
        size=_integer(1, MAX_SIZE, "values of a time step of one axis"),
        shape=_shape("of a time step of two axes or more, instead of `size`") | {"minItems": 2},
        missing=_reference("missing", "what NaN means; refused by default"),
        required=("name", "kind"),
    )
    | {"oneOf": [{"required": ["size"]}, {"required": ["shape"]}]},
    "graph_tokens": _object(
        "a time step of one token id of a graph",
        name=_text("the graph's input"),
        kind={"const": "tokens", "description": "token ids"},
        vocabulary=_integer(1, MAX_VOCABULARY, "ids are below this"),
        required=("name", "kind", "vocabulary"),
    ),
    "named_input": _named_input(),
    "normalization": _object(
        "x' = (x - offset) / scale, feature by feature",
        offset=_numbers("one number for each feature"),
        scale=_numbers("one number for each feature, none of them 0"),
        required=("offset", "scale"),
    ),
    "missing": _object(
        "what NaN in an input means",
        policy=_choice(POLICIES, "refuse it, hold the feature's last value, or take `value`"),
        value=_number_or_numbers(
            "`constant`, and `hold` before the first value, take it; in clients' units: one number, or one for "
            "each feature",
            default=0.0,
        ),
        required=("policy",),
    ),
    "dense": _object(
        "a layer of the head: activation(W x + b)",
        units=_integer(1, MAX_SIZE, "width of its output"),
        activation=_choice(ACTIVATIONS, "applied to each value", default="linear"),
        bias=_flag("whether it has a bias", default=True),
        required=("units",),
    ),
    "transform": _transform(),
    "state": _object(
        "a state tensor of a graph",
        name=_text("its name in the session's state") | {"not": {"const": "last_input"}},
        input=_text("the graph's input that takes it"),
        output=_text("the graph's output that gives it"),
        shape=_shape("of one session, without the batch; of the whole tensor if the batch is not free"),
        batch_axis=_integer(0, MAX_RANK, "the axis at which the graph has the batch", default=0),
        dtype=_choice(DTYPES, "of the graph's tensor", default="float32"),
        required=("name", "input", "output", "shape"),
    ),
    "output": _object(
        "an output of a graph",
        name=_text("its name in replies") | {"not": {"pattern": "^state(\\.|$)"}},
        output=_text("the graph's output"),
        shape=_shape("of one time step"),
        required=("name", "output", "shape"),
    ),
}
"""The objects of config.json, each with its keys. Each refuses keys that it does not list."""

CONFIG_SCHEMA: Schema = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "config.json of a Cellkeeper bundle",
    "type": "object",
    "required": ["cell"],
    "properties": {"cell": {"enum": [*CELLS, "onnx"]}},
    "allOf": _variants("cell", {cell: cell for cell in (*CELLS, "onnx")}),
    "$defs": DEFINITIONS,
}
"""The whole schema, draft 2020-12."""


def resolved(schema: Schema) -> Schema:
    """Returns the definition that the schema refers to, or the schema itself."""
    return DEFINITIONS[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
