"""config.json: what a bundle says about its model.

    RecurrentConfig   layers of one kind of cell, an input, a head and an output transform
    GraphConfig       a user's ONNX graph, with its inputs, states and outputs declared

`parsing.parse_config` reads it; `config_json` is the inverse.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from .feedback import Sources
from .named_inputs import NamedInputs, named_inputs_json

FORMAT = "cellkeeper-bundle/1"
GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}  # how many gates each cell has
CELLS = tuple(GATES)
ACTIVATIONS = (
    "linear",
    "relu",
    "tanh",
    "sigmoid",
    "softplus",
    "elu",  # with alpha = 1
    "gelu",
    "gelu_tanh",
    "hard_sigmoid",
    "hard_silu",
    "hard_tanh",
    "log_sigmoid",
    "mish",
    "relu6",
    "selu",
    "silu",
    "softsign",
)
OPS_WITH_VALUE = ("scale", "offset", "clip_min")
OPS = (*OPS_WITH_VALUE, "expm1", "exp", "softmax", "sinh")
POLICIES = ("reject", "hold", "constant")
LAYOUTS = ("step", "time_first", "batch_first")
BATCHES = ("free", "one", "none")

MAX_SIZE = 65_536  # features, hidden, projection, units of a dense layer
MAX_LAYERS = 64
MAX_VOCABULARY = 10_000_000
MAX_RANK = 8
LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True, slots=True)
class Normalization:
    """The input's normalization: x' = (x - offset) / scale, feature by feature."""

    offset: tuple[float, ...]
    scale: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Missing:
    """What NaN means. policy: "reject" it, "hold" the feature's last value (`value` before the first), or "constant":
    take `value`. value: one number for all features, or one for each (in C order, if a time step has several axes)."""

    policy: str = "reject"
    value: float | tuple[float, ...] = 0.0


@dataclass(frozen=True, slots=True)
class Features:
    """Time steps of `size` float32 values. shape: that of a graph's time step if it is not [size]; it has `size` values
    in all."""

    size: int
    normalization: Normalization | None = None
    missing: Missing = Missing()
    shape: tuple[int, ...] = ()

    @property
    def step_shape(self) -> tuple[int, ...]:
        return self.shape or (self.size,)


@dataclass(frozen=True, slots=True)
class Tokens:
    """Time steps of one token id each, 0..vocabulary - 1. embedding_size: 0 if a graph takes the ids itself."""

    vocabulary: int
    embedding_size: int


@dataclass(frozen=True, slots=True)
class Dense:
    """A layer of the head: activation(W x + b)."""

    units: int
    activation: str = "linear"
    bias: bool = True


@dataclass(frozen=True, slots=True)
class Transform:
    """One step in converting outputs back to the user's units. value: one number, or one for each output unit."""

    op: str
    value: float | tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True)
class RecurrentConfig:
    """Layers of one kind of cell. The prediction is the head's output, or the top layer's if there is no head."""

    name: str
    cell: str
    input_size: int
    hidden_size: int
    num_layers: int
    proj_size: int
    bias: bool
    reset_after: bool
    initial_state: str  # "zeros" or "learned"
    input: Features | Tokens
    head: tuple[Dense, ...]
    output: tuple[Transform, ...]
    feedback: Sources | None = None  # see feedback.py
    feature_names: tuple[str, ...] = ()  # of the input's features, in order; empty if they have no names

    @property
    def recurrent_size(self) -> int:
        """The width of `h` and of the "hidden" output."""
        return self.proj_size or self.hidden_size

    @property
    def output_size(self) -> int:
        return self.head[-1].units if self.head else self.recurrent_size

    @property
    def gates(self) -> int:
        return GATES[self.cell]


@dataclass(frozen=True, slots=True)
class GraphState:
    """A state tensor of a graph. shape: one session's. batch_axis: the graph's batch axis.

    If the graph takes one session per call, the shape is that of the whole tensor, and batch_axis is 0 and unused.
    """

    name: str
    input: str
    output: str
    shape: tuple[int, ...]
    batch_axis: int
    dtype: str = "float32"


@dataclass(frozen=True, slots=True)
class GraphOutput:
    """An output of a graph. shape: that of one time step."""

    name: str
    output: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class GraphConfig:
    """An ONNX graph (inputs, states, constants) -> (outputs, states).

    Features and outputs are float32 and token ids int32; they are cast outside the graph if it uses other float or
    integer types. Several inputs have the graph's dtypes; input_name is empty then.
    layout: of inputs and outputs: "step" [B, ...], "time_first" [T, B, ...], "batch_first" [B, T, ...].
    batch: "free": a call takes any number of sessions. "one": B is 1. "none": there is no batch axis ("step" [...],
    "time_first" [T, ...]). With the last two, each call takes one session.
    constants: names of graph inputs that always get the bundle's tensor "constant.<name>".
    """

    name: str
    graph: str
    layout: str
    input_name: str
    input: Features | Tokens | NamedInputs
    states: tuple[GraphState, ...]
    outputs: tuple[GraphOutput, ...]
    constants: tuple[str, ...]
    feedback: Sources | None = None  # see feedback.py
    feature_names: tuple[str, ...] = ()  # of the input's features, in order; empty if they have no names
    batch: str = "free"

    @property
    def one_session_a_call(self) -> bool:
        return self.batch != "free"


Config = RecurrentConfig | GraphConfig


def config_json(config: Config) -> dict[str, Any]:
    """Returns the contents of config.json."""
    value = asdict(config)
    kind = "tokens" if isinstance(config.input, Tokens) else "features"
    value["input"] = {"kind": kind, **value["input"]}
    shape = value["input"].pop("shape", ())
    if isinstance(config.input, NamedInputs):
        value["inputs"] = named_inputs_json(config.input)
    if isinstance(config, RecurrentConfig):
        value["input"].pop("size", None)
        if config.cell != "gru":
            del value["reset_after"]
        value["output"] = [{k: v for k, v in step.items() if v is not None} for step in value["output"]]
    else:
        value = {"cell": "onnx", **value}
        value["input"]["name"] = value.pop("input_name")
        for state in value["states"]:
            if state["dtype"] == "float32":  # left out, because servers that support no other dtype refuse the key
                del state["dtype"]
        if config.batch == "free":
            del value["batch"]
        if isinstance(config.input, NamedInputs):
            del value["input"]
        elif isinstance(config.input, Features):
            del value["input"]["normalization"]
            if shape:
                del value["input"]["size"]
                value["input"]["shape"] = shape
        else:
            del value["input"]["embedding_size"]
    if value["feedback"] is None:
        del value["feedback"]
    if not value["feature_names"]:
        del value["feature_names"]
    return {"format": FORMAT, **value}
