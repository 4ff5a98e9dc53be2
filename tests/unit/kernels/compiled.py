"""Compiles the kernels for a GPU, which needs no GPU: python -m tests.unit.kernels.compiled [capability, such as 90]

Runs in a process without Triton's interpreter. Prints a JSON object:
    binaries   of each kernel, precision and tile: name, constants, shared memory, and counts of instructions of its PTX
    varying    the launches of which Triton would compile another binary for another batch or chunk: none
"""

from __future__ import annotations

import json
import re
import sys
from typing import Any

import torch
import triton
from cellkeeper_service.engine.cuda.cells import KernelCells, StepBuffers
from cellkeeper_service.engine.precision import PRECISIONS, Precision
from cellkeeper_service.model.config import Features
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction

from testing.bundles import bundle_config, random_tensors

MODELS: list[dict[str, Any]] = [
    {"hidden_size": 33, "head": [], "output": [{"op": "softmax"}, {"op": "expm1"}, {"op": "sinh"}]},
    {"cell": "gru", "input": {"kind": "features", "missing": {"policy": "hold", "value": 0.5}}},
    {"cell": "gru", "reset_after": False, "hidden_size": 33},
    {"cell": "rnn_tanh", "hidden_size": 128, "head": [130, 1]},
    {"proj_size": 5, "input_size": 6, "input": {"kind": "tokens", "vocabulary": 11, "embedding_size": 6}},
    {"hidden_size": 512, "input": {"kind": "features", "normalization": {"offset": [0] * 3, "scale": [1] * 3}}},
]
_INSTRUCTIONS = ("fma.rn.f32", "mma.sync", "wgmma.mma_async", "atom", "red", "div.full.f32", "div.rn.f32", "ex2")
_POINTERS = {torch.float32: "*fp32", torch.int32: "*i32", torch.uint8: "*u8", torch.bfloat16: "*bf16"}
Launch = tuple[Any, tuple[Any, ...], dict[str, Any]]


def launches_of(precision: Precision, model: dict[str, Any], steps: int, batch: int) -> list[Launch]:
    """What a chunk launches, recorded instead of run."""
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
        arena = torch.zeros(batch, cells.row_width)
        cells.launch(arena, StepBuffers(inputs, rows, rows, outputs, finite), cells.scratch(steps, batch))
    finally:
        JITFunction.__getitem__ = own
    return launches


def binary_key(launch: Launch) -> tuple[Any, ...]:
    """What Triton compiles anew for: the types of the arguments, the constants, the alignment, special integers."""
    kernel, args, kwargs = launch
    specialized: list[tuple[Any, ...]] = []
    for parameter, value in zip(kernel.params, args, strict=False):
        if isinstance(value, torch.Tensor):
            specialized.append((_POINTERS[value.dtype], value.data_ptr() % 16 == 0))
        elif parameter.do_not_specialize:
            specialized.append(("i32",))
        else:
            specialized.append(("i32", value == 1, value % 16 == 0))
    return (kernel.__name__, tuple(specialized), tuple(sorted(kwargs.items())))


def compile_launch(launch: Launch, arch: int) -> Any:
    kernel, args, kwargs = launch
    constants = {name: value for name, value in kwargs.items() if name in kernel.arg_names}
    options = {name: value for name, value in kwargs.items() if name not in kernel.arg_names}
    signature: dict[str, str] = dict.fromkeys(kernel.arg_names, "constexpr")
    attributes: dict[tuple[int, ...], Any] = {}
    for number, (name, value) in enumerate(zip(kernel.arg_names, args, strict=False)):
        signature[name] = _POINTERS[value.dtype] if isinstance(value, torch.Tensor) else "i32"
        if isinstance(value, torch.Tensor):
            attributes[(number,)] = [["tt.divisibility", 16]]
    source = ASTSource(kernel, signature, constants, attributes)
    return triton.compile(source, target=GPUTarget("cuda", arch, 32), options=options)


def constants_of(launch: Launch) -> str:
    """What tells the binaries of a kernel apart that are worth a look each."""
    kernel, _, kwargs = launch
    names = ("PRECISION", "M", "N", "POLICY", "NORMALIZED", "SOFTMAX", "OPS", "PROJECTED", "ACTIVATION")
    return " ".join([kernel.__name__, *(f"{name}={kwargs[name]}" for name in names if name in kwargs)])


def describe(launch: Launch, arch: int) -> dict[str, Any]:
    binary = compile_launch(launch, arch)
    ptx = binary.asm["ptx"]
    return {
        "kernel": launch[0].__name__,
        "constants": constants_of(launch),
        "precision": launch[2].get("PRECISION"),
        "shared_bytes": binary.metadata.shared,
        **{word: len(re.findall(rf"\b{re.escape(word)}\b", ptx)) for word in _INSTRUCTIONS},
    }


def main(arch: int) -> None:
    chosen: dict[str, Launch] = {}
    varying = []
    for model in MODELS:
        for precision in PRECISIONS:
            chunks = [launches_of(precision, model, steps, batch) for steps, batch in ((1, 1), (2, 16), (3, 70))]
            binaries = [{binary_key(launch) for launch in launches} for launches in chunks]
            varying += [str(key) for keys in binaries for key in keys ^ binaries[0]]
            chosen |= {constants_of(launch): launch for launch in chunks[0]}
    print(json.dumps({"binaries": [describe(launch, arch) for launch in chosen.values()], "varying": varying}))


if __name__ == "__main__":
    main(int((sys.argv[1:] or ["90"])[0]))
