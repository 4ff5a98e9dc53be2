"""`python -m tests.unit.cuda.failing_server USES WORDS...`: runs `cellkeeper-server WORDS` on a test device.

The device serves USES uses, then fails within the next. USES is "start" if it fails while the model is loaded. As with
torch, the process is aborted if it frees pinned memory of a device that has failed.
"""

from __future__ import annotations

import os
import sys
from typing import Any
from weakref import finalize

import torch
from cellkeeper_service import program
from cellkeeper_service.engine.cuda import device as device_module
from cellkeeper_service.engine.cuda import engine as engine_module
from cellkeeper_service.server import app

from .double import FailingDevice, TorchKernelCells

WHILE_LOADING = 20  # uses of the device


class Device(FailingDevice):
    def pinned(self, size_bytes: int) -> torch.Tensor:
        memory = super().pinned(size_bytes)
        finalize(memory, self._freed)
        return memory

    def _freed(self) -> None:
        if self.failed:
            os.abort()


device = Device(memory_bytes=8 << 20)
announce = app.announce


def arm(*arguments: Any) -> None:
    announce(*arguments)
    device.arm(int(sys.argv[1]))


if sys.argv[1] == "start":
    device.arm(WHILE_LOADING)
vars(app)["announce"] = arm
vars(device_module)["CudaDevice"] = lambda name: device
vars(engine_module)["KernelCells"] = TorchKernelCells
sys.exit(program.run(sys.argv[2:]))
