"""The compose project, started and stopped by the Makefile's own targets, beside whatever else runs on the machine."""

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
    """A check's expectation does not hold."""


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
            "COMPOSE_FILES": "docker-compose.yml",  # whatever a local .env says
            **(variables or {}),
        }

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.grpc_port}"

    def up(self) -> None:
        """Starts the project. Returns when the proxy has replicas to send to."""
        self._make("up")

    def down(self) -> None:
        self._make("down")

    def scale(self, replicas: int) -> None:
        """Changes the number of replicas, for as long as no other command does."""
        self._make("scale", f"REPLICAS={replicas}")

    def roll(self) -> None:
        """Replaces the replicas one by one."""
        self._make("roll")

    def back_up(self, file: Path) -> None:
        """Writes a snapshot of Redis."""
        self._make("backup", f"BACKUP={file}")

    def restore(self, file: Path) -> None:
        """Replaces Redis' content by a snapshot."""
        self._make("restore", f"BACKUP={file}")

    def containers(self, service: str = "") -> list[str]:
        """Returns the names of the project's containers, including stopped ones."""
        of_service = [f"--filter=label=com.docker.compose.service={service}"] if service else []
        return sorted(docker("ps", "--all", "--format={{.Names}}", self._label, *of_service).split())

    def ids(self, service: str) -> list[str]:
        """Returns the ids of a service's containers; a new container has a new id, whatever its name."""
        return docker("ps", "--quiet", self._label, f"--filter=label=com.docker.compose.service={service}").split()

    def logs(self, service: str) -> str:
        """Returns the last lines that a service's containers printed."""
        texts = []
        for name in self.containers(service):
            ran = subprocess.run(
                ["docker", "logs", "--tail=30", name], capture_output=True, text=True, errors="replace", check=False
            )
            texts.append(f"{name}:\n{ran.stdout}{ran.stderr}")
        return "\n".join(texts)

    def left(self) -> list[str]:
        """Returns everything of the project that Docker still knows."""
        volumes = docker("volume", "ls", "--quiet", self._label).split()
        networks = docker("network", "ls", "--format={{.Name}}", self._label).split()
        return self.containers() + volumes + networks

    def wait_healthy(self, service: str) -> None:
        """Waits until the health checks of all containers of a service pass."""

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
    """Returns what the command printed. Raises CheckFailed with its error output."""
    ran = subprocess.run(["docker", *words], capture_output=True, text=True, check=False)
    if ran.returncode:
        raise CheckFailed(f"docker {' '.join(words)}: {ran.stderr.strip()}")
    return ran.stdout


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Raises CheckFailed if the condition does not become true in time."""
    until = time.monotonic() + WAIT_SECONDS
    while not condition():
        if time.monotonic() > until:
            raise CheckFailed(f"waited {WAIT_SECONDS:.0f} s for {what}")
        time.sleep(0.25)
