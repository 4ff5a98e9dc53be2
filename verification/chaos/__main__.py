"""`python -m verification.chaos`: runs servers and a store under faults and prints a verdict. The last line is JSON.

Exit status: 0: no violation; 1: a violation; 2: the harness itself failed.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import secrets
import subprocess
import sys
import traceback
from pathlib import Path

import redis

from .counterexample import write_counterexamples
from .report import findings, summary, table
from .run import Outcome, run
from .settings import Settings
from .stores import STORES

NEVER_S = 1e6
HARNESS_ERRORS = (OSError, RuntimeError, redis.RedisError, subprocess.SubprocessError)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m verification.chaos", description=__doc__)
    parser.add_argument(
        "--seconds", type=float, default=60.0, help="seconds of faults; the final reads and checks take more"
    )
    parser.add_argument("--seed", type=int, default=None, help="seed of everything random (default: a new one)")
    parser.add_argument("--store", choices=STORES, default="sqlite")
    parser.add_argument("--replicas", type=int, choices=(1, 2, 3), default=2, help="servers, each on a port of its own")
    parser.add_argument(
        "--workers", type=int, choices=(1, 2, 3, 4), default=1, help="processes of each server, which share its port"
    )
    parser.add_argument(
        "--wait-replicas", type=int, default=0, help="the servers' --wait-replicas; with 1, no fail-over loses a step"
    )
    parser.add_argument(
        "--every", type=float, default=Settings.every_s, help="seconds between two faults, on average; 0: none"
    )
    parser.add_argument("--only", default="", help="kinds of faults, separated by commas (default: all)")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder for the history of a violation")
    options = parser.parse_args()
    seed = secrets.randbelow(1 << 32) if options.seed is None else options.seed
    print(f"seed {seed}", flush=True)
    every_s = options.every or NEVER_S
    faulthandler.enable()
    try:
        only = frozenset(filter(None, options.only.split(",")))
        settings = Settings(
            options.seconds,
            seed,
            options.store,
            options.replicas,
            every_s,
            only,
            workers=options.workers,
            wait_replicas=options.wait_replicas,
        )
        outcome = run(settings)
    except HARNESS_ERRORS as error:
        traceback.print_exc()
        print(json.dumps({"seed": seed, "store": options.store, "harness_error": str(error)}), flush=True)
        return 2
    return tell(outcome, options.out)


def tell(outcome: Outcome, folder: Path) -> int:
    """Prints the outcome, with the JSON line last. Returns the exit status."""
    print(table(outcome))
    if outcome.last.verdict.findings:
        print(findings(outcome))
        print(f"history: {write_counterexamples(outcome, folder)}")
    print(json.dumps(summary(outcome)), flush=True)
    return 1 if outcome.last.verdict.findings else 0


if __name__ == "__main__":
    sys.exit(main())
