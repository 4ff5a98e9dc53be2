"""A sound in the detector's format, passed through onnxruntime in a loop and through a session."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from cellkeeper import Client
from cellkeeper_service.converters.command import run_import
from numpy.typing import NDArray

Floats = NDArray[np.float32]


def import_file(file: Path, folder: Path, words: tuple[str, ...]) -> None:
    """Imports a file like `cellkeeper-server import onnx FILE FOLDER WORDS`. Raises ImportRefused."""
    run_import(["onnx", str(file), str(folder), *words])


def sound(rate: int, seconds: float, seed: int = 0) -> Floats:
    """Returns noise, with a buzz of a voice's pitch and formants in every other half second."""
    draw = np.random.default_rng(seed)
    time = np.arange(int(rate * seconds)) / rate
    voice = sum(np.sin(2 * np.pi * 120 * k * time) / (1 + abs(120 * k - 700) / 300) for k in range(1, 30))
    loud = (time % 1.0) < 0.5
    return np.asarray(0.1 * voice * loud + 0.003 * draw.standard_normal(len(time)), np.float32)


def windows(samples: Floats, size: int, context: int) -> Floats:
    """Returns [N, context + size]: each time step's new samples after the last ones of the previous step.

    Zeros come before the first. Samples that do not fill a time step are dropped.
    """
    count = len(samples) // size
    padded = np.concatenate([np.zeros(context, np.float32), samples[: count * size]])
    return np.stack([padded[i * size : i * size + context + size] for i in range(count)])


def looped(file: Path, steps: Floats, constants: Mapping[str, int]) -> Floats:
    """Returns onnxruntime's outputs for [N, F], with one call per time step and the states passed on by name."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # it would warn of unused weights
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    taken = {value.name: value.shape for value in session.get_inputs()}
    given = [value.name for value in session.get_outputs()]
    feeds: dict[str, Any] = {name: np.array(value) for name, value in constants.items()}
    states = [name for name in taken if name not in {"input", *constants}]
    for name in states:
        feeds[name] = np.zeros([size if isinstance(size, int) else 1 for size in taken[name]], np.float32)
    rows = []
    for x in steps:
        y, *after = session.run(given, {**feeds, "input": x[None]})
        feeds |= zip(states, after, strict=True)
        rows.append(y.reshape(-1))
    return np.stack(rows)


def streamed(client: Client, model: str, session: str, steps: Floats) -> Floats:
    """Returns the same through a session of the service, [N, 1]."""
    stream = client.session(session, model=model)
    return np.stack([np.asarray(stream.step(x)).reshape(-1) for x in steps])
