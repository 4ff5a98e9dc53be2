"""`python -m tests.unit.cuda.failing_server USES WORDS...`: runs `cellkeeper-server WORDS` on a test device.

The device serves USES uses, then fails within the next.
"""

from __future__ import annotations

import sys
from typing import Any

from cellkeeper_service import __main__
from cellkeeper_service.engine.cuda import device as device_module
from cellkeeper_service.engine.cuda import engine as engine_module
from cellkeeper_service.server import app

from .double import FailingDevice, TorchKernelCells

device = FailingDevice(memory_bytes=8 << 20)
announce = app.announce


def arm(*arguments: Any) -> None:
    announce(*arguments)
    device.arm(int(sys.argv[1]))


vars(app)["announce"] = arm
vars(device_module)["CudaDevice"] = lambda name: device
vars(engine_module)["KernelCells"] = TorchKernelCells
sys.exit(__main__.run(sys.argv[2:]))
