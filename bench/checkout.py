"""The project at one commit: its service and its client run from the commit's own files."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .machine import commit

ROOT = Path(__file__).parents[1]
SOURCES = ("proto", "client", "service")
PACKAGES = ("cellkeeper_proto", "cellkeeper", "cellkeeper_service")
_WHERE = (
    "import importlib, sys; print(*[list(importlib.import_module(n).__path__)[0] for n in sys.argv[1:]], sep='\\n')"
)


class CheckoutError(Exception):
    """The commit cannot be run. The text is one line that says why."""


@dataclass(frozen=True, slots=True)
class Checkout:
    """One commit, and what runs it.

    name: the commit, with "+" if files differ from it. root: the folder with its files. python: the interpreter of its
    server and of its official client. environment: variables that only they have.
    """

    name: str
    root: Path
    python: str = sys.executable
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def variables(self) -> dict[str, str]:
        """The environment in which Python finds this commit's packages before any installed ones."""
        return {**self.environment, "PYTHONPATH": self.path}

    @property
    def path(self) -> str:
        return os.pathsep.join(str(self.root / source) for source in SOURCES)

    def check(self) -> None:
        """Checks that its packages are the ones that get imported. Raises CheckoutError.

        Otherwise the installed ones would be measured.
        """
        command = [self.python, "-c", _WHERE, *PACKAGES]
        environment = {**os.environ, **self.variables}
        try:
            found = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=self.root, check=False)
        except OSError as error:
            raise CheckoutError(f"{self.name}: {self.python} cannot be started: {error.strerror}") from error
        if found.returncode:
            raise CheckoutError(f"{self.name}: its packages cannot be imported: {last_line(found.stderr)}")
        for name, path in zip(PACKAGES, found.stdout.splitlines(), strict=True):
            if not Path(path).is_relative_to(self.root):
                raise CheckoutError(f"{self.name}: {name} comes from {path}, expected a folder of {self.root}")

    def write_model(self, folder: Path, model: str) -> Path:
        """Writes the bundle of a bench model with this commit's own bench, and returns it. Raises CheckoutError."""
        code = "import sys; from pathlib import Path; from bench.weights import write_model; "
        code += "write_model(Path(sys.argv[1]), sys.argv[2])"
        command = [sys.executable, "-c", code, str(folder), model]
        wrote = subprocess.run(
            command, env={**os.environ, **self.variables}, capture_output=True, text=True, cwd=self.root, check=False
        )
        if wrote.returncode:
            raise CheckoutError(f"{self.name}: its bench cannot write {model}: {last_line(wrote.stderr)}")
        return folder / model


def this_checkout(python: str = sys.executable, environment: Mapping[str, str] | None = None) -> Checkout:
    """Returns the files as they are now, committed or not. python, environment: as in Checkout."""
    return Checkout(commit(), ROOT, python, environment or {})


def earlier(revision: str, folder: Path) -> Checkout:
    """Writes the files of a commit to `folder`. revision: any name that git has for it. Raises CheckoutError."""
    named = _git("rev-parse", "--verify", "--short=12", f"{revision}^{{commit}}")
    if named.returncode:
        raise CheckoutError(f"REV: got {revision!r}, expected a commit of this repository")
    name = named.stdout.decode().strip()
    archive = _git("archive", "--format=tar", name)
    if archive.returncode:
        raise CheckoutError(f"{name}: git archive failed: {last_line(archive.stderr.decode())}")
    root = folder / name
    root.mkdir()
    subprocess.run(["tar", "-x", "-C", str(root)], input=archive.stdout, check=True)
    return Checkout(name, root.resolve())


def last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else "it printed nothing"


def _git(*words: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, check=False)
