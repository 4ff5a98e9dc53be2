"""The long exploration: python -m verification.explore [--seconds N] [--seed N] [--rules]

Explores the scopes from small to large, each as far as its share of the time allows, then draws larger ones at random.
Prints what was explored and, if a promise is broken (exit status 1), the shortest history that it can find. The last
line is a summary in JSON. With --rules it instead switches off each rule of the protocol and prints docs/rules.md.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import random
import sys
import time

from .drawn import drawn
from .page import page
from .rules import RULES
from .scope import Scope
from .scopes import LARGE, SMALL
from .search import Counterexample, explore, shrink, walk
from .story import story


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m verification.explore", description="Explores small scopes.")
    parser.add_argument("--seconds", type=float, default=float(os.environ.get("SECONDS") or 300))
    parser.add_argument(
        "--seed", type=int, default=int(os.environ.get("SEED") or random.SystemRandom().randrange(10**9))
    )
    parser.add_argument("--rules", action="store_true", help="print docs/rules.md")
    parsed = parser.parse_args(arguments)
    if parsed.rules:
        logging.getLogger("cellkeeper_service").setLevel(
            logging.CRITICAL
        )  # without a rule, the core logs its own faults
        print(page(), end="")
        return 0
    return run(parsed.seconds, parsed.seed)


def run(seconds: float, seed: int) -> int:
    started = time.monotonic()
    print(f"seed {seed}, {seconds:g} s\n")
    print("| scope | states | ends | longest | whole | seconds |")
    print("|---|---:|---:|---:|---|---:|")
    scopes = {**SMALL, **{f"rule {rule.number}: {rule.title}": rule.scope for rule in RULES}, **LARGE}
    states = ends = whole = 0
    for number, (name, scope) in enumerate(scopes.items()):
        left = 0.7 * seconds - (time.monotonic() - started)
        found = explore(scope, max_states=10**9, max_seconds=max(0.2, 2 * left / (len(scopes) - number)))
        states, ends, whole = states + found.states, ends + found.histories, whole + found.complete
        how = "yes" if found.complete else "no"
        print(
            f"| {name} | {found.states} | {found.histories} | {found.longest} | {how} | {found.seconds:.1f} |",
            flush=True,
        )
        if found.counterexample:
            return broken(scope, found.counterexample, f"scope {name!r}")
    walks = 0
    while time.monotonic() - started < seconds:
        draw = random.Random(seed + walks)
        scope = drawn(draw)
        found_one = walk(scope, draw)
        if found_one:
            return broken(scope, found_one, f"seed {seed + walks}")
        walks += 1
    print(f"\n{walks} drawn histories of larger scopes, seeds {seed} to {seed + walks - 1}")
    summary = {
        "explored_states": states,
        "ends": ends,
        "scopes": len(scopes),
        "whole_scopes": whole,
        "drawn_histories": walks,
        "seed": seed,
        "seconds": round(time.monotonic() - started, 1),
        "violations": 0,
    }
    print(json.dumps(summary))
    return 0


def broken(scope: Scope, counterexample: Counterexample, where: str) -> int:
    counterexample = shrink(scope, counterexample)
    print(f"\nA promise is broken ({where}), {scope}:\n")
    print("\n".join(story(scope, counterexample.events)))
    print(json.dumps({"violations": 1, "where": where, "why": counterexample.why}))
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
