"""`make gpu-packages`: the packages that it collects fit together, since they are those that the tests run with."""

from __future__ import annotations

import subprocess
from importlib.metadata import version
from pathlib import Path

SCRIPT = Path(__file__).parents[3] / "scripts" / "gpu-packages"
GENERATED = ("googleapis-common-protos", "grpcio-health-checking", "grpcio-reflection", "grpcio-status")


def pip(folder: Path, installed: list[str]) -> Path:
    """Returns a pip that lists these packages and records what it is asked to install."""
    program = folder / "pip"
    (folder / "installed").write_text("\n".join(installed) + "\n")
    program.write_text(
        '#!/usr/bin/env bash\ncd "${0%/*}"\n'
        'if [ "$1" = freeze ]; then cat installed; else printf \'%s\\n\' "$@" >words; fi\n'
    )
    program.chmod(0o755)
    return program


def run(program: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [SCRIPT, program, program.parent / "packages"], capture_output=True, text=True, check=False, timeout=60
    )


def test_generated_code_and_its_runtime_have_the_versions_of_the_tests(tmp_path: Path) -> None:
    names = (*GENERATED, "grpcio", "protobuf", "prometheus_client", "redis", "typing_extensions")
    installed = [f"{name}=={version(name)}" for name in names]
    done = run(pip(tmp_path, [*installed, "protobuf-of-another==1.0"]))
    assert done.returncode == 0, done.stderr
    words = (tmp_path / "words").read_text().split()
    assert {word for word in words if "==" in word} == set(installed)


def test_a_package_that_is_missing_is_named(tmp_path: Path) -> None:
    done = run(pip(tmp_path, ["grpcio==1.85.1"]))
    assert done.returncode == 1
    assert "has no grpcio-health-checking; make it with `make venv`" in done.stderr
    assert not (tmp_path / "words").exists()
