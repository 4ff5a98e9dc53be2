"""The peers of bench-gpu: torch's LSTMs, on states that torch gathers and scatters by index.

cudnn             torch.nn.LSTM, launched kernel by kernel
cudnn in a graph  the same, captured in a CUDA graph
compiled          the cell written out, gathered and scattered under torch.compile, captured in a CUDA graph; it would
                  leave torch.nn.LSTM as it is
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import NamedTuple

import numpy as np
import torch
from cellkeeper_service.engine.precision import Precision
from cellkeeper_service.model.bundle import Bundle
from cellkeeper_service.model.config import RecurrentConfig
from numpy.typing import NDArray
from torch import Tensor
from torch.backends.cudnn import rnn as rnn_modes
from torch.nn.functional import linear

States = tuple[Tensor, Tensor]


class Kind(NamedTuple):
    """A kind of peer. captured: in a CUDA graph. compiled: by torch.compile, from the cell written out."""

    captured: bool
    compiled: bool = False


PEERS = {"cudnn": Kind(False), "cudnn in a graph": Kind(True), "compiled": Kind(True, True)}


def make_peers(
    names: Sequence[str], bundle: Bundle, batch: int, device: torch.device, precision: Precision
) -> tuple[dict[str, Peer], dict[str, str]]:
    """Returns the available peers and, for the others, why not; these reasons also go to stderr."""
    gc.collect()  # earlier peers: a graph that is freed while another is captured ends that capture
    peers: dict[str, Peer] = {}
    missing: dict[str, str] = {}
    for name in names:
        try:
            peers[name] = Peer(bundle, batch, device, precision, PEERS[name])
        except Exception as error:  # noqa: BLE001, PERF203  # torch.compile's exceptions have no common class
            missing[name] = f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
            print(f"bench-gpu: without {name}: {missing[name]}", file=sys.stderr, flush=True)
    return peers, missing


def are_dispensable(names: Iterable[str]) -> bool:
    """Returns True if all of them may be missing: torch.compile needs a C compiler and a device that it supports."""
    return all(PEERS[name].compiled for name in names)


class Peer:
    """One time step of `batch` sessions: the LSTM and a linear head.

    bf16: the whole model in bfloat16, including states, as in torch. tf32: as cuDNN's and cuBLAS' switches define it.
    """

    def __init__(self, bundle: Bundle, batch: int, device: torch.device, precision: Precision, kind: Kind) -> None:
        config = bundle.config
        if not isinstance(config, RecurrentConfig):
            raise TypeError("a graph has no peer")
        self._dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        self._tf32 = precision == "tf32"
        self._rnn = torch.nn.LSTM(config.input_size, config.hidden_size, config.num_layers)
        self._head = torch.nn.Linear(config.hidden_size, config.output_size)
        own = {name[4:]: torch.from_numpy(value.copy()) for name, value in bundle.tensors.items() if name[:3] == "rnn"}
        self._rnn.load_state_dict(own)
        self._rnn = self._rnn.to(device, self._dtype).eval()  # for training, cuDNN would keep what a gradient needs
        with_weights_in_one_block(self._rnn)
        self._head = self._head.to(device, self._dtype)
        shape = (config.num_layers, batch, config.hidden_size)
        self._h, self._c = (torch.zeros(shape, device=device, dtype=self._dtype) for _ in range(2))
        self._up, self._rows, self._inputs = packed(torch.arange(batch), config.input_size, device)
        self._host_up, _, self._host_inputs = packed(torch.arange(batch), config.input_size, torch.device("cpu"))
        self._output = torch.zeros(1, batch, config.output_size, device=device)
        self._output_down = torch.zeros(1, batch, config.output_size).pin_memory()
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._stream.wait_stream(torch.cuda.current_stream(device))  # which still fills what was made above
        self._layers = written_out(self._rnn) if kind.compiled else self._rnn
        self._step: Callable[[], object] = (
            torch.compile(self._advance, fullgraph=True) if kind.compiled else self._advance
        )
        self.captured = kind.captured
        self.launch = self._capture() if kind.captured else self._step

    @contextmanager
    def entered(self, inputs: NDArray[np.float32]) -> Iterator[Callable[[], None]]:
        """Gives a call from inputs [1, B, F] on the host to outputs on the host.

        torch's switches are set around all calls: setting them takes a good part of a short one.
        """
        inputs_up, output_down = self._host_inputs.numpy(), self._output_down.numpy()

        def call() -> None:
            inputs_up[...] = inputs
            self._up.copy_(self._host_up, non_blocking=True)
            self.launch()
            self._output_down.copy_(self._output, non_blocking=True)
            self._stream.synchronize()
            output_down.copy()

        with self._switched(), torch.inference_mode(), torch.cuda.stream(self._stream):
            yield call

    def _advance(self) -> None:
        states = self._h.index_select(1, self._rows), self._c.index_select(1, self._rows)
        hidden, (h, c) = self._layers(self._inputs.to(self._dtype), states)
        self._output.copy_(self._head(hidden))
        self._h.index_copy_(1, self._rows, h)
        self._c.index_copy_(1, self._rows, c)

    def _capture(self) -> Callable[[], object]:
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


def packed(rows: Tensor, features: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Returns a buffer on the device, or pinned on the host, and its parts: rows int64 [B], inputs float32 [1, B, F].
    One copy transfers both, as the engine's does."""
    row_bytes, batch = rows.nbytes, len(rows)
    whole = torch.zeros(row_bytes + 4 * batch * features, dtype=torch.uint8, device=device)
    whole = whole.pin_memory() if device.type == "cpu" else whole
    own_rows, inputs = whole[:row_bytes].view(torch.int64), whole[row_bytes:].view(torch.float32)
    own_rows.copy_(rows)
    return whole, own_rows, inputs.view(1, batch, features)


