"""Hostile bundles: config.json and model.safetensors with bytes flipped or cut, and with lies in their headers."""

from __future__ import annotations

import json
import random
import struct
import tempfile
import time
import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from cellkeeper_service.errors import StartError
from cellkeeper_service.model.bundle import CONFIG_FILE, WEIGHTS_FILE, read_bundle
from cellkeeper_service.model.write import write_bundle

from testing.bundles import make_bundle
from testing.two_inputs import two_inputs_config, two_inputs_graph

from .values import flipped

LONGEST_S = 2.0
MOST_BYTES = 64 << 20  # of Python's own memory, for one bundle
LONGEST_TEXT = 2000
NUMBERS = (0, -1, 1, 2, 65535, 65536, 2**31, 2**63, 10**400, 1e308, -0.0, 0.5, float("nan"), float("inf"))
WORDS = ("", "lstm", "gru", "onnx", "tokens", "features", "../x", "/etc/passwd", "\0", "a\nb", "x" * 5000, "\ud800")
GRAPH = {
    "format": "cellkeeper-bundle/1",
    "name": "m",
    "cell": "onnx",
    "graph": "model.onnx",
    "batch": "one",
    "layout": "step",
    "input": {"kind": "features", "name": "x", "shape": [3, 2], "missing": {"policy": "hold", "value": 0.5}},
    "states": [
        {"name": "n", "input": "n", "output": "n_out", "shape": [2], "dtype": "int64"},
        {"name": "h", "input": "h", "output": "h_out", "shape": [1, 2, 1, 3, 2], "dtype": "float16"},
    ],
    "outputs": [{"name": "prediction", "output": "y", "shape": [3, 2]}],
    "constants": ["k"],
}


def fuzz_bundles(cases: int, seed: int) -> tuple[dict[str, Any], list[str]]:
    """Reads hostile bundles. Returns the figures and the violations."""
    verdicts: Counter[str] = Counter()
    violations: list[str] = []
    slowest_s, most_bytes = 0.0, 0
    with tempfile.TemporaryDirectory(prefix="cellkeeper-bundles-") as name:
        folders = _bundles(Path(name))
        tracemalloc.start()
        for number in range(cases):
            case = f"{seed}/bundle/{number}"
            draw = random.Random(case)
            folder, config, weights = draw.choice(folders)
            if draw.random() < 0.5:
                (folder / CONFIG_FILE).write_bytes(hostile_config(draw, config))
                (folder / WEIGHTS_FILE).write_bytes(weights)
            else:
                (folder / CONFIG_FILE).write_bytes(config)
                (folder / WEIGHTS_FILE).write_bytes(hostile_weights(draw, weights))
            tracemalloc.reset_peak()
            before, started = tracemalloc.get_traced_memory()[0], time.monotonic()
            try:
                read_bundle(folder)
                verdicts["accepted"] += 1
            except StartError as error:
                verdicts["refused"] += 1
                if len(str(error)) > LONGEST_TEXT or len(str(error).splitlines()) != 1:
                    violations.append(f"case {case}: not one short line: {str(error)[:300]!r}")
            except Exception as error:  # noqa: BLE001 - any other exception is a finding
                violations.append(f"case {case}: {type(error).__name__}: {str(error)[:300]}")
            slowest_s = max(slowest_s, time.monotonic() - started)
            most_bytes = max(most_bytes, tracemalloc.get_traced_memory()[1] - before)
        tracemalloc.stop()
    if slowest_s > LONGEST_S:
        violations.append(f"a bundle took {slowest_s:.1f} s to check")
    if most_bytes > MOST_BYTES:
        violations.append(f"a bundle took {most_bytes >> 20} MiB to check")
    figures = {
        "bundle_cases": cases,
        "bundle_verdicts": dict(verdicts),
        "bundle_slowest_s": round(slowest_s, 4),
        "bundle_most_mib": round(most_bytes / (1 << 20), 2),
    }
    return figures, violations


