"""Several devices: a process for each, all on one port."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
from cellkeeper import Client

from testing.bundles import make_bundle
from testing.forked_program import run_forked
from testing.server_process import ServerProcess

ROOT = Path(__file__).parents[3]
ON_TEST_DEVICES = f"""
import sys

sys.path.append({str(ROOT)!r})
from cellkeeper_service.engine.cuda import device, engine
from tests.unit.cuda.double import FailingDevice, TorchKernelCells


class Device(FailingDevice):
    def __init__(self, name):
        super().__init__()
        self.name = self.versions = name


device.CudaDevice, engine.KernelCells = Device, TorchKernelCells
"""


def test_every_device_has_a_process_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(ON_TEST_DEVICES)
    bundle = make_bundle(tmp_path / "m", name="m")
    variables = {"PYTHONPATH": os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH", "")]))}
    words = ["--device", "cuda:0,cuda:1", "--max-batch", "4", "--arena-mib", "1"]
    with ServerProcess([bundle], f"sqlite:{tmp_path / 'store.db'}", words, variables) as server:
        server.wait_for(r"metrics on (\S+)")  # of the second; `start` has waited for the first
        served = [re.search(r"double (\S+) min_batch", line) for line in server.lines if line.startswith("model m ")]
        assert sorted(found[1] for found in served if found) == ["cuda:0", "cuda:1"]
        with Client(server.target) as client:
            assert client.session("s").step(np.zeros(3, np.float32)).shape == (1,)
            model = client.model()
        assert model.exact
        assert 0 < model.tolerance < 1e-5
        shown = run_forked("cellkeeper", ["model", "show"], os.environ | {"CELLKEEPER_ENDPOINT": server.target}, 60)
        assert re.search(r"^exact +yes\ntolerance +\S+ from float64$", shown.out, re.MULTILINE)
