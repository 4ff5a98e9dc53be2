"""Where onnxruntime runs a user's graph: on the CPU, or on a GPU through its CUDA provider."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import onnxruntime

from cellkeeper_service.domain.engine import EngineLost

from .device_missing import GraphDeviceMissing
from .numerics import instruction_set

if TYPE_CHECKING:
    from .nvidia import CudaDriver

CPU_PROVIDER = "CPUExecutionProvider"
CUDA_PROVIDER = "CUDAExecutionProvider"
CUDA_OPTIONS = {
    "use_tf32": "0",  # products are IEEE float32, as everywhere where no reduced precision was asked for
    "arena_extend_strategy": "kSameAsRequested",  # a power of two may be twice what the states need
    "cudnn_conv_algo_search": "DEFAULT",  # the same algorithm for every batch; the others measure, or go by the size
}

# onnxruntime's errors have no types that tell a device's failure from a call's: macros of its CUDA provider write these
_DEVICE_FAILED = re.compile(
    r"\b(CUDA|CUDNN|CUBLAS|CUFFT|CURAND|CUSPARSE)(_STATUS| failure| error)|Failed to allocate memory", re.IGNORECASE
)


@dataclass(frozen=True)
class GraphDevice:
    """name: "cpu", or such as "cuda:0 NVIDIA H100 80GB HBM3". kind and number: as onnxruntime names the device.
    versions: what decides the bits. provider: onnxruntime's, with its options. keeps_states: they stay in its memory
    between calls. driver: what tells how much of that is free."""

    name: str
    kind: str
    number: int
    versions: str
    provider: str
    options: Mapping[str, str] = field(default_factory=dict)
    keeps_states: bool = False
    driver: CudaDriver | None = None

    @property
    def free_bytes(self) -> int | None:
        """Of its own memory; None where states are in the host's. Raises EngineLost."""
        if self.driver is None:
            return None
        from .nvidia import DriverError

        try:
            return self.driver.free_bytes(self.number)
        except DriverError as error:
            raise EngineLost(f"{self.name} failed: {error}") from error


def cpu_device() -> GraphDevice:
    return GraphDevice("cpu", "cpu", 0, instruction_set(), CPU_PROVIDER)


def cuda_device(device: str) -> GraphDevice:
    """device: "cuda:N". Raises GraphDeviceMissing: one line that says what to do."""
    version = onnxruntime.__version__
    if CUDA_PROVIDER not in onnxruntime.get_available_providers():
        raise GraphDeviceMissing(
            device,
            f"onnxruntime {version} has no {CUDA_PROVIDER} for ONNX graphs",
            "uninstall onnxruntime and install cellkeeper[onnx-cuda]",
        )
    from .nvidia import CudaDriver, DriverError, library_versions

    number = int(device.partition(":")[2])
    try:
        driver = CudaDriver()
        count = driver.device_count()
        if number >= count:
            raise GraphDeviceMissing(device, f"NVIDIA's driver finds {count} CUDA devices", "choose another")
        model = driver.model(number)
    except DriverError as error:
        raise GraphDeviceMissing(
            device, f"CUDA does not start ({error})", "check the driver with nvidia-smi"
        ) from error
    cuda_version = getattr(onnxruntime, "cuda_version", "")
    if hasattr(onnxruntime, "preload_dlls"):  # since 1.21: finds what pip has installed of CUDA and cuDNN
        with redirect_stdout(io.StringIO()):  # it prints what it misses; `check_provider` tells whether that matters
            onnxruntime.preload_dlls()
    versions = f"{CUDA_PROVIDER} cuda {cuda_version} {library_versions(cuda_version)} {model}"
    options = {"device_id": str(number), **CUDA_OPTIONS}
    return GraphDevice(f"{device} {model}", "cuda", number, versions, CUDA_PROVIDER, options, True, driver)


def check_provider(device: GraphDevice, session: Any) -> None:
    """onnxruntime goes on with the CPU alone where a provider's libraries do not load. Raises GraphDeviceMissing."""
    if session.get_providers()[0] != device.provider:
        raise GraphDeviceMissing(
            device.name,
            f"onnxruntime {onnxruntime.__version__} cannot load its {device.provider}, which needs CUDA "
            f"{getattr(onnxruntime, 'cuda_version', '')} and cuDNN 9",
            "install them (onnxruntime-gpu[cuda,cudnn])",
        )


def lost(device: GraphDevice, error: Exception) -> EngineLost | None:
    """What the failure of a call means for the process: None where the call alone failed."""
    if not device.keeps_states or not _DEVICE_FAILED.search(str(error)):
        return None
    return EngineLost(f"{device.name} failed: {' '.join(str(error).split())[:300]}")
