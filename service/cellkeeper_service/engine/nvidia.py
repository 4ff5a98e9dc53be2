"""Asks NVIDIA's driver and the CUDA libraries about themselves, through ctypes: onnxruntime does not tell, and torch
need not be installed."""

from __future__ import annotations

import ctypes
from typing import Any

from cellkeeper_service.errors import StartError

DRIVER = "libcuda.so.1"  # comes with the driver itself
CUDNN = "libcudnn.so.9"
NAME_BYTES = 256
VERSION_PARTS = (0, 1, 2)  # cublasGetProperty: major, minor, patch


class GraphDeviceMissing(StartError):
    """This device cannot run ONNX graphs here. why: the part of the message that does not name the requested device."""

    def __init__(self, device: str, why: str, remedy: str) -> None:
        super().__init__(f"device: got {device}, but {why}; {remedy}, or choose cpu")
        self.why = why


class DriverError(Exception):
    """The driver is missing, or a call failed. The message is part of one line."""


def is_driver_installed() -> bool:
    """Returns True if the driver is installed, without which there is no CUDA device. Does not initialize CUDA."""
    return _loaded(DRIVER) is not None


class CudaDriver:
    """The driver of this machine. Every method raises DriverError if the driver reports an error."""

    def __init__(self) -> None:
        try:
            self._library: Any = ctypes.CDLL(DRIVER)
        except OSError as error:
            raise DriverError(f"NVIDIA's driver is not installed: {DRIVER} is not found") from error
        self._call("cuInit", 0)

    def device_count(self) -> int:
        """Returns how many devices there are, as limited by CUDA_VISIBLE_DEVICES."""
        count = ctypes.c_int()
        self._call("cuDeviceGetCount", ctypes.byref(count))
        return count.value

    def model(self, number: int) -> str:
        """Returns the device's model, such as "NVIDIA H100 80GB HBM3"."""
        device, name = ctypes.c_int(), ctypes.create_string_buffer(NAME_BYTES)
        self._call("cuDeviceGet", ctypes.byref(device), number)
        self._call("cuDeviceGetName", name, NAME_BYTES, device)
        return name.value.decode(errors="replace")

    def free_bytes(self, number: int) -> int:
        """Returns how many bytes of the device's memory are free."""
        device, context = ctypes.c_int(), ctypes.c_void_p()
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        self._call("cuDeviceGet", ctypes.byref(device), number)
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
        try:
            self._call("cuCtxPushCurrent_v2", context)
            try:
                self._call("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
            finally:
                self._call("cuCtxPopCurrent_v2", ctypes.byref(context))
        finally:
            self._call("cuDevicePrimaryCtxRelease_v2", device)
        return free.value

    def _call(self, function: str, *arguments: Any) -> None:
        code: int = getattr(self._library, function)(*arguments)
        if code:
            text = ctypes.c_char_p()
            self._library.cuGetErrorString(code, ctypes.byref(text))
            what = text.value.decode(errors="replace") if text.value else "unknown error"
            raise DriverError(f"{function} fails with {code}: {what}")


def library_versions(cuda_version: str) -> str:
    """Returns the versions of cuBLAS and cuDNN that this process loads, such as "cublas 12.8.4 cudnn 9.10.2"; "none"
    for one that is missing. cuda_version: the one that onnxruntime is built for, such as "12.8"."""
    return f"cublas {_cublas_version(cuda_version)} cudnn {_cudnn_version()}"


def _cublas_version(cuda_version: str) -> str:
    library = _loaded(f"libcublas.so.{cuda_version.partition('.')[0]}")
    if library is None:
        return "none"
    numbers = [ctypes.c_int() for _ in VERSION_PARTS]
    for part, number in zip(VERSION_PARTS, numbers, strict=True):
        library.cublasGetProperty(part, ctypes.byref(number))
    return ".".join(str(number.value) for number in numbers)


def _cudnn_version() -> str:
    library = _loaded(CUDNN)
    if library is None:
        return "none"
    library.cudnnGetVersion.restype = ctypes.c_size_t
    major, rest = divmod(int(library.cudnnGetVersion()), 10_000)  # since cuDNN 9
    return f"{major}.{rest // 100}.{rest % 100}"


def _loaded(name: str) -> Any:
    try:
        return ctypes.CDLL(name)
    except OSError:
        return None
