"""Where an ONNX graph runs: the choice, the messages when no GPU can be used, and what counts as a device failure."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import onnxruntime
import pytest
from cellkeeper_service.domain.engine import EngineLost
from cellkeeper_service.engine.load import load_engine
from cellkeeper_service.engine.nvidia import is_driver_installed
from cellkeeper_service.engine.onnx_device import CUDA_PROVIDER, GraphDevice, cuda_device, raise_if_lost
from cellkeeper_service.errors import StartError

from .driver import Cublas, Cudnn, Driver, install
from .test_user_graph import write

VERSION = onnxruntime.__version__
NO_PROVIDER = f"onnxruntime {VERSION} has no CUDAExecutionProvider for ONNX graphs"
DEVICE = GraphDevice("cuda:0 A GPU", "cuda", 0, "", CUDA_PROVIDER, keeps_states=True)

lacks_cuda = pytest.mark.skipif(
    CUDA_PROVIDER in onnxruntime.get_available_providers(), reason="this onnxruntime has the CUDA provider"
)
falls_back = pytest.mark.filterwarnings("ignore:Specified provider 'CUDAExecutionProvider' is not in available")


@pytest.fixture
def offered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes onnxruntime offer the CUDA provider, as its GPU package does on every machine."""
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA_PROVIDER, "CPUExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "cuda_version", "13.0", raising=False)
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: print("not for the operator"), raising=False)


@lacks_cuda
def test_a_package_without_the_provider(tmp_path: Path) -> None:
    with pytest.raises(StartError) as refused:
        load_engine(write(tmp_path / "m"), "cuda:0", 4)
    assert str(refused.value) == (
        f"device: got cuda:0, but {NO_PROVIDER}; uninstall onnxruntime and install cellkeeper[onnx-cuda], or choose cpu"
    )


@lacks_cuda
def test_auto_stays_on_the_cpu_and_says_so_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    install(monkeypatch, cuda=Driver(["A GPU"]))
    with caplog.at_level(logging.WARNING):
        assert load_engine(write(tmp_path / "m"), "auto", 4).device == "cpu"
    assert caplog.messages == [f"model sums: its ONNX graph runs on the CPU: {NO_PROVIDER}"]


