"""Where and how onnxruntime runs a user's graph: on the CPU, or on a GPU through its CUDA provider."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnxruntime
from onnxruntime import OrtValue

from cellkeeper_service.domain.engine import EngineLost

from .numerics import instruction_set
from .nvidia import CudaDriver, DriverError, GraphDeviceMissing, library_versions

CPU_PROVIDER = "CPUExecutionProvider"
CUDA_PROVIDER = "CUDAExecutionProvider"
CUDA_OPTIONS = {
    "use_tf32": "0",  # products are IEEE float32, as everywhere unless reduced precision was requested
    "arena_extend_strategy": "kSameAsRequested",  # rounding up to a power of two may double what the states need
    "cudnn_conv_algo_search": "DEFAULT",  # the same algorithm for every batch; others depend on timing or the size
}

# onnxruntime's error types do not tell a device's failure from a call's; these texts come from its CUDA provider
_DEVICE_FAILED = re.compile(
    r"\b(CUDA|CUDNN|CUBLAS|CUFFT|CURAND|CUSPARSE)(_STATUS| failure| error)|Failed to allocate memory", re.IGNORECASE
)


@dataclass(frozen=True)
class GraphDevice:
    """A device for ONNX graphs.

    name: "cpu", or a text such as "cuda:0 NVIDIA H100 80GB HBM3". kind, number: onnxruntime's names for the device.
    versions: what decides the bits. provider, options: onnxruntime's. keeps_states: states stay in the device's memory
    between calls. driver: tells how much of that memory is free.
    """

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
        """Free bytes of the device's own memory; None if states are in host memory. Raises EngineLost."""
        if self.driver is None:
            return None
        try:
            return self.driver.free_bytes(self.number)
        except DriverError as error:
            raise EngineLost(f"{self.name} failed: {error}") from error


HOST = None  # fetches a result to the host
Fetches = Mapping[str, GraphDevice | OrtValue | None]


def cpu_device() -> GraphDevice:
    return GraphDevice("cpu", "cpu", 0, instruction_set(), CPU_PROVIDER)


def cuda_device(device: str) -> GraphDevice:
    """Returns the device "cuda:N". Raises GraphDeviceMissing, whose one line says what to do."""
    version = onnxruntime.__version__
    if CUDA_PROVIDER not in onnxruntime.get_available_providers():
        raise GraphDeviceMissing(
            device,
            f"onnxruntime {version} has no {CUDA_PROVIDER} for ONNX graphs",
            "uninstall onnxruntime and install cellkeeper[onnx-cuda]",
        )
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
    if hasattr(onnxruntime, "preload_dlls"):  # since 1.21; finds CUDA and cuDNN installed by pip
        with redirect_stdout(io.StringIO()):  # it prints what it does not find; `check_provider` tells if that matters
            onnxruntime.preload_dlls()
    versions = f"{CUDA_PROVIDER} cuda {cuda_version} {library_versions(cuda_version)} {model}"
    options = {"device_id": str(number), **CUDA_OPTIONS}
    return GraphDevice(f"{device} {model}", "cuda", number, versions, CUDA_PROVIDER, options, True, driver)


def check_provider(device: GraphDevice, session: Any) -> None:
    """Raises GraphDeviceMissing if onnxruntime fell back to the CPU because it could not load the provider."""
    if session.get_providers()[0] != device.provider:
        raise GraphDeviceMissing(
            device.name,
            f"onnxruntime {onnxruntime.__version__} cannot load its {device.provider}, which needs CUDA "
            f"{getattr(onnxruntime, 'cuda_version', '')} and cuDNN 9",
            "install them (onnxruntime-gpu[cuda,cudnn])",
        )


def raise_if_lost(device: GraphDevice, error: Exception) -> None:
    """Raises EngineLost if the error means that the device failed, and not only the call."""
    if device.keeps_states and _DEVICE_FAILED.search(str(error)):
        raise EngineLost(f"{device.name} failed: {' '.join(str(error).split())[:300]}") from error


def call(session: Any, device: GraphDevice, feeds: Mapping[str, Any], fetches: Fetches) -> list[Any]:
    """Runs the session, and returns the results in the order of `fetches`. Raises EngineLost if the device fails.

    session: on `device`. feeds: numpy arrays, which are copied to where the graph needs them, or OrtValues. fetches: by
    output name, HOST for a numpy array, the device for an OrtValue that stays there, or an OrtValue whose memory
    receives the result.
    """
    if not device.keeps_states:  # all values are on the host, and a binding costs as much as a small graph
        results: list[Any] = session.run(list(fetches), feeds)
        return results
    binding = session.io_binding()
    try:
        for name, value in feeds.items():
            given = value if isinstance(value, OrtValue) else OrtValue.ortvalue_from_numpy(np.asarray(value, order="C"))
            binding.bind_ortvalue_input(name, given)
        for name, place in fetches.items():
            if isinstance(place, OrtValue):
                binding.bind_ortvalue_output(name, place)
            elif place is HOST:
                binding.bind_output(name)
            else:
                binding.bind_output(name, place.kind, place.number)
        binding.synchronize_inputs()
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()
        return [
            result.numpy() if place is HOST else result
            for place, result in zip(fetches.values(), binding.get_outputs(), strict=True)
        ]
    except Exception as error:  # onnxruntime's errors have no public base class
        raise_if_lost(device, error)
        raise
