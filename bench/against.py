"""`make bench-against REV=COMMIT`: compares these files with an earlier commit, on one machine, in turns.

Each side has its own server, its own clients and, on Redis, its own Redis. While one side is measured, the other's
processes wait. In every round each load runs on both sides, one right after the other, in the order A, B, B, A, ... The
loads whose names start with "kserve" are sent by Triton's own client, from its virtual environment (`make
bench-triton`); they run only if named. With HEAD as the earlier commit, --python and --set compare interpreters and
environments instead of commits.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from .checkout import Checkout, CheckoutError, earlier, this_checkout
from .comparison import SIDES, Pair, order, table
from .load import Load
from .machine import cpu_ticks, interpreter, machine, stolen_share
from .models import MAIN, MODELS
from .results import add_json, say, write
from .side import OWN, Side
from .triton_server import TritonServer
from .weights import write_model

STORES = ("redis", "sqlite", "memory")
KSERVE = "kserve"
"""The contenders of Triton's client begin with it."""
WARM_SECONDS = 0.3


def loads(model: str) -> dict[str, Load]:
    return {
        "client 1": Load("client", model, flows=1),
        "client 64": Load("client", model, flows=64),
        "client 256": Load("client", model, flows=256),
        "group 64": Load("group", model, items=64),
        "group 256": Load("group", model, items=256),
        "frames 256": Load("frames", model, flows=2, items=256),
        "chunks 16": Load("client", model, flows=64, steps=16),
        "chunks 256": Load("client", model, flows=8, steps=256),
        "unary 4": Load("unary", model, flows=4),
        "unary 16": Load("unary", model, flows=16),
        "unary 64": Load("unary", model, flows=64),
        "kserve stream 64": Load("client", model, flows=64),
        "kserve stream 256": Load("client", model, flows=256),
        "kserve unary 64": Load("client", model, flows=64),
    }


