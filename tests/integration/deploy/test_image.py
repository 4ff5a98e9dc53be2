"""The image for a GPU: runs its commands, with programs in their place that record their arguments."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.integration.deploy.stack import ROOT

TRITON_OF_TORCH = {"2.11.0": "3.6.0", "2.12.0": "3.7.0", "2.13.0": "3.7.1"}  # what torch's CUDA builds require


def commands(word: str) -> list[str]:
    """Returns the RUN commands of the Dockerfile that contain the word."""
    text = (ROOT / "service" / "Dockerfile").read_text().replace("\\\n", " ")
    return [line for line in re.findall(r"^RUN (.*)$", text, re.MULTILINE) if word in line]


def run(command: str, device: str, folder: Path, path: str) -> None:
    subprocess.run(["/bin/bash", "-c", command], check=True, cwd=folder, env={"DEVICE": device, "PATH": path})


def test_torch_and_triton_are_pinned_to_releases_that_go_together() -> None:
    """Otherwise pip can install neither the image for a GPU nor, where it is not offered a CPU build, the tests."""
    pins = dict(re.findall(r"^(torch|triton)==([\w.]+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    assert TRITON_OF_TORCH[pins["torch"]] == pins["triton"]


def test_what_the_page_copies_into_an_image_is_in_its_context() -> None:
    """The clone's .dockerignore leaves out all that the service's own image does not need, such as a bundle."""
    page = (ROOT / "docs" / "deployment.md").read_text()
    taken = re.findall(r"^!(.*)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE)
    copied = re.findall(r"COPY (\S+) .*\| docker build .* -f - (\S+)$", page, re.MULTILINE)
    assert copied
    assert [source for source, context in copied if context == "." and source not in taken] == []


@pytest.mark.parametrize(("device", "expected"), [("cuda", {"gcc", "libc6-dev"}), ("cpu", set())])
def test_only_the_image_for_a_gpu_has_a_c_compiler(tmp_path: Path, device: str, expected: set[str]) -> None:
    for name in ("apt-get", "rm"):
        (tmp_path / name).write_text(f'#!/bin/bash\necho {name} "$@" >>{tmp_path}/asked\n')
        (tmp_path / name).chmod(0o755)
    (tmp_path / "asked").touch()
    for command in commands("apt-get"):
        run(command, device, tmp_path, str(tmp_path))
    asked = [line.split() for line in (tmp_path / "asked").read_text().splitlines()]
    installed = {word for words in asked if words[:2] == ["apt-get", "install"] for word in words[2:] if word[0] != "-"}
    assert installed == expected
