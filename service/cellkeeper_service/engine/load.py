"""Makes the engine for a bundle: chooses it, tests it and warms it up."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from time import perf_counter

import numpy as np

from cellkeeper_service.domain.engine import Array, Engine, EngineLost
from cellkeeper_service.errors import StartError
from cellkeeper_service.model.bundle import Bundle, read_bundle
from cellkeeper_service.model.config import GraphConfig

from .arena import state_tensors
from .base import BundleEngine
from .exactness import TRIAL_CALL_MS, settle
from .nvidia import GraphDeviceMissing, is_driver_installed
from .offline_inputs import offline_inputs
from .precision import Precision, read_precision
from .unstreamable import Unstreamable

log = logging.getLogger(__name__)

AUTO_DEVICE = "cuda:0"  # what "auto" tries
MOST_GRAPH_BYTES = (1 << 31) - (1 << 24)  # of weights in an ONNX graph: a protobuf message has less than 2 GiB
OFFLINE_STEPS = 256  # time steps of an offline run in one call


def load_engine(
    bundle: Bundle | Path,
    device: str = "auto",
    max_batch: int = 256,
    threads: int = 1,
    between: Callable[[], None] = lambda: None,
    trial_call_ms: int = TRIAL_CALL_MS,
    precision: str = "fp32",
) -> BundleEngine:
    """Loads an engine, tested for exactness and warmed up.

    device: "cpu", "cuda:N", or "auto": cuda:0 if torch finds it (for a user's graph: if onnxruntime can use it),
    otherwise the CPU. max_batch: sessions in one call, at most. threads: of one call on the CPU. between: called
    between the calls of the test; an exception that it raises ends the loading. trial_call_ms: the longest that one
    call of a user's graph may take during the test. precision: of products on a GPU, "fp32", "tf32" or "bf16".
    Raises StartError if a package or the device is missing, the model cannot run on it, or it cannot be streamed.
    """
    if isinstance(bundle, Path):
        bundle = read_bundle(bundle)
    if max_batch < 1 or threads < 1 or trial_call_ms < 1:
        raise StartError(
            f"max_batch, threads and trial_call_ms: got {max_batch}, {threads} and {trial_call_ms}, expected 1 or more"
        )
    more = (max_batch, threads, trial_call_ms, read_precision(precision))
    why_cpu = ""  # why a graph that was to try a GPU runs on the CPU
    try:
        try:
            engine = _make(bundle, _resolve(device, bundle), *more)
        except GraphDeviceMissing as error:
            if device != "auto":
                raise
            engine, why_cpu = _make(bundle, "cpu", *more), error.why
        try:
            settle(engine, between)
            warm(engine)
        finally:
            engine.end_trial()
    except Unstreamable as error:
        raise StartError(_cannot_be_streamed(bundle, error)) from error
    except EngineLost as error:
        raise StartError(
            f"{bundle.path}: {error}; free memory of the device, lower --max-batch or choose another --device"
        ) from error
    if why_cpu and is_driver_installed():  # only now, so that a refusal is one line; without a driver, there is no GPU
        log.warning("model %s: its ONNX graph runs on the CPU: %s", bundle.config.name, why_cpu)
    return engine


def check_device(device: str) -> None:
    """Raises StartError if `device` does not name a device."""
    kind, _, number = device.partition(":")
    if device not in ("auto", "cpu") and (kind != "cuda" or not number.isdecimal()):
        raise StartError(f"device: got {device}, expected auto, cpu or cuda:0")


def warm(engine: Engine, sizes: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 128, 256)) -> dict[int, float]:
    """Returns the seconds of a call of one time step by batch size, the best of a few calls. Clears the arena.

    sizes: the batch sizes to measure, as far as they are below max_batch, which is always measured.
    """
    wanted = frozenset(output.name for output in engine.spec.outputs[:1])
    seconds: dict[int, float] = {}
    engine.reserve(engine.max_batch)
    for size in sorted({size for size in sizes if size < engine.max_batch} | {engine.max_batch}):
        rows = np.arange(size, dtype=np.intp)
        engine.write_states(rows, _initial(engine, size))
        inputs = np.zeros((1, size, *engine.spec.input.shape), engine.spec.input.numpy_dtype)
        took = []
        for _ in range(3):
            start = perf_counter()
            engine.run(inputs, rows, rows, wanted)
            took.append(perf_counter() - start)
        seconds[size] = min(took)
    engine.reserve(0)
    return seconds


def offline(model: Engine | Path | str, inputs: Array | Mapping[str, Array]) -> dict[str, Array]:
    """Runs one whole sequence offline. Returns the outputs [T, ...] by name, and the final states as "state.<name>".

    model: a bundle's folder, or its engine, whose arena is cleared. inputs: [T, ...], by name if the model has several;
    a DataFrame's columns are in any order if the features have names. Masked elements and None are missing values, like
    NaN. Raises StartError for inputs that the service would refuse.
    """
    engine = load_engine(Path(model), "cpu") if isinstance(model, str | Path) else model
    steps = offline_inputs(inputs, engine.spec)
    starts = range(0, len(steps), OFFLINE_STEPS)
    outputs = advanced(engine, steps[:, None], [min(OFFLINE_STEPS, len(steps) - start) for start in starts])
    results = {name: values[:, 0] for name, values in outputs.items()}
    states = state_tensors(engine.read_states(np.zeros(1, np.intp)), engine.spec.states)
    for spec, state in zip(engine.spec.states, states, strict=True):
        results[f"state.{spec.name}"] = state.reshape(spec.shape)
    return results


def advanced(engine: Engine, inputs: Array, chunks: Iterable[int]) -> dict[str, Array]:
    """Runs new sessions through the time steps [T, B, ...], in chunks of these lengths. Returns the outputs [T, B, ...]
    by name. The sessions' states are then in the arena's rows 0..B - 1."""
    rows = np.arange(inputs.shape[1], dtype=np.intp)
    engine.reserve(len(rows))
    engine.write_states(rows, _initial(engine, len(rows)))
    wanted = frozenset(output.name for output in engine.spec.outputs)
    parts = {spec.name: [np.zeros((0, len(rows), *spec.shape), spec.numpy_dtype)] for spec in engine.spec.outputs}
    start = 0
    for chunk in chunks:
        computed = engine.run(np.ascontiguousarray(inputs[start : start + chunk]), rows, rows, wanted)
        for name, values in parts.items():
            values.append(computed.outputs[name])
        start += chunk
    return {name: np.concatenate(values) for name, values in parts.items()}


def _cannot_be_streamed(bundle: Bundle, error: Unstreamable) -> str:
    if not isinstance(bundle.config, GraphConfig):
        return f"{bundle.path}: {error}"
    from .onnx_checks import coupling_operators

    found = coupling_operators(bundle.graph)
    hint = f". It contains {', '.join(found)}: one scale for all rows and time steps of a tensor" if found else ""
    if error.coupled:
        hint += "; or serve it one session per call (import onnx --batch one), if it was trained that way"
    return f"{bundle.path / bundle.config.graph}: {error}{hint}"


def _initial(engine: Engine, rows: int) -> Array:
    return np.tile(np.frombuffer(engine.initial_state, np.uint8), (rows, 1))


def _resolve(device: str, bundle: Bundle) -> str:
    check_device(device)
    if device != "auto":
        return device
    if isinstance(bundle.config, GraphConfig):
        return AUTO_DEVICE  # only trying shows if it works
    # torch comes last: importing it takes longer than everything else in a start on the CPU
    if not all(map(importlib.util.find_spec, ("torch", "triton"))) or not is_driver_installed():
        return "cpu"
    from .cuda.device import cuda_devices

    return AUTO_DEVICE if cuda_devices() else "cpu"


def _make(
    bundle: Bundle, device: str, max_batch: int, threads: int, trial_call_ms: int, precision: Precision
) -> BundleEngine:
    config = bundle.config
    if isinstance(config, GraphConfig):
        if precision != "fp32":
            raise StartError(f"precision: got {precision}, expected fp32 for {config.name}: ONNX graphs have no other")
        _require("onnxruntime", f"the ONNX model {config.name}", "cellkeeper[server]")
        from .onnx_device import cpu_device, cuda_device
        from .user_graph import UserGraphEngine

        place = cpu_device() if device == "cpu" else cuda_device(device)
        return UserGraphEngine(bundle, max_batch, threads, trial_call_ms, place)
    if device == "cpu" and precision != "fp32":
        raise StartError(f"precision: got {precision}, expected fp32 for {config.name}: it runs on the CPU")
    if device != "cpu":
        for package in ("torch", "triton"):
            _require(package, f"the model {config.name} on {device}", "cellkeeper[torch]")
        from .cuda.device import CudaDevice
        from .cuda.engine import CudaEngine

        return CudaEngine(bundle, max_batch, CudaDevice(device), precision)
    weights_bytes = sum(tensor.nbytes for tensor in bundle.tensors.values())
    if not config.proj_size and weights_bytes <= MOST_GRAPH_BYTES:
        _require("onnxruntime", f"the model {config.name} on the CPU", "cellkeeper[server]")
        from .ort import OnnxRuntimeEngine

        return OnnxRuntimeEngine(bundle, max_batch, threads)
    reason = "a projection (proj_size)" if config.proj_size else f"{weights_bytes >> 20} MiB of weights"
    _require("torch", f"the model {config.name} with {reason}", "cellkeeper[torch]")
    from .torch_engine import TorchEngine

    return TorchEngine(bundle, max_batch, threads)


def _require(package: str, purpose: str, extra: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise StartError(f"{purpose} needs {package}, which is not installed; install {extra}")
