"""The Grafana dashboard as data: its panels and their queries."""

from __future__ import annotations

import json
import re
from functools import cache
from typing import Any

from tests.integration.deploy.stack import ROOT

PATH = ROOT / "deploy" / "grafana" / "dashboards" / "cellkeeper.json"
VARIABLES = {"$__rate_interval": "1m", "$model": ".*", "$instance": ".*"}


@cache
def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(PATH.read_text())
    return found


def panels() -> list[dict[str, Any]]:
    """Returns all panels except the rows that group them."""
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def queries() -> list[tuple[str, str]]:
    """Returns (title of the panel, expression as Grafana would send it with everything selected)."""
    shown = [(panel["title"], target["expr"]) for panel in panels() for target in panel["targets"]]
    noted = [(note["name"], note["expr"]) for note in dashboard()["annotations"]["list"]]
    return [(title, filled(expression)) for title, expression in shown + noted]


def filled(expression: str) -> str:
    """Returns the expression with values for Grafana's variables. Raises ValueError if one is left."""
    for name, value in VARIABLES.items():
        expression = expression.replace(name, value)
    if "$" in expression:
        raise ValueError(f"{expression}: a variable that the dashboard does not have")
    return expression


def metric_names(expression: str) -> set[str]:
    """Returns the metrics of the service and the proxy in the expression, without names of recording rules."""
    bare = re.sub(r'"(?:[^"\\]|\\.)*"', '""', expression)
    return set(re.findall(r"(?<![\w:])(?:cellkeeper|haproxy)_\w+(?![\w:])", bare))