def hostile_config(draw: random.Random, config: bytes) -> bytes:
    dice = draw.random()
    if dice < 0.35:
        return flipped(draw, config)
    if dice < 0.42:
        return draw.choice(
            (b"[" * 100_000, b'{"a":' * 50_000, b"\xff\xfe{}", b"null", b"1e999", b"-" * 9, b"9" * 10_000)
        )
    value = json.loads(config)
    for _ in range(draw.choice((1, 1, 2, 5))):
        _spoil(draw, value)
    text = json.dumps(value)
    if dice > 0.95:
        text = text.replace('"name"', '"cell"', 1)  # a duplicate key
    return text.encode("utf-8", "surrogatepass")


def _spoil(draw: random.Random, value: Any) -> None:
    """Changes one value within a JSON value, at any depth."""
    while True:
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        if not keys:
            return
        key = draw.choice(keys)
        if not isinstance(value[key], dict | list) or draw.random() < 0.3:
            break
        value = value[key]
    dice = draw.random()
    if dice < 0.1:
        del value[key]
    elif dice < 0.2 and isinstance(value, dict):
        value[draw.choice(WORDS)] = 1
    else:
        value[key] = draw.choice(
            (draw.choice(NUMBERS), draw.choice(WORDS), None, True, [], {}, [[[]]], [0] * 100, {"": {}}, [{}] * 33)
        )


def hostile_weights(draw: random.Random, weights: bytes) -> bytes:
    dice = draw.random()
    (length,) = struct.unpack_from("<Q", weights)
    header, data = weights[8 : 8 + length], weights[8 + length :]
    if dice < 0.3:
        return flipped(draw, weights)
    if dice < 0.4:
        return struct.pack("<Q", draw.choice((0, 1, length - 1, length + 1, 2**31, 2**40, 2**63, 2**64 - 1))) + header
    if dice < 0.5:
        return flipped(draw, header[:8]) + header + data
    if dice < 0.6:  # infinity or NaN
        at = 4 * draw.randrange(len(data) // 4)
        bad = draw.choice((b"\0\0\x80\x7f", b"\0\0\xc0\x7f"))
        return weights[: 8 + length] + data[:at] + bad + data[at + 4 :]
    tensors = json.loads(header)
    entry = tensors[draw.choice([name for name in tensors if name != "__metadata__"])]
    match draw.randrange(6):
        case 0:
            entry["shape"] = draw.choice(([], [0], [2**63], [2**32, 2**32], [1] * 1000, entry["shape"][::-1], [-1]))
        case 1:
            entry["data_offsets"] = draw.choice(([0, 0], [0, 2**63], [2**64 - 1, 0], [5, 1], [-4, 0]))
        case 2:
            entry["dtype"] = draw.choice(("F64", "I8", "BOOL", "", "F32\n", "BF16", "U64"))
        case 3:
            tensors[draw.choice(WORDS)] = dict(entry)
        case 4:
            tensors["__metadata__"] = draw.choice(({"a": "b" * 10_000}, {"a": 1}, [], None))
        case _:
            name = draw.choice(list(tensors))
            tensors[draw.choice(WORDS)] = tensors.pop(name)
    text = json.dumps(tensors).encode("utf-8", "surrogatepass")
    return struct.pack("<Q", len(text)) + text + data


def _bundles(folder: Path) -> list[tuple[Path, bytes, bytes]]:
    """Returns valid bundles, to be corrupted: each folder and the bytes of its two files."""
    numbers = {"offset": [0.0, 1.0], "scale": [1.0, 2.0]}
    features = {"kind": "features", "normalization": numbers, "missing": {"policy": "hold", "value": 0.5}}
    made = [
        make_bundle(folder / "a", cell="lstm", input_size=2, input=features, proj_size=3, initial_state="learned"),
        make_bundle(folder / "b", cell="gru", num_layers=2, head=(4, 2), output=[{"op": "scale", "value": [1.0, 2.0]}]),
        make_bundle(folder / "c", input_size=4, input={"kind": "tokens", "vocabulary": 5, "embedding_size": 4}),
        write_bundle(
            folder / "d", GRAPH, {"initial.n": np.array([3, 4]), "constant.k": np.ones(2)}, graph=b"\x00"
        ).path,
        write_bundle(
            folder / "e", two_inputs_config(), {"initial.h": np.zeros(3, np.float32)}, graph=two_inputs_graph()
        ).path,
    ]
    return [(path, (path / CONFIG_FILE).read_bytes(), (path / WEIGHTS_FILE).read_bytes()) for path in made]