@lacks_cuda
def test_a_machine_without_the_driver_is_no_news(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    install(monkeypatch)
    with caplog.at_level(logging.WARNING):
        assert load_engine(write(tmp_path / "m"), "auto", 4).device == "cpu"
    assert caplog.messages == []


@lacks_cuda
@pytest.mark.skipif(is_driver_installed(), reason="this machine has NVIDIA's driver")
def test_a_server_tells_its_operator_nothing_then(tmp_path: Path) -> None:
    """The server fails because of its store's URL, read after the models are loaded, and prints nothing else."""
    command = [sys.executable, "-m", "cellkeeper_service", "serve", str(write(tmp_path / "m").path), "--max-batch=4"]
    words = ["--store=nowhere:", "--listen=127.0.0.1:0", "--metrics-listen=127.0.0.1:0"]
    done = subprocess.run([*command, *words], capture_output=True, text=True, timeout=60, check=False)
    (line,) = done.stderr.splitlines()
    assert "store" in line


def test_the_cpu_by_choice_is_no_news(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert load_engine(write(tmp_path / "m"), "cpu", 4).device == "cpu"
    assert caplog.messages == []


@pytest.mark.usefixtures("offered")
@pytest.mark.parametrize(
    ("libraries", "why", "remedy"),
    [
        (
            {},
            "CUDA does not start (NVIDIA's driver is not installed: libcuda.so.1 is not found)",
            "check the driver with nvidia-smi",
        ),
        (
            {"cuda": Driver([], 100)},
            "CUDA does not start (cuInit fails with 100: no CUDA-capable device is detected)",
            "check the driver with nvidia-smi",
        ),
        ({"cuda": Driver(["A GPU"])}, "NVIDIA's driver finds 1 CUDA devices", "choose another"),
    ],
)
def test_a_device_that_is_not_there(
    libraries: dict[str, Driver], why: str, remedy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, **libraries)
    with pytest.raises(StartError) as refused:
        load_engine(write(tmp_path / "m"), "cuda:9", 4)
    assert str(refused.value) == f"device: got cuda:9, but {why}; {remedy}, or choose cpu"


@lacks_cuda
@falls_back
@pytest.mark.usefixtures("offered")
def test_a_provider_that_does_not_load(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """onnxruntime then falls back to the CPU, and only the session's list of providers tells."""
    install(monkeypatch, cuda=Driver(["A GPU"]))
    bundle = write(tmp_path / "m")
    why = f"onnxruntime {VERSION} cannot load its CUDAExecutionProvider, which needs CUDA 13.0 and cuDNN 9"
    with pytest.raises(StartError) as refused:
        load_engine(bundle, "cuda:0", 4)
    assert str(refused.value) == (
        f"device: got cuda:0 A GPU, but {why}; install them (onnxruntime-gpu[cuda,cudnn]), or choose cpu"
    )
    with caplog.at_level(logging.WARNING):
        assert load_engine(bundle, "auto", 4).device == "cpu"
    assert caplog.messages == [f"model sums: its ONNX graph runs on the CPU: {why}"]
    assert capsys.readouterr().out == ""


@pytest.mark.usefixtures("offered")
def test_what_decides_the_bits_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, cuda=Driver(["A GPU", "Another GPU"]), cublas=Cublas(), cudnn=Cudnn())
    device = cuda_device("cuda:1")
    assert device.versions == "CUDAExecutionProvider cuda 13.0 cublas 13.1.0 cudnn 9.10.2 Another GPU"
    assert device.name == "cuda:1 Another GPU"
    assert device.options == {
        "device_id": "1",
        "use_tf32": "0",
        "arena_extend_strategy": "kSameAsRequested",
        "cudnn_conv_algo_search": "DEFAULT",
    }
    install(monkeypatch, cuda=Driver(["A GPU"]))
    assert cuda_device("cuda:0").versions == "CUDAExecutionProvider cuda 13.0 cublas none cudnn none A GPU"


@pytest.mark.usefixtures("offered")
def test_how_much_memory_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is measured in the device's context, which is left as it was."""
    driver = Driver(["A GPU"])
    install(monkeypatch, cuda=driver)
    assert cuda_device("cuda:0").free_bytes == 60 << 30
    assert (driver.retained, driver.pushed) == (0, 0)
    driver.memory_error = 999
    with pytest.raises(EngineLost, match=r"^cuda:0 A GPU failed: cuMemGetInfo_v2 fails with 999: unknown error$"):
        _ = cuda_device("cuda:0").free_bytes
    assert (driver.retained, driver.pushed) == (0, 0)


@pytest.mark.parametrize("device", ["cpu", "cuda:0", "auto"])
def test_reduced_precision_is_refused(device: str, tmp_path: Path) -> None:
    with pytest.raises(StartError, match=r"^precision: got tf32, expected fp32 for sums: ONNX graphs have no other$"):
        load_engine(write(tmp_path / "m"), device, 4, precision="tf32")


@pytest.mark.parametrize(
    "text",
    [
        "[ONNXRuntimeError] : 1 : FAIL : CUDA failure 700: an illegal memory access was encountered ; GPU=0",
        "CUDNN failure 4000: CUDNN_STATUS_INTERNAL_ERROR ; GPU=0 ; hostname=a",
        "CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED ; GPU=0",
        "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Failed to allocate memory for requested buffer of size 4096",
    ],
)
def test_a_failure_of_the_device_is_not_one_of_the_call(text: str) -> None:
    with pytest.raises(EngineLost) as lost:
        raise_if_lost(DEVICE, RuntimeError(f"{text}\nand more"))
    assert str(lost.value) == f"cuda:0 A GPU failed: {text} and more"


def test_a_failure_of_the_call_alone() -> None:
    raise_if_lost(DEVICE, RuntimeError("[ONNXRuntimeError] : 2 : INVALID_ARGUMENT : Gather: index out of bounds"))
