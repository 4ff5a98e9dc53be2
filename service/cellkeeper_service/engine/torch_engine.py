"""The torch engine on the CPU: the reference, and the engine for cells that ONNX lacks."""

from __future__ import annotations

import numpy as np
import torch

from cellkeeper_service.domain.engine import Array, Computed, Rows
from cellkeeper_service.domain.spec import ModelSpec
from cellkeeper_service.errors import StartError
from cellkeeper_service.model.bundle import Bundle
from cellkeeper_service.model.config import Config, RecurrentConfig
from cellkeeper_service.model.tensors import cell_states

from .arena import FLOAT_BYTES, Arena, whole_rows
from .inputs import Preprocessing
from .numerics import instruction_set, vendor
from .torch_cells import TorchCells


class TorchEngine:
    """Implements domain.engine.Engine for every recurrent bundle.

    Calls of fewer than `min_batch` sessions are padded to it with rows of zeros. `threads` sets torch's number of CPU
    threads for the whole process.
    """

    name = "torch"
    one_session_a_call = False
    device = "cpu"
    free_bytes = None

    def __init__(self, bundle: Bundle, max_batch: int, threads: int = 1) -> None:
        if not isinstance(bundle.config, RecurrentConfig):
            raise StartError(f"{bundle.path}: ONNX graphs run on onnxruntime, not on torch")
        self.spec: ModelSpec = bundle.spec
        self.config: Config = bundle.config
        self.max_batch = max_batch
        self.initial_state = bundle.initial_state
        self._threads = threads
        torch.set_num_threads(threads)
        self.settle(1, False, 0.0)
        self._cells = TorchCells(bundle.config, bundle.tensors)
        self._preprocessing = Preprocessing(bundle.config)
        self._cells_bytes = sum(state.nbytes for state in cell_states(bundle.config))
        self._held_width = self.spec.input.shape[0] if self._preprocessing.holds else 0
        self._held = Arena(
            [FLOAT_BYTES * self._held_width] if self._preprocessing.holds else []
        )  # inputs are filled on the host
        self._arena = torch.zeros(0, self._cells_bytes // 4)

    def settle(self, min_batch: int, exact: bool, tolerance: float) -> None:
        """Applies what exactness.settle found."""
        self.min_batch, self.exact, self.tolerance = min_batch, exact, tolerance
        parts = [f"torch {torch.__version__}", torch.backends.cpu.get_cpu_capability(), instruction_set(), vendor()]
        if not exact:
            parts.append(f"threads={self._threads}")
        self.numerics = " ".join([*filter(None, parts), f"min_batch={min_batch}"])

    def end_trial(self) -> None:
        """Does nothing: calls of the engine's own cells have no limit."""

    def reserve(self, rows: int) -> None:
        self._arena = torch.zeros(rows, self._cells_bytes // 4)
        self._held.reserve(rows)

    def write_states(self, rows: Rows, states: Array) -> None:
        cells = np.ascontiguousarray(states[:, : self._cells_bytes]).view("<f4")
        self._arena.index_copy_(0, self._index(rows), torch.from_numpy(cells.copy()))
        self._held.write(rows, states[:, self._cells_bytes :])

    def read_states(self, rows: Rows) -> Array:
        cells = self._arena.index_select(0, self._index(rows)).numpy()
        packed = np.ascontiguousarray(cells, "<f4").view(np.uint8)
        return np.concatenate([packed, self._held.read(rows)], axis=1) if self._held_width else packed

    @torch.inference_mode()
    def run(self, inputs: Array, read: Rows, write: Rows, wanted: frozenset[str]) -> Computed:
        unknown = wanted - {output.name for output in self.spec.outputs}
        if unknown:
            raise ValueError(f"outputs: got {sorted(unknown)}, expected some of prediction, hidden")
        steps, batch = inputs.shape[:2]
        padded = max(batch, self.min_batch)
        filled = np.zeros((steps, padded, *inputs.shape[2:]), self.spec.input.dtype)
        held = np.empty((batch, self._held_width), np.float32)
        held_rows = [whole_rows(held)] if self._preprocessing.holds else []
        self._held.gather(read, held_rows)
        good = self._preprocessing.fill(inputs, filled[:, :batch], held if self._held_width else None)

        values = torch.from_numpy(filled)
        before = torch.zeros(padded, self._arena.shape[1])
        before[:batch] = self._arena.index_select(0, self._index(read))
        states = self._cells.split(before)
        outputs: dict[str, list[torch.Tensor]] = {name: [] for name in wanted}
        for step in range(steps):
            # cloned, because a step's data may be unaligned in the chunk, and the bits of products may depend on that
            hidden = self._cells.step(values[step].clone(), states)
            if "hidden" in outputs:
                outputs["hidden"].append(hidden)
            if "prediction" in outputs:
                outputs["prediction"].append(self._cells.predict(hidden))
        after = self._cells.join(states)[:batch]
        stacked = {name: torch.stack(parts)[:, :batch].contiguous() for name, parts in outputs.items()}
        finite = torch.isfinite(after).all(dim=1)
        for output in stacked.values():
            finite &= torch.isfinite(output).all(dim=2).all(dim=0)
        rows = finite.numpy()
        if good is not None:
            rows &= good
        computed = Computed({k: v.numpy() for k, v in stacked.items()}, None if rows.all() else rows)
        self._arena.index_copy_(0, self._index(write), after)  # last: see Engine.run
        self._held.scatter(write, held_rows)
        return computed

    def _index(self, rows: Rows) -> torch.Tensor:
        return torch.from_numpy(np.asarray(rows, np.int64))
