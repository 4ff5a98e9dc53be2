"""What bench-gpu compares with: torch.nn.LSTM (cuDNN) on states that torch gathers and scatters by index."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import numpy as np
import torch
from cellkeeper_service.engine.precision import Precision
from cellkeeper_service.model.bundle import Bundle
from cellkeeper_service.model.config import RecurrentConfig
from numpy.typing import NDArray

PEERS = {"cudnn": False, "cudnn in a graph": True}
"""By name, whether its step is captured in a CUDA graph."""


class Peer:
    """One time step of `batch` sessions: the LSTM and a linear head.

    bf16: the whole model in bfloat16, states too, as torch has it; tf32: as cuDNN's and cuBLAS' switches have it.
    """

    def __init__(self, bundle: Bundle, batch: int, device: torch.device, precision: Precision, captured: bool) -> None:
        config = bundle.config
        if not isinstance(config, RecurrentConfig):
            raise TypeError("a graph has no peer")
        self._dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        self._tf32 = precision == "tf32"
        self._rnn = torch.nn.LSTM(config.input_size, config.hidden_size, config.num_layers)
        self._head = torch.nn.Linear(config.hidden_size, config.output_size)
        own = {name[4:]: torch.from_numpy(value.copy()) for name, value in bundle.tensors.items() if name[:3] == "rnn"}
        self._rnn.load_state_dict(own)
        self._rnn = self._rnn.to(device, self._dtype)
        self._head = self._head.to(device, self._dtype)
        shape = (config.num_layers, batch, config.hidden_size)
        self._h, self._c = (torch.zeros(shape, device=device, dtype=self._dtype) for _ in range(2))
        self._rows = torch.arange(batch, device=device)
        self._rows_up = torch.arange(batch).pin_memory()
        self._inputs_up = torch.zeros(1, batch, config.input_size).pin_memory()
        self._inputs = torch.zeros(1, batch, config.input_size, device=device)
        self._output = torch.zeros(1, batch, config.output_size, device=device)
        self._output_down = torch.zeros(1, batch, config.output_size).pin_memory()
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._launch = self._capture() if captured else self._step

    def caller(self, inputs: NDArray[np.float32]) -> Callable[[], None]:
        """A call from inputs [1, B, F] on the host to outputs on the host."""

        def call() -> None:
            self._inputs_up.numpy()[...] = inputs
            with self._switched(), torch.inference_mode(), torch.cuda.stream(self._stream):
                self._rows.copy_(self._rows_up, non_blocking=True)
                self._inputs.copy_(self._inputs_up, non_blocking=True)
                self._launch()
                self._output_down.copy_(self._output, non_blocking=True)
                self._stream.synchronize()
            self._output_down.numpy().copy()

        return call

    def _step(self) -> None:
        states = self._h.index_select(1, self._rows), self._c.index_select(1, self._rows)
        hidden, (h, c) = self._rnn(self._inputs.to(self._dtype), states)
        self._output.copy_(self._head(hidden))
        self._h.index_copy_(1, self._rows, h)
        self._c.index_copy_(1, self._rows, c)

    def _capture(self) -> Callable[[], None]:
        with self._switched(), torch.inference_mode():
            with torch.cuda.stream(self._stream):
                for _ in range(3):
                    self._step()
            self._stream.synchronize()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, stream=self._stream):
                self._step()
        return graph.replay

    def _switched(self) -> AbstractContextManager[object]:
        torch.backends.cuda.matmul.allow_tf32 = self._tf32
        flags: AbstractContextManager[object] = torch.backends.cudnn.flags(enabled=True, allow_tf32=self._tf32)
        return flags
