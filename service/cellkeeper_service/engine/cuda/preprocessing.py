"""What is done to raw inputs on the device before the first layer: missing values, normalization, embedding."""

from __future__ import annotations

import torch
from torch import Tensor

from cellkeeper_service.domain.engine import Array
from cellkeeper_service.model.config import RecurrentConfig, Tokens
from cellkeeper_service.model.tensors import cell_states

from .buffers import Scratch, StepBuffers
from .kernels import preprocess
from .tiles import Tile

_TILE = Tile(16, 64, 1, 4)


class KernelPreprocessing:
    """The values that it takes, on the device, and its launch. needed: False if the layers take the inputs as they are.

    What replaces missing values, and what a normalization subtracts and divides by, are no operands of products: they
    stay float32 in every precision.
    """

    def __init__(self, config: RecurrentConfig, tensors: dict[str, Array], device: torch.device) -> None:
        self._config, source = config, config.input
        self._held_at = sum(state.nbytes for state in cell_states(config)) // 4
        self._embedding = self._offset = self._scale = self._fill = torch.zeros(1, device=device)
        self._policy, self.needed = "reject", True
        if isinstance(source, Tokens):
            self._embedding = torch.from_numpy(tensors["embedding.weight"].copy()).to(device)
            return
        self._policy, value = source.missing.policy, source.missing.value
        self._fill = torch.tensor(value, dtype=torch.float32, device=device).expand(source.size).contiguous()
        self.needed = self._policy != "reject" or source.normalization is not None
        if source.normalization is not None:
            self._offset = torch.tensor(source.normalization.offset, dtype=torch.float32, device=device)
            self._scale = torch.tensor(source.normalization.scale, dtype=torch.float32, device=device)

    def slots(self, steps: int) -> int:
        """Returns how many programs look at a row of a chunk, each with a flag of its own."""
        return (1 if self._policy == "hold" else steps) * self._tiles()

    def _tiles(self) -> int:
        return -(-self._config.input_size // _TILE.columns)

    def launch(self, arena: Tensor, buffers: StepBuffers, scratch: Scratch) -> None:
        """Fills `scratch.prepared` and `scratch.usable`; with the policy "hold", also the held inputs of the row buffer
        from which `finish` copies."""
        config, steps, batch = self._config, scratch.steps, scratch.batch
        tiles = (-(-batch // _TILE.rows), self._tiles())
        sizes = {"M": _TILE.rows, "N": _TILE.columns, "num_warps": _TILE.warps, "PREPARED_WIDTH": config.input_size}
        if isinstance(config.input, Tokens):
            preprocess.take_tokens[(*tiles, steps)](
                buffers.inputs,
                buffers.read,
                self._embedding,
                scratch.prepared,
                scratch.usable,
                batch,
                VOCABULARY=config.input.vocabulary,
                E=config.input_size,
                **sizes,
            )
            return
        together = steps if self._policy == "hold" else 1
        preprocess.take_features[(*tiles, steps // together)](
            buffers.inputs,
            arena,
            buffers.read,
            self._offset,
            self._scale,
            self._fill,
            scratch.prepared,
            scratch.states[(steps - 1) % 2],
            scratch.usable,
            batch,
            together,
            F=config.input_size,
            ROW_WIDTH=arena.shape[1],
            HELD_AT=self._held_at,
            POLICY=self._policy,
            NORMALIZED=config.input.normalization is not None,
            **sizes,
        )
