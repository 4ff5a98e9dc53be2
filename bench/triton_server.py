"""Triton Inference Server from the wheel nvidia-pytriton, with the sequence batcher, for the same models."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path
from string import Template
from typing import Any

import grpc
import numpy as np
from cellkeeper_service.engine.graph import build_graph
from cellkeeper_service.model.bundle import read_bundle

from testing.redis_server import free_port

from .models import MODELS

START_TIMEOUT_S = 90.0
PARTS = Path(__file__).parent / "peers" / "triton"
FACTS = """
import json, sys, sysconfig
from importlib.metadata import version
print(json.dumps({
    "site": sysconfig.get_paths()["purelib"], "lib": sysconfig.get_config_var("LIBDIR") or "",
    "minor": f"{sys.version_info[0]}.{sys.version_info[1]}",
    "versions": {name: version(name) for name in ("nvidia-pytriton", "tritonclient", "onnxruntime", "grpcio", "numpy")},
}))
"""


class TritonServer:
    """Starts Triton servers. python: the interpreter of its virtual environment, which its client uses too."""

    def __init__(self, python: str, facts: dict[str, str], versions: dict[str, str], compute: str) -> None:
        self.python = python
        self._site, self._lib, self._minor = Path(facts["site"]), facts["lib"], facts["minor"]
        self._versions = versions
        self._compute = compute

    @classmethod
    def found(cls, venv: Path, compute: str) -> tuple[TritonServer | None, str]:
        """Returns the server, or None and why there is none. compute: onnxruntime or torch."""
        python = venv / "bin" / "python"
        if not python.exists():
            return None, f"no virtual environment in {venv}; `make bench-triton` makes it, TRITON_VENV names another"
        told = subprocess.run([str(python), "-c", FACTS], capture_output=True, text=True, check=False)
        if told.returncode:
            return None, f"{venv} lacks a part: {told.stderr.strip().splitlines()[-1]}; run `make bench-triton`"
        facts = json.loads(told.stdout)
        return cls(str(python), facts, facts.pop("versions"), compute), ""

    def notes(self) -> dict[str, str]:
        named = {f"triton {name}": value for name, value in self._versions.items()}
        return named | {"triton computes with": self._compute}

    def start(self, bundles: list[Path], folder: Path, running: ExitStack) -> tuple[str, subprocess.Popen[bytes]]:
        """Starts a server with these models in a new folder, and waits until it is ready.

        Returns its gRPC address and its process.
        """
        for bundle in bundles:
            self._write_model(bundle, folder / "models" / bundle.name)
        server = self._site / "pytriton" / "tritonserver"
        backends = folder / "backends"
        shutil.copytree(server / "backends", backends)
        shutil.copy(server / "python_backend_stubs" / self._minor / "triton_python_backend_stub", backends / "python")
        port = free_port()
        words = ["--model-repository", str(folder / "models"), "--backend-directory", str(backends)]
        words += ["--grpc-address", "127.0.0.1", "--grpc-port", str(port), "--allow-http", "false"]
        words += ["--allow-metrics", "false", "--allow-gpu-metrics", "false"]
        environment = os.environ | {
            "LD_LIBRARY_PATH": f"{self._site / 'nvidia_pytriton.libs'}:{self._lib}",
            "PATH": f"{Path(self.python).parent}:{os.environ.get('PATH', '')}",  # how its Python finds its packages
        }
        log = folder / "server.log"
        with log.open("w") as out:
            command = [str(server / "bin" / "tritonserver"), *words]
            process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=environment)
        running.callback(_end, process)
        target = f"127.0.0.1:{port}"
        _wait(target, process, log)
        return target, process

    def _write_model(self, bundle: Path, folder: Path) -> None:
        shape, version = MODELS[bundle.name], folder / "1"
        version.mkdir(parents=True)
        values = {"name": bundle.name, "features": shape.features, "compute": self._compute}
        (folder / "config.pbtxt").write_text(Template((PARTS / "config.pbtxt").read_text()).substitute(values))
        shutil.copy(PARTS / "model.py", version)
        (version / "shape.json").write_text(json.dumps(shape._asdict()))
        read = read_bundle(bundle)
        (version / "network.onnx").write_bytes(build_graph(read))
        tensors: dict[str, Any] = read.tensors
        np.savez(version / "weights.npz", **tensors)


def _wait(target: str, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + START_TIMEOUT_S
    with grpc.insecure_channel(target) as channel:
        ready = channel.unary_unary("/inference.GRPCInferenceService/ServerReady", bytes, bytes)
        while time.monotonic() < until and process.poll() is None:
            try:
                if ready(b"", timeout=1.0, wait_for_ready=True) == b"\x08\x01":  # ready: true
                    return
            except grpc.RpcError:
                pass
            time.sleep(0.05)
    said = [line[:400] for line in log.read_text(errors="replace").splitlines() if line[:1] not in "|+I"]
    raise RuntimeError("Triton did not become ready:\n" + "\n".join(said[-30:]))


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(10.0)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