def with_weights_in_one_block(rnn: torch.nn.LSTM) -> None:
    """Moves the weights into one block of memory, which cuDNN needs. As of torch 2.11, torch.nn.LSTM does so itself
    unless they are bfloat16, and torch would then copy all of them in every call."""
    if rnn.weight_hh_l0.dtype == torch.bfloat16 and rnn.weight_hh_l0.is_cuda:
        weights = [getattr(rnn, name) for name in rnn._flat_weights_names]
        mode = rnn_modes.get_cudnn_mode(rnn.mode)  # type: ignore[no-untyped-call]
        sizes = (rnn.input_size, mode, rnn.hidden_size, rnn.proj_size, rnn.num_layers)
        # before torch 2.10 and cuDNN 9.13, it raises: torch computes it without cuDNN then
        with torch.no_grad(), suppress(RuntimeError):
            torch._cudnn_rnn_flatten_weight(weights, len(weights) // rnn.num_layers, *sizes, rnn.batch_first, False)


def written_out(rnn: torch.nn.LSTM) -> Callable[[Tensor, States], tuple[Tensor, States]]:
    """Returns one time step of `rnn` in operations that torch.compile can fuse.

    It has the module's own arguments and results: x [1, B, F] and the states [layers, B, H].
    """

    kinds = ("weight_ih", "bias_ih", "weight_hh", "bias_hh")
    weights = [[getattr(rnn, f"{kind}_l{layer}") for kind in kinds] for layer in range(rnn.num_layers)]

    def layers(x: Tensor, states: States) -> tuple[Tensor, States]:
        above, hs, cs = x[0], [], []
        for layer, (w_ih, b_ih, w_hh, b_hh) in enumerate(weights):
            before_h, before_c = states[0][layer], states[1][layer]
            i, f, g, o = (linear(above, w_ih, b_ih) + linear(before_h, w_hh, b_hh)).chunk(4, 1)
            c = f.sigmoid() * before_c + i.sigmoid() * g.tanh()
            above = o.sigmoid() * c.tanh()
            hs.append(above)
            cs.append(c)
        return above[None], (torch.stack(hs), torch.stack(cs))

    return layers
