"""Messages when CUDA cannot be used. torch's answers are replaced, so no device is needed."""

from __future__ import annotations

import gc
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from itertools import count
from threading import Lock
from types import SimpleNamespace
from typing import Any, ClassVar
from unittest.mock import Mock
from weakref import WeakSet

import pytest
import torch
import triton
from cellkeeper_service.domain.engine import EngineLost
from cellkeeper_service.engine.cuda import device as device_module
from cellkeeper_service.engine.cuda.device import TORCH_STREAMS, CaptureFailed, CudaDevice, OutOfDeviceMemory
from cellkeeper_service.engine.precision import PRECISIONS
from cellkeeper_service.errors import StartError
from triton.runtime.errors import OutOfResources, PTXASError

CAPTURE = ("capture_begin", "capture_end")


def answer(
    monkeypatch: pytest.MonkeyPatch, error: Exception | None = None, capability: tuple[int, int] = (9, 0)
) -> None:
    """Makes torch report one device."""

    def init() -> None:
        if error is not None:
            raise error

    numbers = count()
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    answers: dict[str, Any] = {
        "init": init,
        "device_count": lambda: 1,
        "get_device_name": lambda index: "A GPU",
        "get_device_capability": lambda index: capability,
        "device": lambda device: nullcontext(),
        "stream": lambda stream: nullcontext(),
        "Stream": lambda device: next(numbers) % TORCH_STREAMS,
        "current_stream": lambda: SimpleNamespace(synchronize=lambda: None),
        "graph_pool_handle": lambda: (0, next(numbers)),
    }
    for name, value in answers.items():
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(device_module, "_capture_streams", {})
    monkeypatch.setattr(device_module, "_devices", WeakSet())


def test_a_build_without_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(
        StartError, match=r"^device: got cuda:0, but torch .* is built without CUDA; install .* or choose cpu"
    ):
        CudaDevice("cuda:0")


def test_a_driver_that_is_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "The NVIDIA driver on your system is too old (found version 11040).\nPlease update your GPU driver"
    answer(monkeypatch, RuntimeError(text))
    with pytest.raises(StartError) as refused:
        CudaDevice("cuda:0")
    assert str(refused.value) == (
        "device: got cuda:0, but CUDA does not start (The NVIDIA driver on your system is too old (found version "
        "11040).); check the driver with nvidia-smi, update it if it is too old, or choose cpu"
    )


@pytest.mark.parametrize("number", [1, 9, 128, 255, 1000])  # torch.device keeps only 8 signed bits of it
def test_a_number_that_is_not_there(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    answer(monkeypatch)
    expected = rf"^device: got cuda:{number}, but torch finds 1 CUDA devices; choose another or cpu$"
    with pytest.raises(StartError, match=expected):
        CudaDevice(f"cuda:{number}")


def test_a_device_that_is_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, capability=(6, 1))
    with pytest.raises(StartError, match=r"^device: cuda:0 A GPU has compute capability 6.1, expected 7.0 or more"):
        CudaDevice("cuda:0")


def test_a_precision_that_the_device_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, capability=(7, 5))
    device = CudaDevice("cuda:0")
    device.check_precision("fp32")
    expected = r"^precision: got (tf32|bf16), but cuda:0 A GPU has compute capability 7.5 and \1 needs 8.0; choose "
    for precision in PRECISIONS[1:]:
        with pytest.raises(StartError, match=expected + "--precision fp32$"):
            device.check_precision(precision)
    answer(monkeypatch, capability=(8, 0))
    CudaDevice("cuda:0").check_precision("bf16")


def test_memory_that_runs_out_is_told_from_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """What needs less memory, such as a smaller arena, may still work."""
    answer(monkeypatch)
    device = CudaDevice("cuda:0")
    with pytest.raises(OutOfDeviceMemory, match=r"^cuda:0 A GPU failed: CUDA out of memory\.$"), device.entered():
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate")


def test_what_decides_the_bits_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch)
    assert CudaDevice("cuda:0").versions == f"torch {torch.__version__} triton {triton.__version__} cuda 13.0 A GPU"


@contextmanager
def on(entered: list[int | None], stream: int | None) -> Iterator[None]:
    """torch.cuda.stream: the last in `entered` is the current one; None leaves it as it is."""
    entered.append(stream if stream is not None or not entered else entered[-1])
    try:
        yield
    finally:
        entered.pop()


def own_stream(monkeypatch: pytest.MonkeyPatch, device: CudaDevice) -> int | None:
    entered: list[int | None] = []
    monkeypatch.setattr(torch.cuda, "stream", partial(on, entered))
    with device.entered():
        return entered[-1]


