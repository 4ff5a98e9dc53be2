"""A machine with CUDA devices, faked: answers in place of those of NVIDIA's driver and CUDA's libraries."""

from __future__ import annotations

import ctypes
from typing import Any

import pytest


class Driver:
    """A fake libcuda. error: the CUDA error that cuInit returns."""

    def __init__(self, devices: list[str], error: int = 0) -> None:
        self._devices, self._error = devices, error
        self.memory_error = 0
        self.retained = self.pushed = 0  # contexts

    def cuInit(self, flags: int) -> int:
        return self._error

    def cuDeviceGetCount(self, count: Any) -> int:
        count._obj.value = len(self._devices)
        return 0

    def cuDeviceGet(self, device: Any, number: int) -> int:
        device._obj.value = number
        return 0

    def cuDeviceGetName(self, name: Any, size: int, device: Any) -> int:
        name.value = self._devices[device.value].encode()
        return 0

    def cuDevicePrimaryCtxRetain(self, context: Any, device: Any) -> int:
        self.retained += 1
        return 0

    def cuDevicePrimaryCtxRelease_v2(self, device: Any) -> int:
        self.retained -= 1
        return 0

    def cuCtxPushCurrent_v2(self, context: Any) -> int:
        self.pushed += 1
        return 0

    def cuCtxPopCurrent_v2(self, context: Any) -> int:
        self.pushed -= 1
        return 0

    def cuMemGetInfo_v2(self, free: Any, total: Any) -> int:
        if not (self.pushed and self.retained):
            return 201
        if self.memory_error:
            return self.memory_error
        free._obj.value, total._obj.value = 60 << 30, 80 << 30
        return 0

    def cuGetErrorString(self, code: int, text: Any) -> int:
        text._obj.value = {100: b"no CUDA-capable device is detected"}.get(code)
        return 0


class Cublas:
    def cublasGetProperty(self, part: int, number: Any) -> int:
        number._obj.value = (13, 1, 0)[part]
        return 0


class Cudnn:
    class cudnnGetVersion:
        restype: Any = ctypes.c_int

        def __new__(cls) -> Any:
            return 91002


def install(monkeypatch: pytest.MonkeyPatch, **libraries: Any) -> None:
    """Replaces the libraries. libraries: by the first word of the file name after "lib"; all others are missing."""

    def load(name: str) -> Any:
        word = name.removeprefix("lib").partition(".")[0]
        if word not in libraries:
            raise OSError(f"{name}: cannot open shared object file: No such file or directory")
        return libraries[word]

    monkeypatch.setattr("cellkeeper_service.engine.nvidia.ctypes.CDLL", load)
