"""A user's environment: `pip install .` brings the client, and nothing heavy."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SOURCES = ("proto", "client", "service", "pyproject.toml", "README.md", "LICENSE")
HEAVY = ("torch", "onnxruntime", "onnx", "redis", "prometheus_client", "safetensors", "keras", "h5py")
PACKAGES = ("cellkeeper_proto", "cellkeeper", "cellkeeper_service")

PROBE = f"""
import importlib.util, json, sys
import cellkeeper, cellkeeper.__main__
from cellkeeper import AsyncClient, Client
print(json.dumps({{
    "place": cellkeeper.__file__,
    "installed": [name for name in {HEAVY!r} if importlib.util.find_spec(name)],
    "imported": [name for name in ({HEAVY!r} + ("cellkeeper_service",)) if name in sys.modules],
}}))
"""


def shipped_files(folder: Path) -> set[str]:
    """Everything that a package needs at run time, by its path within `folder`."""
    kinds = {".py", ".pyi", ".proto", ".lua", ".typed", ".html", ".css", ".js", ".svg"}
    return {
        str(path.relative_to(folder)) for path in folder.rglob("*") if path.suffix in kinds or path.name == "py.typed"
    }


@pytest.mark.timeout(300)
def test_the_client_installs_without_anything_heavy(tmp_path: Path) -> None:
    # A copy: pip builds in the source folder, and leftovers of an earlier build there would be installed too.
    source = tmp_path / "source"
    source.mkdir()
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("*.egg-info", "__pycache__"))
        else:
            shutil.copy(ROOT / name, source / name)
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    install = [str(python), "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
    subprocess.run([*install, str(source), "-c", str(ROOT / "constraints.txt")], check=True)

    probe = subprocess.run([python, "-c", PROBE], cwd=tmp_path, check=True, capture_output=True, text=True)
    seen = json.loads(probe.stdout)
    site = Path(seen["place"]).parents[1]
    assert site.is_relative_to(tmp_path / "venv")
    assert seen["installed"] == []
    assert seen["imported"] == []
    for package, root in zip(PACKAGES, ("proto", "client", "service"), strict=True):
        assert shipped_files(site / package) == shipped_files(ROOT / root / package)
        assert (site / package / "py.typed").exists()
    for program in ("cellkeeper", "cellkeeper-server"):
        assert (tmp_path / "venv" / "bin" / program).exists()
