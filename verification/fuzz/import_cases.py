"""Hostile files for an import: ONNX files and their external data, and files of numpy.savez.

They have flipped bytes and lies about where weights are. Each must be read, or refused in one line, in little time and
memory, and nothing outside its folder may be read.
"""

from __future__ import annotations

import io
import random
import tempfile
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from cellkeeper_service.converters import ImportRefused
from cellkeeper_service.converters.files import npz_tensors
from cellkeeper_service.converters.onnx.declare import declare
from cellkeeper_service.converters.onnx.graph import read_graph
from cellkeeper_service.engine.batch_axis.analysis import independence
from cellkeeper_service.model.config import Features, GraphConfig, GraphOutput, GraphState
from onnx import TensorProto, helper, numpy_helper

from .values import flipped

LONGEST_S = 2.0
MOST_BYTES = 64 << 20
LONGEST_TEXT = 2000
SECRET = b"secret: " * 8  # outside the folder; no tensor may ever hold it
LOCATIONS = (
    "../secret",
    "a/../../secret",
    "link",
    "loop",
    "",
    ".",
    "..",
    "/etc/passwd",
    "\\\\host\\x",
    "\0",
    "x" * 5000,
)
NUMBERS = ("0", "-1", "1", "63", "64", "65", str(2**31), str(2**63), str(2**70), "", "1e3", " 4", "0x10", "\u0664")
SHAPES: tuple[list[int], ...] = ([], [0], [16], [-1], [2**62], [2**31, 2**31, 2**31], [1] * 100, [4, 4], [2**40])
ROWS = GraphConfig(
    "g",
    "model.onnx",
    "step",
    "x",
    Features(6, shape=(3, 2)),
    (GraphState("h", "h", "h_out", (16,), 0),),
    (GraphOutput("prediction", "y", (3, 2)),),
    (),
)
"""The graph of `_graph`, for the check whether its rows depend on each other."""
DECLARED: dict[str, Any] = {
    "input_name": None,
    "layout": None,
    "states": None,
    "batch_axes": {},
    "outputs": None,
    "constants": {},
}


def fuzz_imports(cases: int, seed: int) -> tuple[dict[str, Any], list[str]]:
    """Reads hostile files. Returns the figures and the violations."""
    verdicts: Counter[str] = Counter()
    violations: list[str] = []
    slowest_s, most_bytes = 0.0, 0
    with tempfile.TemporaryDirectory(prefix="cellkeeper-imports-") as name:
        folder = Path(name) / "there"
        folder.mkdir()
        (Path(name) / "secret").write_bytes(SECRET)
        (folder / "link").symlink_to("../secret")
        (folder / "loop").symlink_to("loop")
        (folder / "weights").write_bytes(np.arange(16, dtype=np.float32).tobytes())
        whole, two, arrays = _graph(), _graph(several=True), _arrays()
        tracemalloc.start()
        for number in range(cases):
            case = f"{seed}/import/{number}"
            draw = random.Random(case)
            kind = draw.random()
            read = _npz(draw, arrays) if kind < 0.2 else _onnx(draw, two if kind < 0.4 else whole, folder, kind < 0.4)
            tracemalloc.reset_peak()
            before, started = tracemalloc.get_traced_memory()[0], time.monotonic()
            try:
                violations += [f"case {case}: {text}" for text in read()]
                verdicts["accepted"] += 1
            except ImportRefused as error:
                verdicts["refused"] += 1
                if len(str(error)) > LONGEST_TEXT or len(str(error).splitlines()) != 1:
                    violations.append(f"case {case}: not one short line: {str(error)[:300]!r}")
            except Exception as error:  # noqa: BLE001 - any other exception is a finding
                violations.append(f"case {case}: {type(error).__name__}: {str(error)[:300]}")
            slowest_s = max(slowest_s, time.monotonic() - started)
            most_bytes = max(most_bytes, tracemalloc.get_traced_memory()[1] - before)
        tracemalloc.stop()
    if slowest_s > LONGEST_S:
        violations.append(f"a file took {slowest_s:.1f} s to check")
    if most_bytes > MOST_BYTES:
        violations.append(f"a file took {most_bytes >> 20} MiB to check")
    figures = {
        "import_cases": cases,
        "import_verdicts": dict(verdicts),
        "import_slowest_s": round(slowest_s, 4),
        "import_most_mib": round(most_bytes / (1 << 20), 2),
    }
    return figures, violations