def contender(name: str) -> str:
    """Returns the contender whose client sends the load of that name."""
    first, *words = name.split()
    return f"{first} {words[0]}" if first == KSERVE else OWN


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the comparison. Returns the exit status: 1 if a load failed in any round."""
    options = parse(arguments)
    try:
        pairs, about = compare(options)
    except CheckoutError as error:
        sys.exit(f"bench-against: {error}")
    facts = [
        f"{options.rounds} rounds of {options.seconds:g} s; medians, and ratios made round by round",
        *about["notes"],
    ]
    facts += [f"{name}: {value}" for name, value in about["machine"].items()]
    title = f"{about['earlier']} → {about['this']} (this over the earlier one), {options.model}"
    text = "\n".join([title, "", table(pairs), "", *(f"- {fact}" for fact in facts)])
    print(text)
    write(options.json, {**about, "pairs": [pair.json() for pair in pairs]}, text)
    failed = [f"{pair.store}, {pair.load}: {error}" for pair in pairs for error in pair.errors]
    for line in failed:
        say(f"failed: {line}")
    return 1 if failed else 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.against", description=__doc__)
    parser.add_argument("revision", help="the earlier commit, by any name that git knows")
    parser.add_argument("--stores", type=words(STORES), default=STORES, help=f"of {','.join(STORES)}")
    names = tuple(loads(MAIN))
    ordinary = tuple(name for name in names if contender(name) == OWN)
    parser.add_argument("--loads", type=words(names), default=ordinary, help=f"of {','.join(names)}")
    parser.add_argument("--model", choices=sorted(MODELS), default=MAIN)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="seconds of each load in each round")
    parser.add_argument(
        "--python",
        default=sys.executable,
        help="the interpreter of this side's server and official client, with the same packages; default: that of both",
    )
    parser.add_argument(
        "--set",
        type=variable,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="an environment variable of this side's server and official client; may be repeated",
    )
    parser.add_argument(
        "--triton-venv", type=Path, default=Path(".venv-triton"), help="the environment with Triton's client"
    )
    add_json(parser, "bench-against")
    options = parser.parse_args(arguments)
    if options.rounds < 1 or options.seconds <= 0:
        parser.error(
            f"rounds, seconds: got {options.rounds}, {options.seconds:g}, expected at least 1 round and more than 0 s"
        )
    return options


def words(known: Sequence[str]) -> Callable[[str], tuple[str, ...]]:
    """Returns a parser of known words, separated by commas."""

    def read(text: str) -> tuple[str, ...]:
        chosen = tuple(text.split(","))
        for word in chosen:
            if word not in known:
                raise argparse.ArgumentTypeError(f"got {word!r}, expected some of {','.join(known)}")
        return chosen

    return read


def variable(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected NAME=VALUE")
    return name, value


def compare(options: argparse.Namespace) -> tuple[list[Pair], dict[str, Any]]:
    """Returns the measurements, and facts: both commits, the machine, notes. Raises CheckoutError."""
    facts, before = machine(), cpu_ticks()
    with tempfile.TemporaryDirectory(prefix="cellkeeper-against-") as name:
        folder = Path(name)
        here = this_checkout(options.python, dict(options.set))
        checkouts = dict(zip(SIDES, (earlier(options.revision, folder), here), strict=True))
        for checkout in checkouts.values():
            checkout.check()
        bundle = write_model(folder, options.model)
        chosen = {name: load for name, load in loads(options.model).items() if name in options.loads}
        others, words = others_of(chosen, options.model, options.triton_venv)
        pairs: list[Pair] = []
        notes = differences(here)
        for store in options.stores:
            place = folder / store
            place.mkdir()
            with ExitStack() as running:
                sides: dict[str, Side] = {}
                for side, checkout in checkouts.items():
                    own = place / side
                    own.mkdir()
                    sides[side] = Side(checkout, store, bundle, own, running, others, words)
                found = on_store(store, sides, chosen, options.rounds, options.seconds)
                said = [side.note for side in sides.values() if side.note]
            pairs += found
            notes += [note for note in said if note not in notes]
    about: dict[str, Any] = {side: checkout.name for side, checkout in checkouts.items()}
    about |= {"model": options.model, "rounds": options.rounds, "seconds": options.seconds}
    facts |= {"taken by other virtual machines": stolen_share(before)}
    return pairs, about | {"notes": notes, "machine": facts}


def differences(here: Checkout) -> list[str]:
    """Returns what this side has and the other has not, besides its commit."""
    found = [] if here.python == sys.executable else [f"this side's python: {interpreter(here.python)}"]
    return found + [f"this side's {name}: {value}" for name, value in here.environment.items()]


def others_of(chosen: Iterable[str], model: str, triton_venv: Path) -> tuple[dict[str, str], list[str]]:
    """Returns the interpreters of the clients that these loads need besides the official one, and the server's options.

    Raises CheckoutError.
    """
    contenders = {contender(name) for name in chosen} - {OWN}
    if not contenders:
        return {}, []
    triton, why_not = TritonServer.found(triton_venv, "onnxruntime")
    if triton is None:
        raise CheckoutError(f"--loads: {KSERVE} needs Triton's client: {why_not}")
    return dict.fromkeys(sorted(contenders), triton.python), [
        "--kserve",
        "on",
        "--kserve-names",
        f"{model}/X=input,{model}/Y=prediction",
    ]


def on_store(
    store: str, sides: Mapping[str, Side], chosen: Mapping[str, Load], rounds: int, seconds: float
) -> list[Pair]:
    """Measures the pairs of one store, whose processes exist for them alone."""
    pairs = {name: Pair(store, name) for name in chosen}
    for name, load in chosen.items():
        for side in SIDES:
            sides[side].measure(load, WARM_SECONDS, contender(name))  # creates its sessions; the result is dropped
    for number in range(rounds):
        started = time.monotonic()
        for at, (name, load) in enumerate(chosen.items()):
            for side in order(number, at):
                pairs[name].rounds[side].append(sides[side].measure(load, seconds, contender(name)))
        say(f"{store}, round {number + 1} of {rounds}: {time.monotonic() - started:.0f} s")
    return list(pairs.values())


if __name__ == "__main__":
    sys.exit(main())
