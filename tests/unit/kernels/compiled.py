"""Compiles the kernels for a GPU, without a GPU: python -m tests.unit.kernels.compiled [capability, such as 90]

Every launch goes through Triton's own specialization of its arguments, as on a device. Runs in a process without
Triton's interpreter. Prints a JSON object:
    binaries   for each kernel, precision, tile and function of one value: name, constants, shared memory, stack
               (spilled registers), and counts of its PTX instructions
    varying    launches for which Triton would compile another binary for another batch or chunk; expected: none
    operations torch's own operations between the launches, which a graph would repeat or refuse to; expected: none
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import triton
from cellkeeper_service.engine.cuda.cells import KernelCells, StepBuffers
from cellkeeper_service.engine.precision import PRECISIONS, Precision
from cellkeeper_service.model.config import ACTIVATIONS, Features
from torch.utils._python_dispatch import TorchDispatchMode
from triton.backends.compiler import GPUTarget
from triton.runtime.jit import JITFunction

from testing.bundles import bundle_config, random_tensors

from . import probe

MODELS: list[dict[str, Any]] = [
    {"hidden_size": 33, "head": [], "output": [{"op": "softmax"}, {"op": "expm1"}, {"op": "sinh"}]},
    {"cell": "gru", "input": {"kind": "features", "missing": {"policy": "hold", "value": 0.5}}},
    {"cell": "gru", "reset_after": False, "hidden_size": 33},
    {"cell": "rnn_tanh", "hidden_size": 128, "head": [130, 1]},
    {"cell": "gru", "hidden_size": 256, "head": [1024]},  # from here on with the tiles of large layers
    {"cell": "gru", "reset_after": False, "hidden_size": 1024},
    {"cell": "rnn_relu", "hidden_size": 1024},
    {"proj_size": 5, "input_size": 6, "input": {"kind": "tokens", "vocabulary": 11, "embedding_size": 6}},
    {
        "hidden_size": 512,
        "input": {
            "kind": "features",
            "normalization": {"offset": [0] * 3, "scale": [1] * 3},
            "missing": {"policy": "constant", "value": [1, 2, 3]},
        },
    },
]
BLOCK = 1024
CHUNKS = ((1, 1), (2, 16), (3, 70), (16, 1), (4, 256))
_INSTRUCTIONS = (
    "fma.rn.f32",
    "mma.sync",
    "wgmma.mma_async",
    "tcgen05.mma",
    "atom",
    "red",
    "div.full.f32",
    "div.rn.f32",
    "rcp",
    "ex2",
    "add.ftz.f32",
    "mul.ftz.f32",
    "fma.rn.ftz.f32",
)
Launch = tuple[Any, tuple[Any, ...], dict[str, Any]]


class AbsentDevice:
    """What Triton asks its driver for before a launch."""

    def __init__(self, capability: int) -> None:
        self._target = GPUTarget("cuda", capability, 32)

    def get_current_target(self) -> GPUTarget:
        return self._target

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


class Operations(TorchDispatchMode):
    """Notes the names of torch's operations."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


def launches_of(
    precision: Precision, model: dict[str, Any], steps: int, batch: int, operations: Operations
) -> list[Launch]:
    """Returns the launches of a chunk, recorded instead of run. operations: notes what torch does between them."""
    config = bundle_config(**model)
    cells = KernelCells(config, random_tensors(config), torch.device("cpu"), precision)
    shape = (steps, batch, config.input_size) if isinstance(config.input, Features) else (steps, batch)
    inputs = torch.zeros(shape, dtype=torch.float32 if isinstance(config.input, Features) else torch.int32)
    rows = torch.arange(batch, dtype=torch.int32)
    outputs = {
        "prediction": torch.zeros(steps, batch, config.output_size),
        "hidden": torch.zeros(steps, batch, config.recurrent_size),
    }
    finite = torch.zeros(batch, dtype=torch.uint8)
    launches: list[Launch] = []

    def record(kernel: Any, grid: Any) -> Any:
        del grid
        return lambda *args, **kwargs: launches.append((kernel, args, kwargs))

    own, JITFunction.__getitem__ = JITFunction.__getitem__, record
    try:
        arena, scratch = torch.zeros(batch, cells.row_width), cells.scratch(steps, batch)
        with operations:
            cells.launch(arena, StepBuffers(inputs, rows, rows, outputs, finite), scratch)
    finally:
        JITFunction.__getitem__ = own
    return launches


def compile_launch(launch: Launch) -> Any:
    """Returns the binary that Triton compiles for a launch."""
    kernel, args, kwargs = launch
    return kernel.run(*args, grid=(1,), warmup=True, **kwargs)


@contextmanager
def keys_alone() -> Iterator[set[tuple[str, str]]]:
    """Yields a set that collects the kernel and key of each binary that `compile_launch` requests. Compiles none."""
    keys: set[tuple[str, str]] = set()

    def note(key: str, fn: Any, **other: Any) -> bool:
        del other
        keys.add((fn.name, key))
        return True

    triton.knobs.runtime.jit_cache_hook = note
    try:
        yield keys
    finally:
        triton.knobs.runtime.jit_cache_hook = None


def binary_keys(launches: list[Launch]) -> set[tuple[str, str]]:
    with keys_alone() as keys:
        for launch in launches:
            compile_launch(launch)
    return keys


def stack_bytes(cubin: bytes) -> int:
    """Returns the stack bytes of one thread."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [triton.knobs.nvidia.cuobjdump.path, "--dump-resource-usage", file.name]
        printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.search(r"STACK:(\d+)", printed)
    if found is None:
        raise ValueError(f"cuobjdump names no stack: {printed}")
    return int(found[1])


def constants_of(launch: Launch) -> str:
    """Returns the kernel's name and those constants that distinguish its binaries."""
    kernel, _, kwargs = launch
    products = "PRECISION", "M", "GROUPS", "N", "ACTIVATION"
    names = (*products, "FUNCTION", "POLICY", "NORMALIZED", "SOFTMAX", "OPS", "PROJECTED")
    return " ".join([kernel.__name__, *(f"{name}={kwargs[name]}" for name in names if name in kwargs)])


def describe(launch: Launch) -> dict[str, Any]:
    binary = compile_launch(launch)
    ptx = binary.asm["ptx"]
    return {
        "kernel": launch[0].__name__,
        "constants": constants_of(launch),
        "precision": launch[2].get("PRECISION"),
        "shared_bytes": binary.metadata.shared,
        "stack_bytes": stack_bytes(binary.asm["cubin"]),
        **{word: len(re.findall(rf"\b{re.escape(word)}\b", ptx)) for word in _INSTRUCTIONS},
    }


def main(capability: int) -> None:
    triton.runtime.driver.set_active(AbsentDevice(capability))
    chosen: dict[str, Launch] = {}
    varying, operations = [], Operations()
    for model in MODELS:
        for precision in PRECISIONS:
            chunks = [launches_of(precision, model, steps, batch, operations) for steps, batch in CHUNKS]
            first, *others = [binary_keys(launches) for launches in chunks]
            varying += [str(key) for keys in others for key in keys ^ first]
            chosen |= {constants_of(launch): launch for launch in chunks[0]}
    values = torch.zeros(BLOCK)
    for function in (*ACTIVATIONS, "exp", "expm1", "sinh"):
        chosen[function] = probe.apply, (values, values, BLOCK), {"FUNCTION": function, "N": BLOCK}
    report = {"varying": varying, "operations": operations.names}
    print(json.dumps(report | {"binaries": [describe(launch) for launch in chosen.values()]}))


if __name__ == "__main__":
    main(int((sys.argv[1:] or ["90"])[0]))
