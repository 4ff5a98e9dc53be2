"""`make bench`: contenders take turns, round by round, on one machine, each client in a process of its own."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

from .contenders import Contenders
from .machine import cpu_ticks, machine, stolen_share
from .models import MODELS
from .plan import GROUPS, Selection, plan
from .results import add_json, numbers, say, write
from .runner import run, warm
from .table import table
from .triton_server import TritonServer


def main() -> None:
    options = parse()
    chosen = Selection(options.only, options.stores, options.peers, options.models, options.sizes)
    cases = plan(chosen)
    if not cases:
        sys.exit("no case is left to measure; see python -m bench --list")
    if options.list:
        print("\n".join(case.key for case in cases))
        return
    facts = machine()
    before = cpu_ticks()
    triton, why_not = TritonServer.found(options.triton_venv, options.triton_compute)
    with tempfile.TemporaryDirectory(prefix="cellkeeper-bench-") as folder, ExitStack() as running:
        contenders = Contenders(Path(folder), running, triton, why_not)
        contenders.start(cases)
        for name, why in contenders.missing.items():
            say(f"without {name}: {why}")
        cases = [case for case in cases if case.contender not in contenders.missing]
        warm(cases, contenders)
        rounds = run(cases, contenders, options.rounds, options.seconds)
        notes = triton.notes() if triton and any("triton" in case.contender for case in cases) else {}
    facts |= notes | {"taken by other virtual machines": stolen_share(before)}
    about = {"machine": facts, "rounds": options.rounds, "seconds": options.seconds}
    results = [{"key": case.key, **asdict(case), "rounds": rounds[case.key]} for case in cases]
    text = table(cases, rounds)
    print(text)
    lines = "\n".join(f"- {name}: {value}" for name, value in facts.items())
    about |= {"missing": contenders.missing, "cases": results}
    write(options.json, about, f"{text}\n\n{options.rounds} rounds of {options.seconds:g} s\n\n{lines}")


def parse() -> argparse.Namespace:
    everything = Selection()
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--only", type=words, default=GROUPS, help=f"of {','.join(GROUPS)}")
    parser.add_argument("--stores", type=words, default=everything.stores, help=f"of {','.join(everything.stores)}")
    parser.add_argument("--peers", type=words, default=everything.peers, help=f"of {','.join(everything.peers)}, none")
    parser.add_argument("--models", type=words, default=everything.models, help=f"of {','.join(MODELS)}")
    parser.add_argument("--sizes", type=numbers, default=(), help="only these: sessions at once, or items of a frame")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.8, help="seconds of each case in each round")
    parser.add_argument("--triton-venv", type=Path, default=Path(os.environ.get("TRITON_VENV", ".venv-triton")))
    parser.add_argument("--triton-compute", choices=("onnxruntime", "torch"), default="onnxruntime")
    add_json(parser, "bench")
    parser.add_argument("--list", action="store_true", help="list what would be measured")
    return parser.parse_args()


def words(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


if __name__ == "__main__":
    main()