def capture_stream(monkeypatch: pytest.MonkeyPatch, device: CudaDevice) -> int | None:
    entered: list[int | None] = []
    during: list[int | None] = []
    monkeypatch.setattr(torch.cuda, "stream", partial(on, entered))
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: SimpleNamespace(replay=None, **dict.fromkeys(CAPTURE, Mock())))
    with device.entered():
        device.capture(lambda: during.append(entered[-1]))
    return during[0]


def test_models_have_streams_of_their_own_as_far_as_there_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """Graphs cannot be captured on the default stream, and another engine's calls are not waited for. torch has 32
    streams for a device, and gives them out in turn."""
    answer(monkeypatch)
    served = CudaDevice("cuda:0")
    own = own_stream(monkeypatch, served)
    assert own in range(TORCH_STREAMS)
    for _ in range(70):  # reloads of another model
        assert own_stream(monkeypatch, CudaDevice("cuda:0")) != own
    many = [CudaDevice("cuda:0") for _ in range(3 * (TORCH_STREAMS - 1) - 1)]
    users = Counter(own_stream(monkeypatch, one) for one in (served, *many))
    assert set(users.values()) == {3}


def test_no_model_is_served_on_the_stream_for_captures(monkeypatch: pytest.MonkeyPatch) -> None:
    """A capture would take in what a call of another model begins on that stream, and that call would fail."""
    answer(monkeypatch)
    devices = [CudaDevice("cuda:0") for _ in range(2 * TORCH_STREAMS)]
    captures = {capture_stream(monkeypatch, device) for device in devices}
    assert len(captures) == 1
    assert not captures & {own_stream(monkeypatch, device) for device in devices}


def test_one_graph_is_captured_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """They share the stream for captures."""
    answer(monkeypatch)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: SimpleNamespace(replay=None, **dict.fromkeys(CAPTURE, Mock())))
    lock = Lock()
    monkeypatch.setattr(device_module, "_capturing", lock)
    held: list[bool] = []
    CudaDevice("cuda:0").capture(lambda: held.append(lock.locked()))
    assert held == [True]
    assert not lock.locked()


def test_a_device_that_another_process_has_to_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch)
    monkeypatch.setattr(torch.cuda, "get_device_name", raises(RuntimeError("CUDA error: device busy\nCompile with")))
    with pytest.raises(EngineLost, match=r"^cuda:0 failed: CUDA error: device busy$"):
        CudaDevice("cuda:0")


def raises(error: Exception) -> Callable[..., Any]:
    def call(*_: Any) -> None:
        raise error

    return call


def test_memory_of_the_host_or_a_figure_that_cannot_be_had_is_a_lost_device(monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch)
    device = CudaDevice("cuda:0")
    with pytest.raises(EngineLost, match=r"^cuda:0 A GPU failed: [^\n]+$"):
        device.pinned(1 << 60)
    monkeypatch.setattr(torch.cuda, "mem_get_info", raises(RuntimeError("CUDA error: unspecified launch failure")))
    with pytest.raises(EngineLost, match=r"^cuda:0 A GPU failed: CUDA error: unspecified launch failure$"):
        device.free_bytes()


@pytest.mark.parametrize(
    ("error", "what"),
    [
        (
            RuntimeError("Failed to find C compiler. Please specify via CC environment variable"),
            "Failed to find C comp",
        ),
        (subprocess.CalledProcessError(1, ["gcc", "launcher.c"]), r"Command .* returned non-zero exit status 1\."),
        (PermissionError(13, "Permission denied", "/root/.triton"), r".* Permission denied: '/root/.triton'"),
        (OutOfResources(120_000, 101_376, "shared memory"), "out of resource: shared memory"),
        (PTXASError("no kernel image"), "PTXAS error: no kernel image"),
        (AssertionError("libcuda.so cannot found!\nPlease"), "libcuda.so cannot found!"),
    ],
)
def test_kernels_that_cannot_be_compiled(monkeypatch: pytest.MonkeyPatch, error: Exception, what: str) -> None:
    answer(monkeypatch)
    device = CudaDevice("cuda:0")
    expected = (
        rf"^device: Triton cannot compile or load its kernels for cuda:0 A GPU \({what}[^\n]*\); it needs a C compiler "
        r"\(CC\), Python's headers and a folder that it can write to \(TRITON_CACHE_DIR\); or choose cpu$"
    )
    with pytest.raises(StartError, match=expected), device.entered():
        device.compile(raises(error))


