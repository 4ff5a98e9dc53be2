"""Parses config.json. Anything unknown is refused with the key, what came and what was expected."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod

from .config import (
    FORMAT,
    MAX_SIZE,
    OPS_WITH_VALUE,
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
from .feedback import GREEDY, SUPPLIED, Sources
from .fields import Fields
from .named_inputs import MAX_VALUES, NamedInput, NamedInputs
from .schema import CONFIG_SCHEMA, DEFINITIONS, MAX_NAME


def parse_config(value: object, place: str = "config.json") -> Config:
    """Parses the result of json.loads. Raises StartError, which names the key, what came and what was expected."""
    fields = Fields(value, place, CONFIG_SCHEMA)
    found = fields.any("format", f"one of {FORMAT}")
    if found != FORMAT:  # checked first, because another format may have other keys
        raise fields.refuse("format", found, f"one of {FORMAT}")
    cell = fields.variant("cell")
    name = fields.text("name")
    if fields.any("bidirectional", "") is not False:
        raise fields.refuse(
            "bidirectional", True, "false: the backward direction starts at the end, which a stream has not reached"
        )
    config = _graph(fields, name) if cell == "onnx" else _recurrent(fields, name, cell)
    config = replace(config, feature_names=_feature_names(fields, config.input))
    fields.done()
    return config


def _feature_names(fields: Fields, source: Features | Tokens | NamedInputs) -> tuple[str, ...]:
    names = fields.items("feature_names")
    size = source.size if isinstance(source, Features) and not source.shape else 0
    if not _distinct_names(names) or len(names) not in (0, size):
        raise fields.refuse(
            "feature_names", names, f"{size} distinct strings of up to {MAX_NAME} printable characters, or []"
        )
    return tuple(names)


def _distinct_names(items: Sequence[object]) -> bool:
    texts = all(isinstance(item, str) and 1 <= len(item) <= MAX_NAME and item.isprintable() for item in items)
    return texts and len(set(items)) == len(items)


def _recurrent(fields: Fields, name: str, cell: str) -> RecurrentConfig:
    input_size = fields.integer("input_size")
    hidden_size = fields.integer("hidden_size")
    proj_size = fields.integer("proj_size", MAX_SIZE)
    if proj_size and (cell != "lstm" or proj_size >= hidden_size):
        raise fields.refuse("proj_size", proj_size, "0, or for an lstm less than hidden_size")
    num_layers = fields.integer("num_layers")
    bias = fields.flag("bias")
    reset_after = fields.flag("reset_after") if cell == "gru" else True
    initial_state = fields.choice("initial_state")
    source = fields.nested("input", lambda inner: _input(inner, input_size))
    if isinstance(source, Tokens) and source.embedding_size != input_size:
        raise fields.refuse("input_size", input_size, f"the embedding_size {source.embedding_size}")
    head = fields.nested_list("head", _dense)
    width = head[-1].units if head else proj_size or hidden_size
    output = fields.nested_list("output", lambda inner: parse_transform(inner, width))
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


def _input(fields: Fields, size: int) -> Features | Tokens:
    if fields.variant("kind") == "tokens":
        return Tokens(fields.integer("vocabulary"), fields.integer("embedding_size"))
    normalization = None
    inner = fields.any("normalization", "an object or null")
    if inner is not None:
        place = fields.place("normalization")
        normalization = parse_normalization(Fields(inner, place, DEFINITIONS["normalization"]), size)
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
        return Missing(inner.choice("policy"), inner.number_or_numbers("value", size))

    return fields.nested("missing", read, {"policy": "reject"})


def _dense(fields: Fields) -> Dense:
    return Dense(fields.integer("units"), fields.choice("activation"), fields.flag("bias"))


def parse_transform(fields: Fields, width: int) -> Transform:
    """Reads an object with op and, if the op takes one, value: a number, or `width` of them."""
    op = fields.choice("op")
    value = fields.number_or_numbers("value", width) if op in OPS_WITH_VALUE else None
    fields.done()
    return Transform(op, value)


def _graph(fields: Fields, name: str) -> GraphConfig:
    graph = fields.text("graph", printable=False)
    if not all(c.isalnum() or c in "._-" for c in graph) or graph.startswith("."):
        raise fields.refuse("graph", graph, "the name of a file in the bundle, without a path")
    batch = fields.choice("batch")
    layout = fields.choice("layout")
    if batch == "none" and layout == "batch_first":
        raise fields.refuse("layout", layout, "step or time_first, because batch is none")
    input_name, source = ("", _named_inputs(fields)) if fields.has("inputs") else fields.nested("input", _graph_input)
    states = fields.nested_list("states", lambda inner: _graph_state(inner, batch))
    outputs = fields.nested_list("outputs", _graph_output)
    names = [state.name for state in states]
    if not states or len(set(names)) != len(names) or "last_input" in names:
        raise fields.refuse("states", names, "at least one, with distinct names other than last_input")
    names = [output.name for output in outputs]
    if not outputs or len(set(names)) != len(names) or any(n == "state" or n.startswith("state.") for n in names):
        raise fields.refuse("outputs", names, "at least one, with distinct names other than state and state.*")
    constants = tuple(fields.items("constants"))
    if not _distinct_names(constants):
        raise fields.refuse("constants", constants, "distinct names of graph inputs")
    predicted = next((output.shape for output in outputs if output.name == "prediction"), None)
    feedback = _feedback(fields, source, predicted)
    return GraphConfig(name, graph, layout, input_name, source, states, outputs, constants, feedback, batch=batch)


def _graph_input(fields: Fields) -> tuple[str, Features | Tokens]:
    """Reads the only input of a time step. Returns its name in the graph, and what it takes."""
    kind, name = fields.variant("kind"), fields.text("name")
    return name, Tokens(fields.integer("vocabulary"), 0) if kind == "tokens" else _graph_features(fields)


def _graph_features(fields: Fields) -> Features:
    """Reads the size of a time step, or its shape if it has two axes or more."""
    shape: tuple[int, ...] = ()
    if fields.has("shape"):
        shape = fields.shape("shape")
        if len(shape) < 2 or prod(shape) > MAX_SIZE:
            raise fields.refuse("shape", shape, f"two axes or more with up to {MAX_SIZE} values; size for one axis")
    size = prod(shape) if shape else fields.integer("size")
    return Features(size, None, parse_missing(fields, size), shape)


def _named_inputs(fields: Fields) -> NamedInputs:
    """Reads the key "inputs"."""
    inputs = fields.nested_list("inputs", _named_input)
    names, graph_names = [one.name for one in inputs], [one.input for one in inputs]
    if len(inputs) < 2 or len(set(names)) < len(names) or len(set(graph_names)) < len(names):
        raise fields.refuse("inputs", names, "at least two with distinct names; give a single input as `input`")
    values = sum(prod(one.shape) for one in inputs)
    if values > MAX_VALUES:
        raise fields.refuse("inputs", f"{values} values in a time step", f"at most {MAX_VALUES}")
    return NamedInputs(inputs)


def _named_input(fields: Fields) -> NamedInput:
    name = fields.text("name")
    dtype = fields.choice("dtype")
    return NamedInput(
        name,
        fields.text("input", default=name),
        fields.shape("shape"),
        dtype,
        fields.integer("vocabulary") if dtype.startswith("int") else 0,
    )


def _graph_state(fields: Fields, batch: str) -> GraphState:
    shape = fields.shape("shape")
    return GraphState(
        fields.text("name"),
        fields.text("input"),
        fields.text("output"),
        shape,
        fields.integer("batch_axis", len(shape) if batch == "free" else 0),
        fields.choice("dtype"),
    )


def _graph_output(fields: Fields) -> GraphOutput:
    return GraphOutput(fields.text("name"), fields.text("output"), fields.shape("shape"))


def _feedback(
    fields: Fields, source: Features | Tokens | NamedInputs, predicted: tuple[int, ...] | None
) -> Sources | None:
    """Reads the key "feedback"; None if it is missing. predicted: the shape of "prediction"; None if there is none."""
    if not fields.has("feedback"):
        return None
    width = 0 if predicted is None else prod(predicted)
    if isinstance(source, NamedInputs):
        return _named_feedback(fields, source.inputs, width)
    value = fields.any("feedback", "a list or a string")
    if isinstance(source, Tokens):
        if value != GREEDY or width != source.vocabulary:
            expected = f'"{GREEDY}", with one predicted value for each of {source.vocabulary} ids (there are {width})'
            raise fields.refuse("feedback", value, expected)
        return GREEDY
    listed = isinstance(value, list | tuple) and len(value) == source.size
    if not listed or not all(_is_source(item, width) for item in value):
        expected = f'an index below {width} into the prediction, or "known"'
        raise fields.refuse("feedback", value, f"{source.size} entries, one for each feature: {expected}")
    return tuple(value)


def _is_source(item: object, width: int) -> bool:
    return item == SUPPLIED or (type(item) is int and 0 <= item < width)


def _named_feedback(fields: Fields, inputs: Sequence[NamedInput], width: int) -> Sources:
    """Reads the key "feedback" of a model with several inputs. width: values of a prediction."""
    value = fields.any("feedback", "an object")
    names = [one.name for one in inputs]
    if not isinstance(value, dict) or sorted(value) != sorted(names):
        raise fields.refuse("feedback", value, f"an object with each of the inputs {', '.join(names)}")
    for one in inputs:
        sources = value[one.name]
        fed = isinstance(sources, list | tuple) and len(sources) == prod(one.shape) and not one.vocabulary
        if sources != SUPPLIED and not (fed and all(type(item) is int and 0 <= item < width for item in sources)):
            fits = "" if one.vocabulary else f"{prod(one.shape)} indices below {width} into the prediction, or "
            raise fields.refuse(f"feedback: {one.name}", sources, f'{fits}"known"')
    if all(sources == SUPPLIED for sources in value.values()):
        raise fields.refuse("feedback", value, "at least one input that takes the prediction")
    return {name: sources if sources == SUPPLIED else tuple(sources) for name, sources in value.items()}
