"""A small interface to CUDA: a stream, pinned memory, graphs, errors. The tests have a device of their own, on the
host, so that everything else is tested without a GPU."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Lock
from weakref import WeakSet

import torch
from torch import Tensor

from cellkeeper_service.domain.engine import EngineLost
from cellkeeper_service.engine.precision import Precision
from cellkeeper_service.errors import StartError

LEAST_CAPABILITY = (7, 0)  # the lowest compute capability that Triton supports
REDUCED_CAPABILITY = (8, 0)  # the lowest with tf32 and bf16
TORCH_STREAMS = 32  # of each device: torch gives them out in turn, and then the same ones again

_devices: WeakSet[CudaDevice] = WeakSet()
"""Those in use, of all models."""
_capture_streams: dict[int, torch.cuda.Stream] = {}
"""By the number of the device: the stream for all captures on it, which no model uses otherwise. A capture takes in
what any thread begins on its stream, and a call that waits for that stream fails."""
_choosing = Lock()  # streams
_capturing = Lock()


class OutOfDeviceMemory(EngineLost):
    """The device has too little free memory for an allocation."""


class CaptureFailed(Exception):
    """A launch cannot be captured as a graph, but can still run eagerly."""


class CudaDevice:
    """The device "cuda:N", with one stream, which runs everything begun within `entered` in order.

    name: such as "cuda:0 NVIDIA H100 80GB HBM3". versions: what decides the bits besides the kernels: torch, triton,
    CUDA, the device's model. Raises StartError if it cannot be used.
    """

    def __init__(self, device: str) -> None:
        _check_driver(device)
        count = torch.cuda.device_count()
        index = int(device.partition(":")[2] or 0)
        if index >= count:
            raise StartError(f"device: got {device}, but torch finds {count} CUDA devices; choose another or cpu")
        self.torch_device = torch.device("cuda", index)
        self.name = device
        with self.entered():
            model = torch.cuda.get_device_name(index)
            self._capability = torch.cuda.get_device_capability(index)
        self.name = f"{device} {model}"
        if self._capability < LEAST_CAPABILITY:
            raise StartError(
                f"device: {self.name} has compute capability {_dotted(self._capability)}, expected "
                f"{_dotted(LEAST_CAPABILITY)} or more; choose another or cpu"
            )
        from .kernels.compiler import TRITON_VERSION

        self.versions = f"torch {torch.__version__} triton {TRITON_VERSION} cuda {torch.version.cuda} {model}"
        with self.entered(), _choosing:
            self._stream = self._own_stream()
            _devices.add(self)

    @contextmanager
    def entered(self) -> Iterator[None]:
        """The context for every use of the device. Raises EngineLost if the device fails inside."""
        stream = getattr(self, "_stream", None)
        try:
            with torch.cuda.device(self.torch_device), torch.cuda.stream(stream):
                yield
        except torch.OutOfMemoryError as error:
            raise OutOfDeviceMemory(f"{self.name} failed: {first_line(error)}") from error
        except RuntimeError as error:  # from torch or Triton: nothing else in these blocks raises it
            raise EngineLost(f"{self.name} failed: {first_line(error)}") from error

    def check_precision(self, precision: Precision) -> None:
        """Raises StartError if the device does not support this precision."""
        if precision != "fp32" and self._capability < REDUCED_CAPABILITY:
            raise StartError(
                f"precision: got {precision}, but {self.name} has compute capability {_dotted(self._capability)} and "
                f"{precision} needs {_dotted(REDUCED_CAPABILITY)}; choose --precision fp32"
            )

    def pinned(self, size_bytes: int) -> Tensor:
        """Returns uint8 [size_bytes] of pinned host memory, which the device copies without blocking the caller."""
        with self.entered():
            return torch.empty(size_bytes, dtype=torch.uint8, pin_memory=True)

    def free_bytes(self) -> int:
        """Returns how many bytes of the device's memory are free."""
        with self.entered():
            return int(torch.cuda.mem_get_info(self.torch_device)[0])

    def compile(self, launch: Callable[[], None]) -> None:
        """Makes the very first `launch`, which compiles the kernels. Raises StartError if they cannot be compiled."""
        from .kernels.compiler import COMPILE_ERRORS

        try:
            launch()
            self.synchronize()  # so that a failing kernel fails here, and not in a capture
        except COMPILE_ERRORS as error:
            if isinstance(error, torch.OutOfMemoryError) or "CUDA error" in str(error):
                raise
            self.synchronize()  # raises if the device failed, which Triton's own launches report in other words
            raise StartError(
                f"device: Triton cannot compile or load its kernels for {self.name} ({first_line(error)}); it needs a "
                "C compiler (CC), Python's headers and a folder that it can write to (TRITON_CACHE_DIR); or choose cpu"
            ) from error

    def capture(self, launch: Callable[[], None]) -> Callable[[], None]:
        """Returns a function that repeats `launch` with the same addresses: the caller keeps the tensors there. Raises
        CaptureFailed."""
        graph = torch.cuda.CUDAGraph()
        try:
            # not torch.cuda.graph, which empties the allocator's cache before each of many graphs; and no pool for all
            # of them: they allocate nothing, and torch rejects one whose graphs have all been replaced
            stream = torch.cuda.stream(_capture_streams[self.torch_device.index])
            with _capturing, _no_garbage_collection(), stream:
                graph.capture_begin(capture_error_mode="thread_local")
                try:
                    launch()
                except RuntimeError:
                    with suppress(RuntimeError):  # says that the capture is invalid; the cause is what `launch` raised
                        graph.capture_end()
                    raise
                graph.capture_end()
        except RuntimeError as error:
            raise CaptureFailed(first_line(error)) from error
        return graph.replay

    def synchronize(self) -> None:
        """Waits until everything begun within `entered` is done; other threads can run in the meantime."""
        torch.cuda.current_stream().synchronize()

    def release(self) -> None:
        """Returns the memory of freed tensors to the device."""
        torch.cuda.empty_cache()

    def _own_stream(self) -> torch.cuda.Stream:
        """Returns the stream that the fewest other models use: a call waits for everything on its stream."""
        streams = [torch.cuda.Stream(self.torch_device) for _ in range(TORCH_STREAMS)]  # type: ignore[no-untyped-call]
        capture_stream = _capture_streams.setdefault(self.torch_device.index, streams[0])
        used = [other._stream for other in _devices]
        return min((stream for stream in streams if stream != capture_stream), key=used.count)


def cuda_devices() -> int:
    """Returns how many CUDA devices torch finds."""
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def first_line(error: BaseException) -> str:
    """Returns the first line of an error's text; CUDA's errors continue with advice on debugging kernels."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)[:300]


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Pauses Python's garbage collector. If it freed another graph in the thread that captures one, such as that of a
    model that is no longer served, the capture would fail: CUDA does not permit it there, and torch does not ask for an
    exception as of 2.11."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _check_driver(device: str) -> None:
    """Raises StartError if CUDA cannot be initialized at all."""
    if torch.version.cuda is None:
        raise StartError(
            f"device: got {device}, but torch {torch.__version__} is built without CUDA; install a build with CUDA or "
            "choose cpu"
        )
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
    except (RuntimeError, AssertionError) as error:
        raise StartError(
            f"device: got {device}, but CUDA does not start ({first_line(error)}); check the driver with nvidia-smi, "
            "update it if it is too old, or choose cpu"
        ) from error


def _dotted(capability: tuple[int, int]) -> str:
    return f"{capability[0]}.{capability[1]}"
