"""`python -m tests.integration.access.timing`: looks for secrets that the times of answers reveal.

These are whether another tenant's session exists, and how much of a token is right. It makes requests of both kinds in
random order and compares the times. It is not a test, because times depend on the machine.

The chance that an answer of the first kind took longer than one of the second (the Mann-Whitney statistic) is 0.5 if
the times reveal nothing; its standard error is sqrt((n + m + 1) / (12 n m)).
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from cellkeeper_proto.v1 import cellkeeper_pb2 as pb
from cellkeeper_service.domain.position import Position

from testing.bundles import counting_bundle
from testing.forked_server import ForkedServer
from tests.integration.rpc.calls import Chunk, from_wire, numbers, step_message

from .tenants import MODEL, REQUESTS, answer, bearer, entry

SESSIONS = 50
RPCS = ("Step", "GetSession", "GetState", "Reset", "Delete")
Ask = Callable[[], Any]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.integration.access.timing", description=__doc__)
    parser.add_argument("--calls", type=int, default=1000, help="of each kind")
    words = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measure(Path(folder), words.calls)


def measure(folder: Path, calls: int) -> None:
    (mine, my_line), (theirs, their_line) = entry("b", "step,read,admin"), entry("a", "step,read,admin")
    tokens = folder / "tokens"
    tokens.write_text(f"{my_line}\n{their_line}")
    bundle = counting_bundle(folder / "count")
    store = f"sqlite:{folder / 'sessions.db'}"
    with ForkedServer([bundle], store, ["--tokens", str(tokens)]) as server, server.channel() as channel:
        standing = [made(channel, theirs) for _ in range(SESSIONS)]
        print("| asked | median us, the first kind | the second | longer than the second | standard error |")
        print("|---|---:|---:|---:|---:|")
        for rpc in RPCS:

            def ask(session: str, at: Position, rpc: str = rpc) -> None:
                answer(channel, rpc, REQUESTS[rpc](session, at), bearer(mine))

            def of_another(ask: Callable[[str, Position], None] = ask) -> None:
                ask(*random.choice(standing))

            def of_nobody(ask: Callable[[str, Position], None] = ask) -> None:
                ask(os.urandom(8).hex(), standing[0][1])

            tell(f"{rpc}: another tenant's session; one that never existed", of_another, of_nobody, calls)
        nearly = theirs[:-1] + ("A" if theirs[-1] != "A" else "B")
        wrong = "B" * len(theirs)
        tell(
            "a token whose last character is wrong; one that is wrong altogether",
            lambda: answer(channel, "ListModels", pb.ListModelsRequest(), bearer(nearly)),
            lambda: answer(channel, "ListModels", pb.ListModelsRequest(), bearer(wrong)),
            calls,
        )


def made(channel: grpc.Channel, token: str) -> tuple[str, Position]:
    session = os.urandom(8).hex()
    _, reply = answer(channel, "Step", step_message(MODEL, Chunk(session, numbers(5))), bearer(token))
    return session, from_wire(pb.StepResponse.FromString(reply).position)


def tell(what: str, first: Ask, second: Ask, calls: int) -> None:
    times: dict[Ask, list[float]] = {first: [], second: []}
    order = [first, second] * calls
    random.shuffle(order)
    for ask in order:
        began = time.perf_counter()
        ask()
        times[ask].append(time.perf_counter() - began)
    chance, error = longer(times[first], times[second])
    medians = [f"{1e6 * statistics.median(times[ask]):.0f}" for ask in (first, second)]
    print(f"| {what} | {' | '.join(medians)} | {chance:.3f} | {error:.3f} |", flush=True)


def longer(first: list[float], second: list[float]) -> tuple[float, float]:
    """Returns this chance and its standard error."""
    n, m = len(first), len(second)
    ranks = np.argsort(np.argsort(first + second)) + 1
    chance = (ranks[:n].sum() - n * (n + 1) / 2) / (n * m)
    return float(chance), float(np.sqrt((n + m + 1) / (12 * n * m)))


if __name__ == "__main__":
    main()
