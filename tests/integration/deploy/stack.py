"""The compose project, brought up and taken down with the Makefile's own targets, beside whatever else runs here."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from testing.redis_server import free_port

ROOT = Path(__file__).parents[3]
PROJECT = "cellkeeper-check"
WAIT_SECONDS = 180.0


class CheckFailed(Exception):
    """What was to be shown is not so."""


class Stack:
    """make_words: further words for `make up` and `make down`: "COMPOSE_FILES=...", "BUILD_ARGS=..."."""

    def __init__(self, make_words: tuple[str, ...] = (), variables: Mapping[str, str] | None = None) -> None:
        self.grpc_port, self.prometheus_port = free_port(), free_port()
        self._make_words = make_words
        self._variables = {
            **os.environ,
            "COMPOSE_PROJECT_NAME": PROJECT,
            "GRPC_PORT": str(self.grpc_port),
            "PROMETHEUS_PORT": str(self.prometheus_port),
            "GRAFANA_PORT": str(free_port()),
            "COMPOSE_FILES": "docker-compose.yml",  # whatever a .env here says
            **(variables or {}),
        }

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.grpc_port}"

    def up(self) -> None:
        """Returns when the proxy has replicas to send to."""
        self._make("up")

    def down(self) -> None:
        self._make("down")

    def roll(self) -> None:
        """Replaces the replicas one by one."""
        self._make("roll")

    def back_up(self, file: Path) -> None:
        """Writes a snapshot of Redis."""
        self._make("backup", f"BACKUP={file}")

    def restore(self, file: Path) -> None:
        """Replaces what Redis holds by a snapshot."""
        self._make("restore", f"BACKUP={file}")

    def containers(self, service: str = "") -> list[str]:
        """Names of the project's containers, stopped ones too."""
        of_service = [f"--filter=label=com.docker.compose.service={service}"] if service else []
        return sorted(docker("ps", "--all", "--format={{.Names}}", self._label, *of_service).split())

    def ids(self, service: str) -> list[str]:
        """Of its containers; another container has another id, whatever its name."""
        return docker("ps", "--quiet", self._label, f"--filter=label=com.docker.compose.service={service}").split()

    def logs(self, service: str) -> str:
        """The last lines that its containers printed."""
        texts = []
        for name in self.containers(service):
            ran = subprocess.run(
                ["docker", "logs", "--tail=30", name], capture_output=True, text=True, errors="replace", check=False
            )
            texts.append(f"{name}:\n{ran.stdout}{ran.stderr}")
        return "\n".join(texts)

    def left(self) -> list[str]:
        """Whatever of the project Docker still knows."""
        volumes = docker("volume", "ls", "--quiet", self._label).split()
        networks = docker("network", "ls", "--format={{.Name}}", self._label).split()
        return self.containers() + volumes + networks

    def wait_healthy(self, service: str) -> None:
        """Until the health check of every container of a service passes."""

        def healthy() -> bool:
            names = self.containers(service)
            states = [docker("inspect", "--format={{.State.Health.Status}}", name).strip() for name in names]
            return bool(states) and all(state == "healthy" for state in states)

        wait_until(healthy, f"{service} to be healthy")

    @property
    def _label(self) -> str:
        return f"--filter=label=com.docker.compose.project={PROJECT}"

    def _make(self, target: str, *words: str) -> None:
        command = ["make", "--no-print-directory", target, *self._make_words, *words]
        if subprocess.run(command, cwd=ROOT, env=self._variables, check=False).returncode:
            raise CheckFailed(f"make {target} failed")


def docker(*words: str) -> str:
    """What the command printed. Raises CheckFailed with what it complained about."""
    ran = subprocess.run(["docker", *words], capture_output=True, text=True, check=False)
    if ran.returncode:
        raise CheckFailed(f"docker {' '.join(words)}: {ran.stderr.strip()}")
    return ran.stdout


def wait_until(condition: Callable[[], bool], what: str, seconds: float = WAIT_SECONDS) -> None:
    """Raises CheckFailed where it does not come about in time."""
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            raise CheckFailed(f"waited {seconds:.0f} s for {what}")
        time.sleep(0.25)
