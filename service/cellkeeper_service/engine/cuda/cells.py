"""Launches the kernels for the time steps of a chunk on the current stream, without allocation or synchronization, so
that a CUDA graph can capture them.

    preprocess  raw inputs -> the input of layer 0; one launch, unless they are taken as they are
    layers      one launch per layer and time step; two with a projection, or for a GRU that resets before its product
    head        one launch per dense layer and per stretch of transforms, over all time steps
    finish      states -> arena, finite flags; one launch

**The arena is read before it is written.** Step 1 gathers its states from the arena, and `preprocess` the held inputs;
each later step reads the row buffer that the previous step wrote. Only `finish` writes the arena, and it is the last
launch. So several rows of a batch may read the same arena row, which one of them, or another, may write.
**No launch writes what it reads.** There are two row buffers; a step reads one and writes the other. A layer reads its
input from the buffer that it also writes, but from other columns: those of the layer below, whose launch is complete.

**What decides the bits** of a row: its inputs and states, the weights, the precision, the tile (which depends on model
and precision: `tiles`), the compiled kernels and the device. Each value of a product is one sum over K, in ascending
blocks of a fixed size. A tile has a fixed number of rows, padded with zeros, so a batch of 1 runs the same program as
one of 1,000. Whatever varies with the batch, the chunk or the step (indices, offsets, whether to gather) is an integer
on which the compiler does not specialize, and all buffers are aligned to 16 bytes, so one binary per layer serves every
call. No sum crosses rows, none is split over programs, and there are no atomics.
"""

from __future__ import annotations

from itertools import chain
from typing import Any

import torch
from torch import Tensor

from cellkeeper_service.domain.engine import Array
from cellkeeper_service.engine.precision import Precision
from cellkeeper_service.model.config import RecurrentConfig, Tokens
from cellkeeper_service.model.tensors import all_states, cell_states

from .buffers import Scratch, StepBuffers, check_tensor
from .kernels import dense, finish, recurrent, transform
from .preprocessing import KernelPreprocessing
from .weights import Product, Weights, dense_weights, layer_weights, product_of, stretches_of

__all__ = ["KernelCells", "Scratch", "StepBuffers"]

_BLOCK = 128  # values that a one-row program processes at a time


