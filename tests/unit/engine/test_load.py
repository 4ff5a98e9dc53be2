"""Which engine a bundle gets, and the error if it can get none."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cellkeeper_service.engine.cuda.device import cuda_devices
from cellkeeper_service.engine.load import load_engine, offline, warm
from cellkeeper_service.engine.nvidia import is_driver_installed
from cellkeeper_service.errors import StartError

from testing.bundles import make_bundle
from tests.unit.engine.cases import bundle_of


def test_chooses_by_model_and_device() -> None:
    assert load_engine(bundle_of("lstm"), "cpu", 4).name == "onnxruntime"
    assert load_engine(bundle_of("proj"), "cpu", 4).name == "torch"
    auto = load_engine(bundle_of("lstm"), "auto", 4)
    assert auto.device.startswith("cuda:0" if cuda_devices() else "cpu")


def test_weights_that_no_onnx_graph_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    weights_bytes = sum(tensor.nbytes for tensor in bundle_of("lstm").tensors.values())
    for most, name in ((weights_bytes, "onnxruntime"), (weights_bytes - 1, "torch")):
        monkeypatch.setattr("cellkeeper_service.engine.load.MOST_GRAPH_BYTES", most)
        assert load_engine(bundle_of("lstm"), "cpu", 4).name == name
    monkeypatch.setattr(importlib.util, "find_spec", lambda *_: None)
    with pytest.raises(StartError, match=r"model lstm with 0 MiB of weights needs torch, which is not installed"):
        load_engine(bundle_of("lstm"), "cpu", 4)


@pytest.mark.parametrize("device", ["gpu", "cuda", "cuda:x", "cuda:99", ""])
def test_a_device_that_is_not_there(device: str) -> None:
    with pytest.raises(StartError, match=r"^device: got"):
        load_engine(bundle_of("lstm"), device, 4)


@pytest.mark.parametrize(
    ("case", "device", "package"),
    [
        ("lstm", "cpu", "onnxruntime"),
        ("proj", "cpu", "torch"),
        ("lstm", "cuda:0", "torch"),
        ("lstm", "cuda:0", "triton"),
    ],
)
def test_a_package_that_is_missing(case: str, device: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec

    def without(name: str, *rest: Any) -> Any:
        return None if name == package else find(name, *rest)

    monkeypatch.setattr(importlib.util, "find_spec", without)
    with pytest.raises(StartError, match=rf"needs {package}, which is not installed; install cellkeeper"):
        load_engine(bundle_of(case), device, 4)


@pytest.mark.parametrize(
    "device",
    ["cpu", pytest.param("auto", marks=pytest.mark.skipif(is_driver_installed(), reason="torch looks for a device"))],
)
def test_the_cpu_engine_does_not_import_torch(device: str, tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "m")
    program = (
        "import sys, pathlib\n"
        "import cellkeeper_service.server.app\n"
        "from cellkeeper_service.engine.load import load_engine\n"
        "load_engine(pathlib.Path(sys.argv[1]), sys.argv[2], 2)\n"
        "found = [name for name in sys.modules if name in ('torch', 'triton') or 'engine.cuda' in name]\n"
        "sys.exit(' '.join(found) or 0)\n"
    )
    subprocess.run([sys.executable, "-c", program, str(folder), device], check=True, timeout=60)


def test_the_torch_engine_imports_nothing_of_the_gpu(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "m", proj_size=2)
    program = (
        "import sys, pathlib\n"
        "from cellkeeper_service.engine.load import load_engine\n"
        "load_engine(pathlib.Path(sys.argv[1]), 'cpu', 2)\n"
        "sys.exit(' '.join(name for name in sys.modules if name == 'triton' or 'engine.cuda' in name) or 0)\n"
    )
    subprocess.run([sys.executable, "-c", program, str(folder)], check=True, timeout=60)


def test_warm_measures_each_size() -> None:
    engine = load_engine(bundle_of("lstm"), "cpu", 20)
    seconds = warm(engine)
    assert list(seconds) == [1, 2, 4, 8, 16, 20]
    assert all(0 < value < 1 for value in seconds.values())


def test_offline_takes_long_sequences_and_paths() -> None:
    inputs = np.random.default_rng(2).standard_normal((700, 3)).astype(np.float32)
    bundle = bundle_of("lstm")
    whole = offline(bundle.path, inputs)
    assert whole["prediction"].shape == (700, 1)
    assert whole["state.c"].shape == (2, 24)
    np.testing.assert_array_equal(whole["hidden"][-1], whole["state.h"][-1])
    np.testing.assert_array_equal(offline(str(bundle.path), inputs)["prediction"], whole["prediction"])
    engine = load_engine(bundle, "cpu", 4)
    np.testing.assert_array_equal(offline(engine, inputs[:300])["prediction"], whole["prediction"][:300])


def test_unknown_outputs_and_rows_are_refused() -> None:
    for case in ("lstm", "proj"):
        engine = load_engine(bundle_of(case), "cpu", 4)
        engine.reserve(2)
        inputs = np.zeros((1, 2, 3), np.float32)
        rows = np.arange(2, dtype=np.intp)
        with pytest.raises(ValueError, match="outputs: got"):
            engine.run(inputs, rows, rows, frozenset(["nonsense"]))
        with pytest.raises((IndexError, RuntimeError)):
            engine.run(inputs, rows + 1, rows, frozenset())


@pytest.mark.parametrize("threads", [1, 4])
def test_a_call_has_as_many_threads_as_it_is_told(threads: int) -> None:
    """Left to itself, onnxruntime takes all cores of the machine, also of those of which a container has a share."""
    load_engine(bundle_of("lstm"), "cpu", 4)  # the first in a process starts a thread of onnxruntime's own
    before = set(os.listdir("/proc/self/task"))
    engine = load_engine(bundle_of("lstm"), "cpu", 4, threads)
    assert len(set(os.listdir("/proc/self/task")) - before) == threads - 1  # the caller's is the first
    assert engine.exact
