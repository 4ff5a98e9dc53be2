"""The torch engine on the CPU: the reference, and the engine for cells that ONNX lacks."""

from __future__ import annotations

import numpy as np
import torch

from cellkeeper_service.domain.engine import Array, Computed, Rows
from cellkeeper_service.errors import StartError
from cellkeeper_service.model.bundle import Bundle
from cellkeeper_service.model.config import RecurrentConfig

from .arena import whole_rows
from .base import HostEngine
from .finite import finite_rows
from .numerics import instruction_set, vendor
from .torch_cells import TorchCells


class TorchEngine(HostEngine):
    """The engine for every recurrent bundle. `threads` sets torch's number of CPU threads for the whole process."""

    name = "torch"

    def __init__(self, bundle: Bundle, max_batch: int, threads: int = 1) -> None:
        if not isinstance(bundle.config, RecurrentConfig):
            raise StartError(f"{bundle.path}: ONNX graphs run on onnxruntime, not on torch")
        super().__init__(bundle, max_batch, threads)
        torch.set_num_threads(threads)
        self.settle(1, False, 0.0)
        self._cells = TorchCells(bundle.config, bundle.tensors)

    def _numerics(self) -> str:
        parts = [f"torch {torch.__version__}", torch.backends.cpu.get_cpu_capability(), instruction_set(), vendor()]
        if not self.exact:
            parts.append(f"threads={self._threads}")
        return " ".join([*filter(None, parts), f"min_batch={self.min_batch}"])

    @torch.inference_mode()
    def run(self, inputs: Array, read: Rows, write: Rows, wanted: frozenset[str]) -> Computed:
        self._check_wanted(wanted)
        steps, batch = inputs.shape[:2]
        padded = max(batch, self.min_batch)
        filled = np.zeros((steps, padded, *inputs.shape[2:]), self.spec.input.dtype)
        before = torch.zeros(padded, self._state_width)
        held = np.empty((batch, self._held_width), np.float32) if self._held_width else None
        held_rows = [] if held is None else [whole_rows(held)]
        self._arena.gather(read, [whole_rows(before[:batch].numpy()), *held_rows])
        good = self._preprocessing.fill(inputs, filled[:, :batch], held)

        values = torch.from_numpy(filled)
        states = self._cells.split(before)
        outputs: dict[str, list[torch.Tensor]] = {name: [] for name in wanted}
        for step in range(steps):
            # cloned, because a step's data may be unaligned in the chunk, and the bits of products may depend on that
            hidden = self._cells.step(values[step].clone(), states)
            if "hidden" in outputs:
                outputs["hidden"].append(hidden)
            if "prediction" in outputs:
                outputs["prediction"].append(self._cells.predict(hidden))
        after = self._cells.join(states)[:batch].numpy()
        stacked = {name: torch.stack(parts)[:, :batch].contiguous().numpy() for name, parts in outputs.items()}
        computed = Computed(stacked, finite_rows(good, after, stacked))
        self._arena.scatter(write, [whole_rows(after), *held_rows])  # last: see Engine.run
        return computed
