"""The CPU engine: ONNX Runtime runs the graph that graph.py builds for a bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any, NamedTuple

import numpy as np
import onnxruntime

from cellkeeper_service.domain.engine import Array, Computed, Rows
from cellkeeper_service.errors import StartError
from cellkeeper_service.model.bundle import Bundle
from cellkeeper_service.model.config import RecurrentConfig

from .arena import Floats, WholeRows, whole_rows
from .base import BundleEngine, HostEngine
from .finite import all_finite, finite_rows
from .graph import RNN_ACTIVATIONS, build_graph
from .half_precision import unusable_optimizers
from .onnx_device import CPU_PROVIDER, GraphDevice, check_provider, cpu_device, raise_if_lost

MAX_BINDINGS = 2048  # prepared call shapes; a few KB each


class _Call(NamedTuple):
    """A prepared call of one shape, with views of the buffers that it is bound to."""

    binding: Any
    filling: Sequence[Array]  # the rows of inputs and states beyond B, up to P, which must be zero
    inputs: Array  # [T, B, ...]
    held: Floats | None  # [B, F]
    before: Sequence[WholeRows]  # states [B, S], and held
    after: Sequence[WholeRows]
    state: Floats  # [B, S], after the call
    outputs: Mapping[str, Floats]  # [T, B, ...]
    results: Floats  # the states and outputs of all P rows, one after another


class OnnxRuntimeEngine(HostEngine):
    """The engine for recurrent bundles without projection. P in shapes is the size of the padded batch."""

    name = "onnxruntime"

    def __init__(self, bundle: Bundle, max_batch: int, threads: int = 1) -> None:
        self._rnn = isinstance(bundle.config, RecurrentConfig) and bundle.config.cell in RNN_ACTIVATIONS
        super().__init__(bundle, max_batch, threads)
        self.settle(1, False, 0.0)
        self._session = open_session(build_graph(bundle), threads, str(bundle.path))
        self._held = np.zeros((max_batch, self._held_width), np.float32)
        self._buffers: dict[str, Array] = {}

    def settle(self, min_batch: int, exact: bool, tolerance: float) -> None:
        super().settle(min_batch, exact, tolerance)
        self._calls: dict[tuple[int, int, frozenset[str]], _Call] = {}

    def _numerics(self) -> str:
        text = describe(self, cpu_device(), self._threads)
        # 0.1.0 computed these with the RNN operator, in other bits
        return f"{text} rnn=scan" if self._rnn else text

    def run(self, inputs: Array, read: Rows, write: Rows, wanted: frozenset[str]) -> Computed:
        steps, batch = inputs.shape[:2]
        call = self._calls.get((steps, batch, wanted))
        if call is None:
            call = self._prepare(steps, batch, wanted)
        for rest in call.filling:
            rest[...] = 0
        self._arena.gather(read, call.before)
        good = self._preprocessing.fill(inputs, call.inputs, call.held)
        self._session.run_with_iobinding(call.binding)
        # copied, because the next call reuses the buffers
        outputs = {name: values.copy() for name, values in call.outputs.items()}
        finite = None
        if good is not None or not all_finite(call.results):
            finite = finite_rows(good, call.state, outputs)
        self._arena.scatter(write, call.after)  # last: see Engine.run
        return Computed(outputs, finite)

    def _prepare(self, steps: int, batch: int, wanted: frozenset[str]) -> _Call:
        if len(self._calls) >= MAX_BINDINGS:
            self._calls.clear()
        self._check_wanted(wanted)
        binding = self._session.io_binding()
        padded = max(batch, self.min_batch)
        inputs = self._buffer("input", (steps, padded, *self.spec.input.shape), self.spec.input.dtype)
        before = self._buffer("state", (padded, self._state_width))
        shapes = {"next": (padded, self._state_width)} | {
            output.name: (steps, padded, *output.shape) for output in self.spec.outputs if output.name in wanted
        }
        results = self._buffer("results", (sum(map(prod, shapes.values())),))
        parts = np.split(results, np.cumsum([prod(shape) for shape in shapes.values()])[:-1])
        given = {name: part.reshape(shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}
        for name, array in (("input", inputs), ("state", before)):
            binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(array))
        for name, array in given.items():
            binding.bind_ortvalue_output(name, onnxruntime.OrtValue.ortvalue_from_numpy(array))
        state = given.pop("next")[:batch]
        held = self._held[:batch] if self._held_width else None
        rows = [] if held is None else [whole_rows(held)]
        call = _Call(
            binding=binding,
            filling=() if padded == batch else (inputs[:, batch:], before[batch:]),
            inputs=inputs[:, :batch],
            held=held,
            before=(whole_rows(before[:batch]), *rows),
            after=(whole_rows(state), *rows),
            state=state,
            outputs={name: values[:, :batch] for name, values in given.items()},
            results=results,
        )
        self._calls[steps, batch, wanted] = call
        return call

    def _buffer(self, name: str, shape: Sequence[int], dtype: str = "float32") -> Array:
        """Returns a view of the buffer that all calls share for this tensor. A buffer that is too small is replaced,
        and the calls bound to it are prepared anew: they would keep every smaller buffer alive."""
        size = prod(shape)
        if name not in self._buffers or self._buffers[name].size < size:
            self._calls.clear()
            self._buffers[name] = np.zeros(size, dtype)
        return self._buffers[name][:size].reshape(shape)


def open_session(model: bytes, threads: int, place: str, device: GraphDevice | None = None) -> Any:
    """Opens an onnxruntime session on the device, by default the CPU. Nodes for which the device's provider has no
    kernel run on the CPU.

    Raises StartError if onnxruntime refuses the graph, GraphDeviceMissing if it cannot use the device, and EngineLost
    if the device fails.
    """
    device = device or cpu_device()
    onnxruntime.disable_telemetry_events()  # operators have not agreed to it
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0" if threads == 1 else "1")
    unusable = unusable_optimizers(model) if device.provider == CPU_PROVIDER else []
    providers: list[Any] = [(device.provider, dict(device.options))]
    if device.provider != CPU_PROVIDER:
        options.use_deterministic_compute = True
        providers.append(CPU_PROVIDER)
    try:
        session = onnxruntime.InferenceSession(
            model, options, providers=providers, enable_fallback=0, disabled_optimizers=unusable
        )
    except Exception as error:  # onnxruntime's errors have no public base class
        raise_if_lost(device, error)
        line = " ".join(str(error).split())[:300]
        raise StartError(f"{place}: onnxruntime refuses the graph ({line}); check the model") from error
    check_provider(device, session)
    return session


def describe(engine: BundleEngine, device: GraphDevice, threads: int) -> str:
    """Returns the numerics text. It includes the number of threads only if that may decide the bits."""
    calls = "one_session_a_call" if engine.one_session_a_call else f"min_batch={engine.min_batch}"
    text = f"onnxruntime {onnxruntime.__version__} {device.versions} {calls}"
    return text if engine.exact else f"{text} threads={threads}"
