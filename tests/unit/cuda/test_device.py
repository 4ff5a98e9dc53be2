"""What is said where CUDA cannot be used. torch's answers are replaced: no device is needed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from cellkeeper_service.engine.cuda.device import CudaDevice
from cellkeeper_service.errors import StartError


def answer(
    monkeypatch: pytest.MonkeyPatch, error: Exception | None = None, capability: tuple[int, int] = (9, 0)
) -> None:
    """torch says that it has one device."""

    def init() -> None:
        if error is not None:
            raise error

    monkeypatch.setattr(torch.version, "cuda", "13.0")
    answers: dict[str, Any] = {
        "init": init,
        "device_count": lambda: 1,
        "get_device_name": lambda index: "A GPU",
        "get_device_capability": lambda index: capability,
    }
    for name, value in answers.items():
        monkeypatch.setattr(torch.cuda, name, value)


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
        "11040).); check the driver with nvidia-smi, update it where it is too old, or choose cpu"
    )


def test_a_number_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch)
    with pytest.raises(StartError, match=r"^device: got cuda:9, torch finds 1 CUDA devices; choose another or cpu$"):
        CudaDevice("cuda:9")


def test_a_device_that_is_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, capability=(6, 1))
    with pytest.raises(StartError, match=r"^device: cuda:0 A GPU has compute capability 6.1, expected 7.0 or more"):
        CudaDevice("cuda:0")
