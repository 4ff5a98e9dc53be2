"""The reference implementation: cells, head and output transform written out in torch.

Every product has the shape [B, inputs] x [inputs, n], one time step at a time, whatever the chunking.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from cellkeeper_service.domain.engine import Array
from cellkeeper_service.model.config import Features, RecurrentConfig, Transform
from cellkeeper_service.model.tensors import cell_states

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "linear": lambda values: values,
    "relu": torch.relu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "softplus": F.softplus,
    "elu": F.elu,
    "gelu": F.gelu,
    "gelu_tanh": lambda values: F.gelu(values, approximate="tanh"),
    "hard_sigmoid": F.hardsigmoid,
    "hard_silu": F.hardswish,
    "hard_tanh": F.hardtanh,
    "log_sigmoid": F.logsigmoid,
    "mish": F.mish,
    "relu6": F.relu6,
    "selu": F.selu,
    "silu": F.silu,
    "softsign": F.softsign,
}
# As COLUMNS in graph_writer.py. Torch's kernels process two vectors of 16 floats at a time, and the remainder one by
# one with different bits. So every row is a multiple of 32 floats, or (for the gates) a view that is processed row by
# row.
_COLUMNS = 32


class TorchCells:
    """The weights of a model, and its step."""

    def __init__(self, config: RecurrentConfig, tensors: dict[str, Array], dtype: torch.dtype = torch.float32) -> None:
        """dtype: of all computations; float64 to measure other engines against."""
        self._config = config
        self._dtype = dtype
        self._tensors = {
            name: torch.from_numpy(value.copy()).to(dtype) for name, value in tensors.items() if name[:4] != "head"
        }
        # [inputs, gates], so that products need no transposition
        self._weights = {
            name: value.t().contiguous() for name, value in self._tensors.items() if name.startswith("rnn.weight")
        }
        for name in [name for name in self._weights if name.startswith("rnn.weight_hr")]:
            pad = -config.proj_size % _COLUMNS
            self._weights[name] = torch.nn.functional.pad(self._weights[name], (0, pad)).contiguous()
        self._head = self._padded_head(tensors)
        self._offset = self._scale = None
        if isinstance(config.input, Features) and config.input.normalization is not None:
            self._offset = self._vector(config.input.normalization.offset)
            self._scale = self._vector(config.input.normalization.scale)

    def split(self, state: Tensor) -> list[list[Tensor]]:
        """Splits a batch of checkpoints [B, S] into tensors [B, width], by state and layer."""
        layers = self._config.num_layers
        widths = [spec.shape[1] for spec in cell_states(self._config) for _ in range(layers)]
        # contiguous, so that products do not depend on whether an operand comes from the arena or the previous step
        parts = [part.contiguous() for part in torch.split(state, widths, dim=1)]
        return [parts[start : start + layers] for start in range(0, len(parts), layers)]

    def join(self, states: list[list[Tensor]]) -> Tensor:
        """Joins tensors into checkpoints [B, S]; the inverse of `split`."""
        return torch.cat([part for parts in states for part in parts], dim=1)

    def step(self, values: Tensor, states: list[list[Tensor]]) -> Tensor:
        """Computes one time step: input [B, F] or ids [B] -> the top layer [B, H]. Replaces the tensors in `states`."""
        if not isinstance(self._config.input, Features):
            values = self._tensors["embedding.weight"].index_select(0, values)
        elif self._offset is not None and self._scale is not None:
            values = (values - self._offset) / self._scale
        for layer in range(self._config.num_layers):
            values = self._cell(layer, values, states)
        return values

    def predict(self, hidden: Tensor) -> Tensor:
        """Computes the prediction [B, units] from the top layer [B, H]."""
        config = self._config
        values, width = hidden, config.recurrent_size
        for dense, (weight, bias) in zip(config.head, self._head, strict=True):
            values = _ACTIVATIONS[dense.activation](torch.addmm(bias, values, weight))
            width = dense.units
        if not config.head and config.output:
            values = torch.nn.functional.pad(values, (0, -width % _COLUMNS))
        for transform in config.output:
            values = self._transform(transform, values, width)
        return values[:, :width]

    def _cell(self, layer: int, values: Tensor, states: list[list[Tensor]]) -> Tensor:
        config = self._config
        h = states[0][layer]
        if config.cell == "gru":
            after = self._gru(layer, values, h)
        elif config.cell == "lstm":
            gates = self._into(layer, values).addmm_(h, self._weights[f"rnn.weight_hh_l{layer}"])
            i, f, g, o = gates.chunk(4, dim=1)
            c = torch.sigmoid(f) * states[1][layer] + torch.sigmoid(i) * torch.tanh(g)
            states[1][layer] = c
            after = torch.sigmoid(o) * torch.tanh(c)
            if config.proj_size:
                after = (after @ self._weights[f"rnn.weight_hr_l{layer}"])[:, : config.proj_size].contiguous()
        else:
            total = self._into(layer, values).addmm_(h, self._weights[f"rnn.weight_hh_l{layer}"])
            after = torch.tanh(total) if config.cell == "rnn_tanh" else torch.relu(total)
        states[0][layer] = after
        return after

    def _gru(self, layer: int, values: Tensor, h: Tensor) -> Tensor:
        size = self._config.hidden_size
        weight = self._weights[f"rnn.weight_hh_l{layer}"]
        bias = self._tensors.get(f"rnn.bias_hh_l{layer}")
        into = values @ self._weights[f"rnn.weight_ih_l{layer}"]
        if bias is not None:
            into = into + self._tensors[f"rnn.bias_ih_l{layer}"]
        if self._config.reset_after:
            back = h @ weight if bias is None else torch.addmm(bias, h, weight)
            r, z = map(torch.sigmoid, (into[:, : 2 * size] + back[:, : 2 * size]).chunk(2, dim=1))
            n = torch.tanh(into[:, 2 * size :] + r * back[:, 2 * size :])
        else:
            back = (
                h @ weight[:, : 2 * size] if bias is None else torch.addmm(bias[: 2 * size], h, weight[:, : 2 * size])
            )
            r, z = map(torch.sigmoid, (into[:, : 2 * size] + back).chunk(2, dim=1))
            n = into[:, 2 * size :] + (r * h) @ weight[:, 2 * size :]
            n = torch.tanh(n if bias is None else n + bias[2 * size :])
        return n + z * (h - n)

    def _into(self, layer: int, values: Tensor) -> Tensor:
        """Computes W x + b, with b the sum of both biases."""
        weight = self._weights[f"rnn.weight_ih_l{layer}"]
        if not self._config.bias:
            return values @ weight
        bias = self._tensors[f"rnn.bias_ih_l{layer}"] + self._tensors[f"rnn.bias_hh_l{layer}"]
        return torch.addmm(bias, values, weight)

    def _padded_head(self, tensors: dict[str, Array]) -> list[tuple[Tensor, Tensor]]:
        layers = []
        columns = self._config.recurrent_size
        for i, dense in enumerate(self._config.head):
            padded = -(-dense.units // _COLUMNS) * _COLUMNS
            source = torch.from_numpy(tensors[f"head.{i}.weight"].copy())
            weight, bias = torch.zeros(columns, padded, dtype=self._dtype), torch.zeros(padded, dtype=self._dtype)
            weight[: source.shape[1], : dense.units] = source.t()
            if dense.bias:
                bias[: dense.units] = torch.from_numpy(tensors[f"head.{i}.bias"].copy())
            layers.append((weight, bias))
            columns = padded
        return layers

    def _transform(self, transform: Transform, values: Tensor, width: int) -> Tensor:
        if transform.op == "softmax":
            narrow = torch.softmax(values[:, :width].contiguous(), dim=1)
            return torch.nn.functional.pad(narrow, (0, values.shape[1] - width))
        if transform.op in ("exp", "expm1", "sinh"):
            return {"exp": torch.exp, "expm1": torch.expm1, "sinh": torch.sinh}[transform.op](values)
        if isinstance(transform.value, tuple):
            value = torch.nn.functional.pad(self._vector(transform.value), (0, values.shape[1] - width))
        else:
            value = torch.full((), transform.value or 0.0, dtype=self._dtype)
        if transform.op == "scale":
            return values * value
        return values + value if transform.op == "offset" else torch.maximum(values, value)

    def _vector(self, numbers: tuple[float, ...]) -> Tensor:
        return torch.tensor(numbers, dtype=self._dtype)
