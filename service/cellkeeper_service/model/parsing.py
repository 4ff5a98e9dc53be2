"""Parses config.json. Anything unknown is refused with the key, what came and what was expected."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod

from .config import (
    ACTIVATIONS,
    BATCHES,
    CELLS,
    FORMAT,
    LAYOUTS,
    MAX_LAYERS,
    MAX_SIZE,
    MAX_VOCABULARY,
    OPS,
    OPS_WITH_VALUE,
    POLICIES,
    Config,
    Dense,
    Features,
    GraphConfig,
    GraphOutput,
    GraphState,
    Missing,
    Normalization,
    RecurrentConfig,
    Tokens,
    Transform,
)
from .feedback import Sources, parse_feedback, parse_named_feedback
from .fields import Fields
from .named_inputs import DTYPES, NamedInputs, parse_named_inputs


def parse_config(value: object, place: str = "config.json") -> Config:
    """Parses the result of json.loads. Raises StartError, which names the key, what came and what was expected."""
    fields = Fields(value, place)
    fields.choice("format", [FORMAT])
    name = fields.text("name", 100)
    if fields.any("bidirectional", "", False) is not False:
        raise fields.refuse(
            "bidirectional", True, "false: the backward direction starts at the end, which a stream has not reached"
        )
    cell = fields.choice("cell", (*CELLS, "onnx"))
    config = _graph(fields, name) if cell == "onnx" else _recurrent(fields, name, cell)
    config = replace(config, feature_names=_feature_names(fields, config.input))
    fields.done()
    return config


def _feature_names(fields: Fields, source: Features | Tokens | NamedInputs) -> tuple[str, ...]:
    names = fields.items("feature_names", MAX_SIZE, ())
    size = source.size if isinstance(source, Features) and not source.shape else 0
    if not _distinct_names(names) or len(names) not in (0, size):
        raise fields.refuse("feature_names", names, f"{size} distinct strings of up to 200 printable characters, or []")
    return tuple(names)


def _distinct_names(items: Sequence[object]) -> bool:
    texts = all(isinstance(item, str) and 1 <= len(item) <= 200 and item.isprintable() for item in items)
    return texts and len(set(items)) == len(items)


def _recurrent(fields: Fields, name: str, cell: str) -> RecurrentConfig:
    input_size = fields.integer("input_size", 1, MAX_SIZE)
    hidden_size = fields.integer("hidden_size", 1, MAX_SIZE)
    proj_size = fields.integer("proj_size", 0, MAX_SIZE, 0)
    if proj_size and (cell != "lstm" or proj_size >= hidden_size):
        raise fields.refuse("proj_size", proj_size, "0, or for an lstm less than hidden_size")
    num_layers = fields.integer("num_layers", 1, MAX_LAYERS, 1)
    bias = fields.flag("bias", True)
    reset_after = fields.flag("reset_after", True) if cell == "gru" else True
    initial_state = fields.choice("initial_state", ("zeros", "learned"), "zeros")
    source = fields.nested("input", lambda inner: _input(inner, input_size))
    if isinstance(source, Tokens) and source.embedding_size != input_size:
        raise fields.refuse("input_size", input_size, f"the embedding_size {source.embedding_size}")
    head = fields.nested_list("head", 32, _dense, ())
    width = head[-1].units if head else proj_size or hidden_size
    output = fields.nested_list("output", 32, lambda inner: parse_transform(inner, width), ())
    return RecurrentConfig(
        name=name,
        cell=cell,
        input_size=input_size,
        hidden_size=hidden_size,
        num_layers=num_layers,
        proj_size=proj_size,
        bias=bias,
        reset_after=reset_after,
        initial_state=initial_state,
        input=source,
        head=head,
        output=output,
        feedback=_feedback(fields, source, (width,)),
    )


def _feedback(
    fields: Fields, source: Features | Tokens | NamedInputs, predicted: tuple[int, ...] | None
) -> Sources | None:
    if isinstance(source, NamedInputs):
        return parse_named_feedback(fields, source.inputs, predicted)
    features, vocabulary = (0, source.vocabulary) if isinstance(source, Tokens) else (source.size, 0)
    return parse_feedback(fields, features, vocabulary, predicted)


def _input(fields: Fields, size: int) -> Features | Tokens:
    if fields.choice("kind", ("features", "tokens")) == "tokens":
        return Tokens(fields.integer("vocabulary", 1, MAX_VOCABULARY), fields.integer("embedding_size", 1, MAX_SIZE))
    normalization = None
    inner = fields.any("normalization", "an object or null", None)
    if inner is not None:
        normalization = parse_normalization(Fields(inner, fields.place("normalization")), size)
    return Features(size, normalization, parse_missing(fields, size))


def parse_normalization(fields: Fields, size: int) -> Normalization:
    """Reads an object with offset and scale, `size` numbers each."""
    normalization = Normalization(fields.numbers("offset", size), fields.numbers("scale", size))
    if any(abs(scale) < 1e-30 for scale in normalization.scale):
        raise fields.refuse("scale", min(normalization.scale, key=abs), "numbers of at least 1e-30 in magnitude")
    fields.done()
    return normalization


def parse_missing(fields: Fields, size: int) -> Missing:
    """Reads the key "missing" of an object; the default is to reject missing values. size: of a time step."""

    def read(inner: Fields) -> Missing:
        return Missing(inner.choice("policy", POLICIES), inner.number_or_numbers("value", size, 0.0))

    return fields.nested("missing", read, {"policy": "reject"})


def _dense(fields: Fields) -> Dense:
    units, activation = fields.integer("units", 1, MAX_SIZE), fields.choice("activation", ACTIVATIONS, "linear")
    return Dense(units, activation, fields.flag("bias", True))


def parse_transform(fields: Fields, width: int) -> Transform:
    """Reads an object with op and, if the op takes one, value: a number, or `width` of them."""
    op = fields.choice("op", OPS)
    value = fields.number_or_numbers("value", width) if op in OPS_WITH_VALUE else None
    fields.done()
    return Transform(op, value)


def _graph(fields: Fields, name: str) -> GraphConfig:
    graph = fields.text("graph", printable=False)
    if not all(c.isalnum() or c in "._-" for c in graph) or graph.startswith("."):
        raise fields.refuse("graph", graph, "the name of a file in the bundle, without a path")
    batch = fields.choice("batch", BATCHES, "free")
    layout = fields.choice("layout", LAYOUTS)
    if batch == "none" and layout == "batch_first":
        raise fields.refuse("layout", layout, "step or time_first, because batch is none")
    input_name, source = (
        ("", parse_named_inputs(fields)) if fields.has("inputs") else fields.nested("input", _graph_input)
    )
    states = fields.nested_list("states", 256, lambda inner: _graph_state(inner, batch))
    outputs = fields.nested_list("outputs", 64, _graph_output)
    names = [state.name for state in states]
    if not states or len(set(names)) != len(names) or "last_input" in names:
        raise fields.refuse("states", names, "at least one, with distinct names other than last_input")
    names = [output.name for output in outputs]
    if not outputs or len(set(names)) != len(names) or any(n == "state" or n.startswith("state.") for n in names):
        raise fields.refuse("outputs", names, "at least one, with distinct names other than state and state.*")
    constants = tuple(fields.items("constants", 64, ()))
    if not _distinct_names(constants):
        raise fields.refuse("constants", constants, "distinct names of graph inputs")
    predicted = next((output.shape for output in outputs if output.name == "prediction"), None)
    feedback = _feedback(fields, source, predicted)
    return GraphConfig(name, graph, layout, input_name, source, states, outputs, constants, feedback, batch=batch)


def _graph_input(fields: Fields) -> tuple[str, Features | Tokens]:
    """Reads the only input of a time step. Returns its name in the graph, and what it takes."""
    name = fields.text("name")
    if fields.choice("kind", ("features", "tokens")) == "tokens":
        return name, Tokens(fields.integer("vocabulary", 1, MAX_VOCABULARY), 0)
    return name, _graph_features(fields)


def _graph_features(fields: Fields) -> Features:
    """Reads the size of a time step, or its shape if it has two axes or more."""
    shape: tuple[int, ...] = ()
    if fields.has("shape"):
        shape = fields.shape("shape", MAX_SIZE)
        if len(shape) < 2 or prod(shape) > MAX_SIZE:
            raise fields.refuse("shape", shape, f"two axes or more with up to {MAX_SIZE} values; size for one axis")
    size = prod(shape) if shape else fields.integer("size", 1, MAX_SIZE)
    return Features(size, None, parse_missing(fields, size), shape)


def _graph_state(fields: Fields, batch: str) -> GraphState:
    shape = fields.shape("shape", MAX_SIZE)
    return GraphState(
        fields.text("name"),
        fields.text("input"),
        fields.text("output"),
        shape,
        fields.integer("batch_axis", 0, len(shape) if batch == "free" else 0, 0),
        fields.choice("dtype", DTYPES, "float32"),
    )


def _graph_output(fields: Fields) -> GraphOutput:
    return GraphOutput(fields.text("name"), fields.text("output"), fields.shape("shape", MAX_SIZE))
