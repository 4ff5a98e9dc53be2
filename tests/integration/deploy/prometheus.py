"""A live Prometheus: its targets, its rules and its answers."""

from __future__ import annotations

import json
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode
from urllib.request import urlopen

TIMEOUT_S = 10.0


class Prometheus:
    """port: of its HTTP API, on this machine."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}/api/v1"

    def targets(self) -> dict[str, str]:
        """Returns the health by "job address": "up", "down" or "unknown". Empty if Prometheus does not answer."""
        try:
            active = self._get("targets", state="active")["activeTargets"]
        except (URLError, ConnectionError):
            return {}
        return {f"{one['labels']['job']} {one['labels']['instance']}": one["health"] for one in active}

    def replicas_up(self) -> int:
        return sum(name.startswith("cellkeeper ") and health == "up" for name, health in self.targets().items())

    def rules(self) -> dict[str, str]:
        """Returns "ok" or the error of every rule, by its name."""
        groups = self._get("rules")["groups"]
        return {
            rule["name"]: rule["health"] if not rule.get("lastError") else rule["lastError"]
            for group in groups
            for rule in group["rules"]
        }

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Returns the samples of an instant query. Raises ValueError with Prometheus' message if that refuses it."""
        try:
            return list(self._get("query", query=expression)["result"])
        except HTTPError as error:
            with error:
                if error.code not in (400, 422):  # it is starting
                    raise
                raise ValueError(f"{expression}: {error.read().decode()}") from error

    def value(self, expression: str) -> float:
        """Returns the only sample's value; 0 if there is none, or if Prometheus does not answer."""
        try:
            found = self.query(expression)
        except (URLError, ConnectionError):
            return 0.0
        return float(found[0]["value"][1]) if found else 0.0

    def _get(self, path: str, **parameters: str) -> Any:
        with urlopen(f"{self._url}/{path}?{urlencode(parameters)}", timeout=TIMEOUT_S) as answer:
            return json.load(answer)["data"]
