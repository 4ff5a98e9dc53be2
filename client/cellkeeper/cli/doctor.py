"""`cellkeeper doctor`: checks a running deployment from outside."""

from __future__ import annotations

import argparse
from typing import Any

from .._session.arguments import timeout_seconds
from .._transport.credentials import Token
from ..doctor.examine import examine
from . import access
from .terminal import printable


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "doctor",
        help="check a running deployment from outside",
        description="Checks a running deployment and prints a line for each check: ok, warn, fail or skip. The exit "
        "code is 1 if a check failed. It creates scratch sessions named cellkeeper-doctor/..., and deletes them.",
    )
    parser.add_argument("endpoints", nargs="+", metavar="ENDPOINT", help="host:port of each replica")
    parser.add_argument(
        "--metrics", nargs="+", action="extend", default=[], metavar="URL", help="the /metrics of each replica"
    )
    parser.add_argument("--model", default="", help="step only this model (default: every model)")
    parser.add_argument("--timeout", type=float, default=10.0, help="seconds for each call")
    access.add(parser)


def run(parsed: argparse.Namespace) -> int:
    """Prints the findings. Returns the exit code. Raises InvalidArgument."""
    timeout = timeout_seconds(parsed.timeout, parsed.timeout)
    credentials = access.client_access(parsed)
    token = Token(credentials["token"]).text()
    findings = examine(parsed.endpoints, parsed.metrics, parsed.model, credentials["tls"] or None, token, timeout)
    for finding in findings:
        print(printable(finding))
    return int(any(finding.level == "fail" for finding in findings))