def test_a_device_that_fails_in_the_first_launch_is_not_taken_for_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch)
    device = CudaDevice("cuda:0")
    with (
        pytest.raises(EngineLost, match=r"^cuda:0 A GPU failed: CUDA error: an illegal memory access"),
        device.entered(),
    ):
        device.compile(raises(RuntimeError("CUDA error: an illegal memory access was encountered")))
    late = SimpleNamespace(synchronize=raises(RuntimeError("CUDA error: misaligned address")))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: late)
    with pytest.raises(EngineLost, match=r"^cuda:0 A GPU failed: CUDA error: misaligned address"), device.entered():
        device.compile(lambda: None)


def test_a_failure_that_triton_s_launch_reports_is_not_taken_for_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """When a kernel fails, Triton's next launch reports it in its own words."""
    answer(monkeypatch)
    device = CudaDevice("cuda:0")
    failed = SimpleNamespace(synchronize=raises(RuntimeError("CUDA error: an illegal memory access was encountered")))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: failed)
    with (
        pytest.raises(EngineLost, match=r"^cuda:0 A GPU failed: CUDA error: an illegal memory access"),
        device.entered(),
    ):
        device.compile(raises(RuntimeError("Triton Error [CUDA]: an illegal memory access was encountered")))


class Graph:
    """A CUDAGraph whose capture becomes invalid when a launch fails."""

    ended = 0

    def capture_begin(self, pool: Any = None, capture_error_mode: str = "global") -> None: ...

    def capture_end(self) -> None:
        Graph.ended += 1
        raise RuntimeError("CUDA error: operation failed due to a previous error during capture")


def test_a_capture_that_fails_names_the_cause_and_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch)
    device = CudaDevice("cuda:0")
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    with pytest.raises(CaptureFailed, match=r"^operation not permitted when stream is capturing$"):
        device.capture(raises(RuntimeError("operation not permitted when stream is capturing")))
    with pytest.raises(CaptureFailed, match="due to a previous error"):
        device.capture(lambda: None)
    assert Graph.ended == 2


class PooledGraph:
    """A CUDAGraph that rejects a pool whose graphs are gone, as torch 2.11 does: its allocator of pinned memory keeps
    such a pool, even after torch.cuda.empty_cache."""

    users: ClassVar[dict[Any, int]] = {}

    def capture_begin(self, pool: Any = None, capture_error_mode: str = "global") -> None:
        self._pool = pool or object()
        if self.users.get(self._pool) == 0:
            raise RuntimeError("it->second->use_count > 0 INTERNAL ASSERT FAILED")
        self.users[self._pool] = self.users.get(self._pool, 0) + 1

    def capture_end(self) -> None:
        self._ended = True

    def replay(self) -> None:
        assert self._ended

    def __del__(self) -> None:
        self.users[self._pool] -= 1


def test_graphs_can_be_captured_after_all_before_them_are_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """As when the arena is allocated at its final size, after the test at load."""
    answer(monkeypatch)
    device = CudaDevice("cuda:0")
    monkeypatch.setattr(torch.cuda, "CUDAGraph", PooledGraph)
    graphs = [device.capture(lambda: None) for _ in range(2)]
    graphs.clear()
    assert set(PooledGraph.users.values()) == {0}
    device.capture(lambda: None)()


class FragileGraph:
    """A CUDAGraph whose capture fails if another graph is freed meanwhile, as torch's does up to 2.11."""

    capturing: ClassVar[list[FragileGraph]] = []

    def __init__(self) -> None:
        self.valid = True

    def capture_begin(self, pool: Any = None, capture_error_mode: str = "global") -> None:
        self.capturing.append(self)

    def capture_end(self) -> None:
        self.capturing.remove(self)
        if not self.valid:
            raise RuntimeError("CUDA error: operation failed due to a previous error during capture")

    def replay(self) -> None: ...

    def __del__(self) -> None:
        for graph in self.capturing:
            graph.valid = False


def test_no_graph_is_freed_while_another_is_captured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python's garbage collector may run at any time, and free a graph of a model that is no longer served."""
    answer(monkeypatch)
    device = CudaDevice("cuda:0")
    monkeypatch.setattr(torch.cuda, "CUDAGraph", FragileGraph)

    def launch() -> None:
        retired: list[Any] = [FragileGraph()]
        retired.append(retired)
        del retired
        assert not gc.isenabled() or gc.collect()

    try:
        device.capture(launch)()
        assert gc.isenabled()
        gc.disable()
        device.capture(launch)()
        assert not gc.isenabled()
    finally:
        gc.enable()
        gc.collect()