def _onnx(draw: random.Random, whole: bytes, folder: Path, several: bool) -> Callable[[], list[str]]:
    data = flipped(draw, whole) if draw.random() < 0.4 else _spoiled(draw, whole)
    window = draw.choice((None, [1], [3, 2], [2], [0], [2**40], [-1]))
    batch, layout = draw.choice((None, "free", "one")), draw.choice((None, "step", "time_first", "batch_first"))
    said: dict[str, Any] = {**DECLARED, "layout": layout, "input_shape": window, "batch": batch}
    if several:
        said["input_name"] = draw.choice((["x", "ids"], ["ids", "x"], ["x", "x"], ["x", "h"]))
        said["input_shape"] = draw.choice((None, {"x": window or []}, {"ids": window or []}, {"y": [1]}))
        said["vocabulary"] = draw.choice(({"ids": 5}, {"ids": 5, "x": 5}, {"ids": -1}, {}, 5))

    def read() -> list[str]:
        graph = read_graph(data, "g", folder)
        leaked = [t.name for t in graph.model.graph.initializer if SECRET[:8] in t.raw_data]
        independence(graph.model, ROWS)  # it reaches a verdict for any graph
        declare(graph, "g", **said)
        return [f"tensor {name} holds data from outside" for name in leaked]

    return read


def _npz(draw: random.Random, whole: bytes) -> Callable[[], list[str]]:
    data = flipped(draw, whole)

    def read() -> list[str]:
        npz_tensors(Path("a.npz"), data)
        return []

    return read


def _spoiled(draw: random.Random, whole: bytes) -> bytes:
    model = onnx.load_model_from_string(whole)
    tensor = model.graph.initializer[0]
    for _ in range(draw.choice((1, 1, 2))):
        match draw.randrange(6):
            case 0:
                tensor.external_data[0].value = draw.choice(LOCATIONS)
            case 1:
                tensor.external_data[draw.randrange(len(tensor.external_data))].value = draw.choice(NUMBERS)
            case 2:
                del tensor.dims[:]
                tensor.dims.extend(draw.choice(SHAPES))
            case 3:
                tensor.data_type = draw.choice((0, 2, 8, 14, 21, 22, 99, TensorProto.DOUBLE))
            case 4:
                for number in range(draw.choice((1, 50))):
                    model.graph.initializer.append(tensor)
                    model.graph.initializer[-1].name = f"copy{number}"
            case _:
                value = model.graph.input[draw.randrange(len(model.graph.input))]
                dim = draw.choice(value.type.tensor_type.shape.dim)
                dim.dim_value = draw.choice((-1, 0, 1, 2, 2**40, 2**62))
    return bytes(model.SerializeToString())


def _graph(*, several: bool = False) -> bytes:
    """Returns (x [n, 3, 2], h [n, 16]) -> h_out, with one weight in the file `weights`. several: also ids [n]."""
    tensor = numpy_helper.from_array(np.zeros(16, np.float32), "w")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", "weights"), ("offset", "0"), ("length", "64")):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value

    def value_of(name: str, shape: list[Any]) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    ids = helper.make_tensor_value_info("ids", TensorProto.INT64, ["n"])
    nodes = [helper.make_node("Add", ["h", "w"], ["h_out"]), helper.make_node("Identity", ["x"], ["y"])]
    made = helper.make_graph(
        nodes,
        "g",
        [value_of("x", ["n", 3, 2]), *([ids] if several else []), value_of("h", ["n", 16])],
        [value_of("y", ["n", 3, 2]), value_of("h_out", ["n", 16])],
        [tensor],
    )
    return bytes(helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString())


def _arrays() -> bytes:
    stream = io.BytesIO()
    np.savez_compressed(stream, h=np.arange(6.0), ticks=np.array(3))
    return stream.getvalue()
