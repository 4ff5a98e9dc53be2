"""The form into which an import reads a model: layers in the order of computation, each with its original name.

    Embed, Normalize, Affine, LayerNorm, Dense, Activate, ParametricRelu, Convert   one time step in, one out
    Merge                                                                           several values of one time step in
    CausalConv                           keeps the last inputs
    Recurrent                            keeps a state; one cell, with weights under PyTorch's names
    Mask, Unmask                         marks the time steps that the layers after it skip, and ends that

Weights are numpy arrays of any float dtype.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from cellkeeper_service.model.config import Missing, Transform

Array = NDArray[Any]

# by name, for one time step; a bundle's head may have those of model.config.ACTIVATIONS
ACTIVATIONS = (
    "linear",
    "relu",
    "tanh",
    "sigmoid",
    "softplus",
    "softmax",
    "elu",
    "exponential",
    "gelu",
    "gelu_tanh",
    "hard_sigmoid",
    "hard_silu",
    "hard_tanh",
    "leaky_relu",
    "log_sigmoid",
    "log_softmax",
    "mish",
    "relu6",
    "selu",
    "silu",
    "softsign",
    "tanh_shrink",
)
KERAS_2_HARD_SIGMOID = "keras_2_hard_sigmoid"  # steeper than everyone else's; only files of Keras 2 have it
# permitted in place of a cell's own activations, and in dense layers; the others are over all units, or need a slope
CELL_ACTIVATIONS = (
    *(name for name in ACTIVATIONS if name not in ("softmax", "log_softmax", "leaky_relu")),
    KERAS_2_HARD_SIGMOID,
)
USUAL = {"lstm": ("sigmoid", "tanh"), "gru": ("sigmoid", "tanh"), "rnn_tanh": ("tanh",), "rnn_relu": ("relu",)}


@dataclass(frozen=True)
class Embed:
    """Maps token ids to rows of `weight` [vocabulary, size]. mask_zero: time steps with id 0 are skipped."""

    place: str
    weight: Array
    mask_zero: bool = False


@dataclass(frozen=True)
class Normalize:
    """(x - offset) / scale, feature by feature: [F] each.

    stand_ins: the value of x that stands for a missing one, the same for all features or one for each, and what it
    becomes instead.
    """

    place: str
    offset: Array
    scale: Array
    stand_ins: tuple[float | tuple[float, ...], float] | None = None


@dataclass(frozen=True)
class Affine:
    """x * scale + offset, feature by feature: [F] each."""

    place: str
    scale: Array
    offset: Array


@dataclass(frozen=True)
class LayerNorm:
    """(x - mean) / sqrt(variance + epsilon) * scale + offset, with mean and variance over the time step's features.

    scale, offset: [F] each; None: 1 and 0.
    """

    place: str
    epsilon: float
    scale: Array | None = None
    offset: Array | None = None


@dataclass(frozen=True)
class ParametricRelu:
    """x where positive, else slope * x. slope: [F], or [1] for all."""

    place: str
    slope: Array


@dataclass(frozen=True)
class CausalConv:
    """A convolution over this time step and earlier ones: weight [units, kernel, inputs], the last tap for this one.

    Time steps before the first are zeros. The state is the last `reach` inputs.
    """

    place: str
    weight: Array
    bias: Array | None
    dilation: int = 1

    @property
    def reach(self) -> int:
        return (int(self.weight.shape[1]) - 1) * self.dilation


@dataclass(frozen=True)
class Merge:
    """op: add, subtract, multiply, average, maximum, minimum or concatenate, of two or more values; all but concatenate
    need values of one width."""

    place: str
    op: str


@dataclass(frozen=True)
class Dense:
    """activation(weight x + bias). weight: [units, inputs]; bias: [units]."""

    place: str
    weight: Array
    bias: Array | None = None
    activation: str = "linear"


@dataclass(frozen=True)
class Activate:
    """One of ACTIVATIONS, or KERAS_2_HARD_SIGMOID. slope: of leaky_relu and elu, below zero."""

    place: str
    op: str
    slope: float = 1.0


@dataclass(frozen=True)
class Convert:
    """One step of the bundle's output transform."""

    place: str
    transform: Transform


@dataclass(frozen=True)
class Mask:
    """Makes the layers after it skip time steps at which every feature has this value."""

    place: str
    value: float


@dataclass(frozen=True)
class Unmask:
    """Ends a mask: the layers after it skip no time step."""

    place: str


@dataclass(frozen=True)
class Recurrent:
    """One layer of one cell.

    weights: weight_ih [gates * H, inputs], weight_hh [gates * H, H], bias_ih and bias_hh [gates * H] (both or neither),
    weight_hr [P, H] for a projection; gates in the order i, f, g, o or r, z, n.
    activations: of the gates and of the candidate (an rnn has one only), if not the usual ones.
    initial: "h" [H] and "c" [H] of a new session; zeros if empty.
    zero_masked: a skipped time step outputs zeros instead of the last output.
    """

    place: str
    cell: str
    hidden_size: int
    weights: Mapping[str, Array]
    reset_after: bool = True
    activations: tuple[str, ...] = ()
    initial: Mapping[str, Array] = field(default_factory=dict)
    zero_masked: bool = False

    @property
    def proj_size(self) -> int:
        return int(self.weights["weight_hr"].shape[0]) if "weight_hr" in self.weights else 0

    @property
    def width(self) -> int:
        """The size of `h` and of the output."""
        return self.proj_size or self.hidden_size

    @property
    def usual(self) -> bool:
        return self.activations in ((), USUAL[self.cell])


Layer = (
    Embed
    | Normalize
    | Affine
    | LayerNorm
    | Dense
    | Activate
    | ParametricRelu
    | Convert
    | Mask
    | Unmask
    | Merge
    | CausalConv
    | Recurrent
)
INPUT = -1  # in Stack.sources: the stack's input


@dataclass(frozen=True)
class Stack:
    """A model as read. size: features of a time step, or 0 if the first layer is an Embed.

    sources: for each layer, the indices of the earlier layers whose values it takes, or INPUT; empty if each takes the
    one before it. The last layer's value is the prediction.
    """

    size: int
    layers: tuple[Layer, ...]
    missing: Missing = field(default_factory=Missing)
    sources: tuple[tuple[int, ...], ...] = ()

    def sources_of(self, number: int) -> tuple[int, ...]:
        """Returns the indices of the layers whose values layer `number` takes."""
        return self.sources[number] if self.sources else (number - 1,)

    @property
    def chain(self) -> bool:
        """True if each layer takes the value of the one before it."""
        return all(self.sources_of(number) == (number - 1,) for number in range(len(self.layers)))

    @property
    def vocabulary(self) -> int:
        first = self.layers[0] if self.layers else None
        return int(first.weight.shape[0]) if isinstance(first, Embed) else 0

    @property
    def masked(self) -> bool:
        return any(isinstance(layer, Mask) or (isinstance(layer, Embed) and layer.mask_zero) for layer in self.layers)

    @property
    def convolutions(self) -> tuple[CausalConv, ...]:
        return tuple(layer for layer in self.layers if isinstance(layer, CausalConv))

    @property
    def recurrent(self) -> tuple[Recurrent, ...]:
        return tuple(layer for layer in self.layers if isinstance(layer, Recurrent))
