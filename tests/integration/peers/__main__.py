"""Asks both servers, writes the table, and exits with 1 if answers differ that have to be the same.

python -m tests.integration.peers --triton-venv FOLDER --out docs/triton-cases.md
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import count
from pathlib import Path

import grpc
import numpy as np
from cellkeeper_service.engine.load import load_engine, offline
from cellkeeper_service.model.bundle import read_bundle

from bench.triton_server import TritonServer
from bench.weights import write_model
from testing.server_process import ServerProcess
from tests.integration.kserve.calls import TIMEOUT_S, Api, Array, Refused, Reply, classes, read_reply

from .cases import CASES, FEATURES, ID, LONG_STEPS, MODEL, TEXT, Ask, Case, message, ones
from .page import Row, page

LONGEST = 8  # steps of a case's sequence
FIRST_ID = 1000
GAVE_UP = "DEADLINE_EXCEEDED"
"""Only the code: whether the client's own text or the server's arrives is random."""


class Server:
    """outputs: those of an offline run after each step of a sequence of ones."""

    def __init__(self, channel: grpc.Channel, outputs: Array) -> None:
        self._api = Api(channel, MODEL)
        self._steps = {value.tobytes(): step for step, value in enumerate(outputs, 1)}

    def answers(self, case: Case, number: int) -> list[str]:
        """number: the id that replaces the case's ID."""
        messages = [message(ask, _id(ask, number)) for ask in case.asks]
        if case.stream:
            for index, one in enumerate(messages):
                one.id = str(index)
            found = {}
            for reply in self._api.stream(iter(messages)):
                at = reply.identifier if isinstance(reply, Reply) else reply.code
                found[at] = self._says(reply, number, is_stream=True)
            return [found.get(one.id, "no answer") for one in messages]
        texts = []
        for ask, one in zip(case.asks, messages, strict=True):
            try:
                answer: Reply | Refused = read_reply(self._api.call("ModelInfer", one, ask.timeout_s or TIMEOUT_S))
            except Refused as refused:
                answer = refused
            texts.append(GAVE_UP if _gave_up(ask, answer) else self._says(answer, number, is_stream=False))
        return texts

    def _says(self, answer: Reply | Refused, number: int, *, is_stream: bool) -> str:
        if isinstance(answer, Refused):
            text = answer.message.replace(str(number), "ID")
            return text if is_stream else f"{answer.code}: {text}"
        values = answer.outputs["Y"]
        if values.dtype != np.float32:
            return f"OK: BYTES, {', '.join(classes(values.tobytes()))}"
        rows = values.reshape(-1, 1)
        steps = [self._steps.get(row.tobytes(), "") for row in rows]
        told = (
            f"the output of step {', '.join(map(str, steps)) or 'none'}"
            if "" not in steps
            else f"an output of none of the first {LONGEST} steps of ones"
        )
        return f"OK: {list(values.shape)}, {told}"


def _id(ask: Ask, number: int) -> int | str | None:
    return number if ask.sequence == ID else str(number) if ask.sequence == TEXT else ask.sequence


def _gave_up(ask: Ask, answer: Reply | Refused) -> bool:
    return bool(ask.timeout_s) and isinstance(answer, Refused) and answer.code == "DEADLINE_EXCEEDED"


def main(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.integration.peers", description=__doc__)
    parser.add_argument("--triton-venv", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args(words)
    triton, why_not = TritonServer.found(asked.triton_venv, "onnxruntime")
    if triton is None:
        print(why_not, file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory(prefix="cellkeeper-peers-") as folder, ExitStack() as running:
        bundle = write_model(Path(folder), MODEL)
        outputs = offline(load_engine(read_bundle(bundle), "cpu", 1, 1), ones(LONGEST)[0])["prediction"]
        names = f"{MODEL}/X=input,{MODEL}/Y=prediction"
        options = ["--kserve", "on", "--kserve-names", names, "--max-chunk-steps", str(LONG_STEPS)]
        options += ["--max-log-steps", str(2 * LONG_STEPS)]
        ours = ServerProcess([bundle], f"sqlite:{folder}/s.db", options)
        running.enter_context(ours)
        address, _ = triton.start([bundle], Path(folder) / "triton", running)
        targets = [address, ours.target]
        servers = [
            Server(running.enter_context(grpc.insecure_channel(target)), np.asarray(outputs)) for target in targets
        ]
        numbers = count(FIRST_ID)
        rows = []
        for case in CASES:
            number = next(numbers)
            rows.append(Row(case, *[server.answers(case, number) for server in servers]))
        versions = triton.notes()
    asked.out.write_text(page(rows, versions, FEATURES))
    wrong = [row for row in rows if row.triton != row.ours and not row.case.differs]
    for row in wrong:
        print(f"{[ask.says for ask in row.case.asks]}\n  Triton: {row.triton}\n  here:   {row.ours}", file=sys.stderr)
    print(f"{len(rows)} cases, {len(wrong)} differ that should not; {asked.out}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