class KernelCells:
    """The model on the device: its weights, converted once for the precision, and the launches of a chunk."""

    def __init__(
        self, config: RecurrentConfig, tensors: dict[str, Array], device: torch.device, precision: Precision
    ) -> None:
        self._config = config
        self._device = device
        self._precision = precision
        layers = range(config.num_layers)
        projections = [f"rnn.weight_hr_l{layer}" for layer in layers] if config.proj_size else []
        head = [f"head.{i}.weight" for i in range(len(config.head))]

        def product(weights: Weights) -> Product:
            return product_of(weights, device, precision)

        self._layers = [[product(weights) for weights in layer_weights(config, tensors, layer)] for layer in layers]
        self._projections = [product(dense_weights(tensors, name)) for name in projections]
        self._head = [product(dense_weights(tensors, name)) for name in head]
        self._stretches = stretches_of(config, device)
        self._cells_width = sum(state.nbytes for state in cell_states(config)) // 4
        self.row_width = sum(state.nbytes for state in all_states(config)) // 4
        self._preprocessing = KernelPreprocessing(config, tensors, device)

    @property
    def numerics(self) -> str:
        """What decides the bits besides the model, the device and the versions, such as "fp32 tiles=16x32x32w4"."""
        tiles = dict.fromkeys(str(product.tile) for product in (*chain(*self._layers), *self._projections, *self._head))
        return f"{self._precision} tiles={','.join(tiles)}"

    def scratch(self, steps: int, batch: int) -> Scratch:
        """Allocates the temporaries of a bucket: about 4 T B (inputs + H + 2 units) + 8 B row_width bytes.

        Raises ValueError if steps or batch is less than 1.
        """
        if steps < 1 or batch < 1:
            raise ValueError(f"scratch: got {steps} time steps and a batch of {batch}, expected at least 1 of each")
        config, empty = self._config, self._empty
        two_launches = bool(config.proj_size) or (config.cell == "gru" and not config.reset_after)
        gates = (batch, config.hidden_size) if two_launches else (1,)
        widest = max([dense.units for dense in config.head] or [config.recurrent_size])
        return Scratch(
            steps,
            batch,
            (empty(batch, self.row_width), empty(batch, self.row_width)),
            empty(steps, batch, config.input_size) if self._preprocessing.needed else empty(1),
            torch.empty((self._preprocessing.slots(steps), batch), dtype=torch.uint8, device=self._device),
            empty(steps, batch, config.recurrent_size),
            (empty(*gates), empty(*gates)),
            (empty(steps, batch, widest), empty(steps, batch, widest)),
        )

    def launch(self, arena: Tensor, buffers: StepBuffers, scratch: Scratch) -> None:
        """Launches T = inputs.shape[0] time steps for the B rows of the bucket on the current stream.

        The current device must be that of the tensors. The first launch of a model compiles its kernels; after it, a
        graph can be captured. Rows flagged 0 in `finite` are written like all others, with whatever their input gives.

        arena: float32 [rows, row_width]. States are read from the `read` rows, and the final ones are written to the
        `write` rows. The write rows are distinct; read rows need not be, and read[i] == write[i] is allowed. Raises
        ValueError for a tensor of another shape or dtype, or one that is not contiguous and aligned to 16 bytes.
        """
        self._check(arena, buffers, scratch)
        steps, batch = scratch.steps, scratch.batch
        hidden = buffers.outputs.get("hidden", scratch.history)
        raw = not self._preprocessing.needed
        if not raw:
            self._preprocessing.launch(arena, buffers, scratch)
        for step in range(steps):
            before, after = scratch.states[(step + 1) % 2], scratch.states[step % 2]
            for layer in range(self._config.num_layers):
                self._launch_layer(layer, step, arena if step == 0 else before, after, hidden, buffers, scratch)
        if "prediction" in buffers.outputs:
            self._launch_head(hidden, buffers, scratch)
        finish.finish[(batch,)](
            scratch.states[(steps - 1) % 2],
            buffers.read,
            buffers.write,
            arena,
            scratch.usable,
            buffers.inputs,
            buffers.outputs.get("prediction", hidden),
            hidden,
            buffers.finite,
            batch,
            steps,
            0 if raw else len(scratch.usable),
            ROW_WIDTH=self.row_width,
            CELLS_WIDTH=self._cells_width,
            F=self._config.input_size if raw else 0,
            UNITS=self._config.output_size if "prediction" in buffers.outputs else 0,
            H=self._config.recurrent_size if "hidden" in buffers.outputs else 0,
            N=_BLOCK,
            num_warps=4,
        )

    def _launch_layer(
        self,
        layer: int,
        step: int,
        before: Tensor,
        after: Tensor,
        hidden: Tensor,
        buffers: StepBuffers,
        scratch: Scratch,
    ) -> None:
        config, batch, products = self._config, scratch.batch, self._layers[layer]
        width = config.recurrent_size
        first, top = layer == 0, layer == config.num_layers - 1
        rows = (scratch.prepared if self._preprocessing.needed else buffers.inputs) if first else after
        source = (rows, step * batch if first else 0)
        states = (before, int(step == 0))
        kept = (after, hidden, int(top), step * batch)
        weights = (buffers.read, products[0].weight, products[0].bias)
        grid, constants = _grid(products[0], batch), self._layer_constants(layer, products[0])
        if config.cell == "lstm":
            raw, projected = scratch.gates[0], bool(config.proj_size)
            recurrent.lstm[grid](*source, *states, *kept, *weights, raw, batch, PROJECTED=projected, **constants)
            if projected:
                self._launch_dense(
                    self._projections[layer],
                    raw,
                    config.hidden_size,
                    after,
                    batch,
                    buffers,
                    at=layer * width,
                    kept=kept[1:],
                )
        elif config.cell != "gru":
            recurrent.rnn[grid](*source, *states, *kept, *weights, batch, RELU=config.cell == "rnn_relu", **constants)
        elif config.reset_after:
            recurrent.gru[grid](*source, *states, *kept, *weights, batch, **constants)
        else:
            recurrent.gru_gates[grid](*source, *states, *weights, *scratch.gates, batch, **constants)
            weights = (buffers.read, products[1].weight, products[1].bias)
            grid, constants = _grid(products[1], batch), self._layer_constants(layer, products[1])
            recurrent.gru_candidate[grid](*source, *states, *kept, *weights, *scratch.gates, batch, **constants)

    def _layer_constants(self, layer: int, product: Product) -> dict[str, Any]:
        config = self._config
        width, first = config.recurrent_size, layer == 0
        sizes = recurrent.Layer(
            inputs=config.input_size if first else width,
            source_width=config.input_size if first else self.row_width,
            source_at=0 if first else (layer - 1) * width,
            hidden=config.hidden_size,
            h_width=width,
            row_width=self.row_width,
            h_at=layer * width,
            c_at=config.num_layers * width + layer * config.hidden_size,
            inputs_depth=product.depths[0],
            hidden_depth=product.depths[1],
            padded=product.units_padded,
        )
        return {"layer": sizes, "GROUPS": product.tile.groups, **_tile_sizes(product, self._precision)}

    def _launch_head(self, hidden: Tensor, buffers: StepBuffers, scratch: Scratch) -> None:
        """Computes the prediction from the top layer of all time steps, alternating between the two head buffers."""
        config = self._config
        rows = scratch.steps * scratch.batch
        launches = len(self._head) + len(self._stretches)
        targets = [scratch.head[i % 2] for i in range(launches - 1)] + [buffers.outputs["prediction"]]
        values, width = hidden, config.recurrent_size
        for layer, product, target in zip(config.head, self._head, targets, strict=False):
            self._launch_dense(product, values, width, target, rows, buffers, activation=layer.activation)
            values, width = target, layer.units
        for stretch, target in zip(self._stretches, targets[len(self._head) :], strict=True):
            transform.transform[(rows,)](
                values,
                buffers.read,
                stretch.values,
                target,
                scratch.batch,
                UNITS=config.output_size,
                OPS=stretch.ops,
                SOFTMAX=stretch.softmax,
                N=_BLOCK,
                num_warps=4,
            )
            values = target

    def _launch_dense(
        self,
        product: Product,
        source: Tensor,
        inputs: int,
        out: Tensor,
        rows: int,
        buffers: StepBuffers,
        *,
        activation: str = "linear",
        at: int | None = None,
        kept: tuple[Tensor, int, int] | None = None,
    ) -> None:
        """Launches one dense product. at: the column of a row buffer where the units go; None: `out` has only units."""
        dense.dense[_grid(product, rows)](
            source,
            buffers.read,
            product.weight,
            product.bias,
            out,
            *(kept or (out, 0, 0)),
            rows,
            len(buffers.read),
            INPUTS=inputs,
            DEPTH=product.depths[0],
            UNITS=product.units,
            OUT_WIDTH=product.units if at is None else self.row_width,
            OUT_AT=at or 0,
            ACTIVATION=activation,
            N_PADDED=product.units_padded,
            **_tile_sizes(product, self._precision),
        )

    def _check(self, arena: Tensor, buffers: StepBuffers, scratch: Scratch) -> None:
        config, steps, batch = self._config, scratch.steps, scratch.batch
        tokens = isinstance(config.input, Tokens)
        expected: dict[str, tuple[Tensor, tuple[int, ...], torch.dtype]] = {
            "arena": (arena, (arena.shape[0], self.row_width), torch.float32),
            "inputs": (
                buffers.inputs,
                (steps, batch) if tokens else (steps, batch, config.input_size),
                torch.int32 if tokens else torch.float32,
            ),
            "read": (buffers.read, (batch,), torch.int32),
            "write": (buffers.write, (batch,), torch.int32),
            "finite": (buffers.finite, (batch,), torch.uint8),
        }
        widths = {"prediction": config.output_size, "hidden": config.recurrent_size}
        for name, tensor in buffers.outputs.items():
            if name not in widths:
                raise ValueError(f"outputs: got {name!r}, expected some of prediction, hidden")
            expected[name] = (tensor, (steps, batch, widths[name]), torch.float32)
        for name, (tensor, shape, dtype) in expected.items():
            check_tensor(name, tensor, shape, dtype)

    def _empty(self, *shape: int) -> Tensor:
        return torch.empty(shape, dtype=torch.float32, device=self._device)


def _grid(product: Product, rows: int) -> tuple[int, int]:
    """Returns the grid with row tiles first, so that neighboring programs share columns of the weights."""
    return -(-rows // product.tile.rows), product.programs


def _tile_sizes(product: Product, precision: Precision) -> dict[str, Any]:
    tile = product.tile
    sizes = {
        "M": tile.rows // tile.groups,
        "N": tile.columns,
        "K": tile.depth,
        "num_warps": tile.warps,
        "num_stages": tile.stages,
    }
    return {"PRECISION": precision, **sizes}
