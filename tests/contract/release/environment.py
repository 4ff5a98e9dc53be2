"""Virtual environments with a built wheel installed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[3]
CONSTRAINTS = ROOT / "constraints.txt"
GRPC = ("grpcio", "grpcio-health-checking", "grpcio-reflection", "grpcio-status")
HEAVY = ("torch", "onnxruntime", "onnx", "redis", "prometheus_client", "safetensors", "keras", "h5py")

_PROBE = f"""
import importlib.util, json, sys
import cellkeeper, cellkeeper.__main__
from cellkeeper import AsyncClient, Client
print(json.dumps([
    cellkeeper.__file__,
    [name for name in {HEAVY!r} if importlib.util.find_spec(name)],
    [name for name in ({HEAVY!r} + ("cellkeeper_service",)) if name in sys.modules],
]))
"""


class Client(NamedTuple):
    """An environment after it has imported the client.

    site: the folder that the client is in. installed, imported: the large packages that can be imported, and that the
    client has imported.
    """

    site: Path
    installed: list[str]
    imported: list[str]


class Environment:
    """A virtual environment. python: its interpreter. pip: whether it gets its own pip.

    Without its own pip it is created faster, and the current interpreter's pip installs into it.
    """

    def __init__(self, folder: Path, python: Path = Path(sys.executable), *, pip: bool = True) -> None:
        self.folder = folder
        subprocess.run([python, "-m", "venv", *([] if pip else ["--without-pip"]), folder], check=True)
        self._pip: list[str | Path] = (
            [self.python, "-m", "pip"] if pip else [sys.executable, "-m", "pip", "--python", self.python]
        )

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    def program(self, name: str) -> Path:
        """Returns the path of a program that a package installed."""
        return self.folder / "bin" / name

    def install(self, wheel: Path, extra: str = "") -> None:
        """Installs the wheel and its dependencies as a user does, with the pins of constraints.txt."""
        what = f"{wheel}[{extra}]" if extra else str(wheel)
        self._install(what, "-c", CONSTRAINTS)

    def install_beside(self, wheel: Path) -> None:
        """Installs the wheel without dependencies, which come from the current interpreter's environment.

        Packages installed there in editable form are not seen, because .pth files in that folder are not read.
        """
        self._install("--no-deps", wheel)
        (site,) = self.folder.glob("lib/python*/site-packages")
        (site / "beside.pth").write_text(sysconfig.get_path("purelib") + "\n")

    def has_grpcio(self, release: str) -> bool:
        """Returns whether this release of grpcio ("newest": the newest) has a wheel for this Python."""
        wanted = "grpcio" if release == "newest" else f"grpcio=={release}"
        words = ["install", "--dry-run", "-qq", "--no-deps", "--only-binary", "grpcio", "--ignore-installed", wanted]
        return subprocess.run([*self._pip, *words], capture_output=True, check=False).returncode == 0

    def change_grpcio(self, wheel: Path, release: str) -> str:
        """Installs another release of grpcio and its companions for the server, and returns it.

        It is one that the wheel allows, or "newest", whatever the wheel allows.
        """
        if release == "newest":
            self._install("--upgrade", *GRPC)
        else:
            self._install(f"{wheel}[server]", *(f"{name}=={release}" for name in GRPC))  # with what goes with it
        probe = "from importlib.metadata import version; print(version('grpcio'))"
        ran = subprocess.run([self.python, "-c", probe], check=True, capture_output=True, text=True)
        return ran.stdout.strip()

    def client(self) -> Client:
        """Imports the client."""
        ran = subprocess.run([self.python, "-c", _PROBE], cwd=self.folder, check=True, capture_output=True, text=True)
        place, installed, imported = json.loads(ran.stdout)
        return Client(Path(place).parents[1], installed, imported)

    def check_public(self, extras: str) -> None:
        """Checks that pip finds what this checkout needs with these extras and the pins of constraints.txt, in the
        public index alone. Raises ValueError."""
        words: list[str | Path] = ["install", "--dry-run", "-qq", "-e", f"{ROOT}[{extras}]", "-c", CONSTRAINTS]
        own = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
        environment = own | {"PIP_CONFIG_FILE": os.devnull, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        ran = subprocess.run([*self._pip, *words], env=environment, capture_output=True, text=True, check=False)
        if ran.returncode:
            raise ValueError(f"the public index lacks what the tests need:\n{ran.stderr.strip()[-2000:]}")

    def _install(self, *words: str | Path) -> None:
        subprocess.run([*self._pip, "install", "-qq", "--disable-pip-version-check", *words], check=True)
