"""`cellkeeper doctor`: a running deployment, looked at from outside."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ._doctor import Deployment, examine

FAILED = 1


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "doctor",
        help="check a running deployment from outside",
        description="Checks a running deployment, a line for each thing: ok, warn, fail or skip. The exit code is 1 if "
        "anything failed. It makes scratch sessions named cellkeeper-doctor/..., and deletes them.",
    )
    parser.add_argument("endpoints", nargs="+", metavar="ENDPOINT", help="host:port, of every replica")
    parser.add_argument("--metrics", nargs="+", action="extend", default=[], metavar="URL", help="/metrics of replicas")
    parser.add_argument("--model", default="", help="step this model only; default: every one")
    parser.add_argument("--ca-file", metavar="FILE", help="use TLS, and trust these certificates; '' for the system's")
    parser.add_argument("--token-file", metavar="FILE", help="a file that holds the bearer token")
    parser.add_argument("--timeout", type=float, default=10.0, help="seconds for each call")


def run(parsed: argparse.Namespace) -> int:
    """Prints the findings; the exit code. Raises OSError for a file that cannot be read."""
    token = None if parsed.token_file is None else Path(parsed.token_file).read_text().strip()
    deployment = Deployment(parsed.endpoints, parsed.metrics, parsed.model, parsed.ca_file, token, parsed.timeout)
    findings = examine(deployment)
    for finding in findings:
        print(finding)
    return FAILED if any(finding.level == "fail" for finding in findings) else 0
