"""`python -m tests.chaos`: servers and a store under fire, and a verdict. The last line is JSON."""

from __future__ import annotations

import argparse
import json
import secrets
import sys
from pathlib import Path

from .evidence import write_evidence
from .report import findings, summary, table
from .run import STORES, Settings, run

NOT_YET = "redis-cluster"
NEVER_S = 1e6


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="of faults; reading back and checking come on top")
    parser.add_argument("--seed", type=int, default=None, help="decides what is drawn; fresh where not given")
    parser.add_argument("--store", choices=(*STORES, NOT_YET), default="sqlite")
    parser.add_argument("--replicas", type=int, choices=(1, 2, 3), default=2, help="server processes")
    parser.add_argument("--every", type=float, default=0.6, help="seconds between two faults, on average; 0: none")
    parser.add_argument("--out", type=Path, default=Path("out"), help="where the history of a violation goes")
    options = parser.parse_args()
    if options.store == NOT_YET:
        parser.error(f"--store: got {NOT_YET}, which this harness does not run yet; expected one of {STORES}")
    seed = secrets.randbelow(1 << 32) if options.seed is None else options.seed
    print(f"seed {seed}", flush=True)
    every_s = options.every or NEVER_S
    outcome = run(Settings(options.seconds, seed, options.store, options.replicas, every_s))
    print(table(outcome))
    if outcome.verdict.findings:
        print(findings(outcome))
        print(f"history: {write_evidence(outcome, options.out)}")
    print(json.dumps(summary(outcome)), flush=True)
    return 1 if outcome.verdict.findings else 0


if __name__ == "__main__":
    sys.exit(main())
