"""The fixed requests: every RPC, every way of a step, retries of each kind, and refusals.

MODEL has two features. Its outputs have the same bits on every machine: the state h is the sum of the inputs, the
prediction h[0] + 2 h[1], and all of it whole numbers that float32 holds, whatever the order of the additions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Any

import numpy as np
from cellkeeper_proto.v1 import cellkeeper_pb2 as pb
from cellkeeper_service.domain.record import Header

from tests.rpc.plant import change_record

from .names import Names, Position
from .transcript import Transcript

MODEL = "golden"
OPTIONS = {
    "--max-replay-steps": 4,
    "--max-chunk-steps": 8,
    "--max-log-steps": 16,
    "--max-frame-items": 8,
    "--max-message-bytes": 4096 + 64,  # 64 bytes of outputs
}
OTHER = b"of another life."  # a generation that no session has
Row = tuple[float, float]
Rows = Sequence[Row]


class Script:
    """Sends them. store_url: of the server's store, in which some records are changed behind its back."""

    def __init__(self, transcript: Transcript, names: Names, store_url: str) -> None:
        self._transcript, self._names, self._store_url = transcript, names, store_url
        self._ids = 0

    def run(self) -> None:
        (model,) = self._call("the model", "GetModel", pb.GetModelRequest(model=MODEL))
        self._transcript.numerics = model.numerics
        self._names.add(_digest(model.numerics), b"numerics")
        self._call("all models", "ListModels", pb.ListModelsRequest())
        self._opening()
        self._steps()
        self._frames()
        self._reading()
        self._lives()
        self._refused_steps()
        self._refused_fields()
        self._records_that_cannot_be_served()

    def _opening(self) -> None:
        request_id = self._id()
        start = self._open("open", "a", request_id=request_id)
        self._open("open again: a retry", "a", request_id=request_id)
        self._open("open what is there already", "a")
        self._open("open at the right position", "a", expect=_message(start))
        self._open("open for an hour", "hour", ttl_ms=3_600_000)
        self._open("open with a state of its own", "state", initial_state=[_state(5, 7)])
        self._open("open for an hour what was for ever", "state", ttl_ms=3_600_000)
        self._open("open another life", "a", expect=_message(Position(OTHER, 0, bytes(8))))
        self._open("open ahead of the record", "a", expect=_message(start._replace(step=3)))
        self._open("insist on a session that is not there", "none", expect=_message(start))

    def _steps(self) -> None:
        start = self._open("open for steps", "s")
        one = self._step("a step", "s", start, [(1, 2)])
        self._step("the step again: a positioned retry", "s", start, [(1, 2)])
        three = [(1, 0), (0, 3), (2, 2)]
        outputs = ["prediction", "hidden", "state"]
        four = self._step("a chunk with every output", "s", one, three, outputs=outputs)
        self._step("the chunk again", "s", one, three, outputs=outputs)
        self._step("a part of the chunk again", "s", one, three[:2])
        self._step("a step over a chunk's end again", "s", start, [(1, 2), *three])
        six = self._step("acknowledging less", "s", four, [(1, 1), (1, 1)], acked=1)
        seven = self._step("acknowledging everything", "s", six, [(1, 0)], acked=6)
        eight = self._step("the next one", "s", seven, [(0, 1)])
        self._step("a step behind the checkpoint", "s", start, [(1, 2)])
        self._step("peek", "s", eight, [(4, 4)], peek=True, outputs=outputs)
        known = np.array([[5], [6]], "<f4").tobytes()
        fed_back = [(1, 1), (30, 5), (70, 6)]  # the first feature is the prediction before
        self._names.advance(eight, *map(_bytes, fed_back))
        self._step("forecast", "s", eight, [(1, 1)], peek=True, rollout_steps=2, rollout_inputs=known)
        self._step("forecast from before", "s", seven, [(1, 1)], peek=True, rollout_steps=1, rollout_inputs=known[:4])
        self._step("a step without position", "s", None, [(9, 9)], at=eight)
        self._step("a step without position makes a session", "made", None, [(1, 2), (3, 4)])
        place = self._open("open for many", "many")
        for number in range(9):
            place = self._step(f"step {number} of many", "many", place, [(number, 1)])
        self._step("a step of a session for an hour", "hour", self._open("find it", "hour"), [(1, 1)])

    def _frames(self) -> None:
        a, b = self._open("open for frames", "f1"), self._open("and another", "f2")
        frame = _frame([("f1", a, [(1, 2)]), ("f2", b, [(3, 4)])])
        self._call("a frame", "StepBatch", frame)
        a2, b2 = self._names.advance(a, _bytes((1, 2))), self._names.advance(b, _bytes((3, 4)))
        self._call("the frame again", "StepBatch", frame)
        mixed = [
            ("f1", a2, [(1, 1)]),
            ("f2", b2._replace(step=9), [(1, 1)]),
            ("none", b, [(1, 1)]),
            ("f1", a2, [(1, 1)]),
        ]
        self._call("a frame of which one item is well", "StepBatch", _frame(mixed))
        a3 = self._names.advance(a2, _bytes((1, 1)))
        self._names.advance(a3, _bytes((2, 1)), _bytes((1, 2)))
        chunks = _frame([("f1", a3, [(2, 1), (1, 2)])], outputs=["hidden", "state"])
        self._call("a chunk in a frame, with its state", "StepBatch", chunks)
        self._names.advance(b2, _bytes((2, 1)))
        self._call("a frame that peeks", "StepBatch", _frame([("f2", b2, [(2, 1)])], peek=True))
        made = self._call("a frame without positions", "StepBatch", _frame([("f3", None, [(1, 2)])]))
        self._names.advance(self._names.generation(made[0].positions[:16]), _bytes((1, 2)))
        self._names.advance(b2, _bytes((8, 8)))
        streamed = _frame([("f2", b2, [(8, 8)])])
        self._call("a frame of a stream", "StepStream", streamed)
        self._call("the frame of a stream again", "StepStream", streamed)
        self._call("a frame of a stream ahead", "StepStream", _frame([("f2", b2._replace(step=7), [(8, 8)])]))
        broken = _frame([("f2", b2, [(8, 8)])])
        broken.positions = bytes(31)
        self._call("a frame of a stream that cannot be read", "StepStream", broken)
        self._call("a frame that cannot be read", "StepBatch", broken)

    def _reading(self) -> None:
        self._call("the state", "GetState", pb.GetStateRequest(model=MODEL, session="s"))
        self._call("the session", "GetSession", pb.GetSessionRequest(model=MODEL, session="s"))
        self._call("no session", "GetSession", pb.GetSessionRequest(model=MODEL, session="none"))
        self._call("a list", "ListSessions", pb.ListSessionsRequest(model=MODEL, prefix="mad", page_size=9))
        self._call("an empty list", "ListSessions", pb.ListSessionsRequest(model=MODEL, prefix="none"))
        self._call("no page", "ListSessions", pb.ListSessionsRequest(model=MODEL, page_token="?"))

    def _lives(self) -> None:
        start = self._open("open to reset", "r")
        self._step("a step before the reset", "r", start, [(1, 1)])
        reset = pb.ResetRequest(
            model=MODEL, items=[{"session": "r", "generation": start.generation, "request_id": self._id()}]
        )
        self._names.origin(reset.items[0].request_id, "Reset", start.generation)
        (made,) = self._change("reset", "Reset", reset)
        self._change("reset again: a retry", "Reset", reset)
        reset.items[0].request_id = self._id()
        self._change("reset a life that is over", "Reset", reset)
        self._step("a step of the life that is over", "r", start, [(1, 1)])
        state = _state(2, 3)
        put = pb.SetStateRequest(
            model=MODEL,
            items=[
                {"session": "r", "generation": made.generation, "request_id": self._id(), "step": 100, "state": [state]}
            ],
        )
        step = (100).to_bytes(8, "little")
        self._names.origin(put.items[0].request_id, "SetState", made.generation, step, state.data)
        (at,) = self._change("set the state", "SetState", put)
        self._change("set the state again: a retry", "SetState", put)
        after = self._step("a step on the state", "r", at, [(1, 1)])
        fork = pb.ForkRequest(
            model=MODEL,
            items=[
                {"source": "r", "target": "copy", "request_id": self._id()},
                {"source": "r", "target": "copy at", "request_id": self._id(), "position": _message(at)},
                {"source": "r", "target": "r", "request_id": self._id()},
                {"source": "none", "target": "copy of none", "request_id": self._id()},
            ],
        )
        self._names.origin(fork.items[0].request_id, "Fork", b"r", b"")
        self._names.origin(fork.items[1].request_id, "Fork", b"r", at.pack())
        self._change("fork, and two that cannot be", "Fork", fork)
        self._change("fork again: a retry", "Fork", fork)
        again = pb.ForkRequest(model=MODEL, items=[{"source": "r", "target": "copy", "request_id": self._id()}])
        self._change("fork to what is there already", "Fork", again)
        used = pb.ResetRequest(
            model=MODEL,
            items=[{"session": "r", "generation": after.generation, "request_id": put.items[0].request_id}],
        )
        self._change("a request_id used for something else", "Reset", used)
        delete = pb.DeleteRequest(model=MODEL, items=[{"session": "r", "generation": start.generation}])
        self._change("delete another life", "Delete", delete)
        delete.items[0].generation = after.generation
        self._change("delete", "Delete", delete)
        self._change("delete again", "Delete", delete)
        self._step("a step of a session that is gone", "r", after, [(1, 1)])

    def _refused_steps(self) -> None:
        start = self._open("open for refusals", "x")
        one = self._step("a step to conflict with", "x", start, [(1, 1)], acked=0)
        self._step("other inputs at that step", "x", start, [(2, 2)])
        self._step("a step ahead", "x", one._replace(step=5), [(1, 1)])
        self._step("another history", "x", one._replace(head=b"anything"), [(1, 1)])
        self._step("another life", "x", Position(OTHER, 1, one.head), [(1, 1)])
        self._step("NaN", "x", one, [(float("nan"), 1)])
        big = self._step("a big number", "x", one, [(2.0**127, 0)])
        self._step("a result that is not finite", "x", big, [(2.0**127, 0)])
        outputs = ["prediction", "hidden", "state"]
        self._step("a reply that is too large", "x", big, [(1, 1)] * 8, outputs=outputs)
        full = self._open("open for a full log", "full")
        for _ in range(2):
            full = self._step("a chunk that is not acknowledged", "full", full, [(1, 1)] * 8, acked=0)
        self._step("a step too many for the log", "full", full, [(1, 1)], acked=0)

    def _refused_fields(self) -> None:
        start = self._open("open for fields", "y")
        good = _step_request("y", start, [(1, 1)])
        changes: dict[str, dict[str, Any]] = {
            "no such model": {"model": "nosuch"},
            "no session": {"session": ""},
            "a session of 257 bytes": {"session": "y" * 257},
            "another dtype": {"dtype": pb.FLOAT64},
            "no dtype": {"dtype": 0},
            "three features": {"shape": [1, 3], "inputs": bytes(12)},
            "too few bytes": {"inputs": bytes(7)},
            "no time steps": {"shape": [0, 2], "inputs": b""},
            "nine time steps": {"shape": [9, 2], "inputs": bytes(72)},
            "acknowledging what has not been": {"acked": 1},
            "an output that is not there": {"outputs": ["nosuch"]},
            "a forecast without peek": {"rollout_steps": 1},
            "a generation of 15 bytes": {"position": pb.Position(generation=bytes(15), head=bytes(8))},
        }
        for title, fields in changes.items():
            request = pb.StepRequest(**{name.name: value for name, value in good.ListFields()} | fields)
            self._call(title, "Step", request)
        self._call("a request_id of zeros", "Open", pb.OpenRequest(model=MODEL, session="y", request_id=bytes(16)))
        self._call("no request_id", "Open", pb.OpenRequest(model=MODEL, session="y"))
        items: list[Any] = [{"session": "y", "generation": b"short", "request_id": self._id()}]
        self._change("a generation of five bytes", "Reset", pb.ResetRequest(model=MODEL, items=items))
        items = [{"session": "y", "generation": OTHER, "request_id": self._id()}] * 2
        self._change("a session twice", "Reset", pb.ResetRequest(model=MODEL, items=items))
        self._change("no items", "Reset", pb.ResetRequest(model=MODEL))
        self._call("a version that is not served", "GetModel", pb.GetModelRequest(model=MODEL, fingerprint=bytes(32)))

    def _records_that_cannot_be_served(self) -> None:
        start = self._open("open for another version", "version")
        self._changed("version", lambda header: header.replace(fingerprint=b"another version".ljust(32)))
        self._step("a step of another version's", "version", start, [(1, 1)])
        take = pb.CarryOverRequest(
            model=MODEL, items=[{"session": "version", "generation": start.generation, "request_id": self._id()}]
        )
        self._change("carry over without a policy", "CarryOver", take)
        take.items[0].policy = pb.CarryOverRequest.RERUN
        take.items[0].dtype = pb.FLOAT32
        take.items[0].shape[:] = [2, 2]
        take.items[0].inputs = _bytes((1, 2)) + _bytes((3, 4))
        parts = start.generation, b"", b"rerun", take.items[0].inputs
        self._names.origin(take.items[0].request_id, "CarryOver", *parts)
        replies = self._call("carry over with inputs", "CarryOver", take)
        first = self._names.generation(replies[0].results[0].position.generation)
        after = self._names.advance(first, _bytes((1, 2)), _bytes((3, 4)))
        self._change("carry over again: a retry", "CarryOver", take)
        self._step("a step after it", "version", after, [(1, 1)])
        start = self._open("open for other numerics", "numerics")
        self._changed("numerics", lambda header: header.replace(numerics=b"otherone"))
        self._step("a step on other numerics", "numerics", start, [(1, 1)])
        start = self._open("open to damage", "damaged")
        self._changed("damaged", lambda header: header.replace(step_bytes=0))
        self._step("a step of a damaged record", "damaged", start, [(1, 1)])
        self._call("a damaged record in a list", "ListSessions", pb.ListSessionsRequest(model=MODEL, prefix="damaged"))
        whole = pb.DeleteRequest(model=MODEL, items=[{"session": "damaged"}])
        self._change("delete a damaged record", "Delete", whole)

    def _call(self, title: str, method: str, request: Any) -> list[Any]:
        return self._transcript.call(title, method, request)

    def _id(self) -> bytes:
        self._ids += 1
        return b"request id %5d" % self._ids

    def _open(self, title: str, session: str, **fields: Any) -> Position:
        """Where the session stands; an all-zero position where it is refused."""
        request = pb.OpenRequest(model=MODEL, session=session, **{"request_id": self._id(), **fields})
        replies = self._call(title, "Open", request)
        if not replies:
            return Position(bytes(16), 0, bytes(8))
        position = replies[0].position
        self._names.generation(position.generation)
        return Position(position.generation, position.step, position.head)

    def _step(
        self, title: str, session: str, position: Position | None, rows: Rows, at: Position | None = None, **fields: Any
    ) -> Position:
        """Where the session stands after the rows if they are applied. at: where it stands, for a step that does not
        say so; None: such a step makes the session."""
        request = _step_request(session, position, rows, **fields)
        at = position or at
        if at is None:
            (reply,) = self._call(title, "Step", request)
            return self._names.advance(self._names.generation(reply.position.generation), *map(_bytes, rows))
        after = self._names.advance(at, *map(_bytes, rows)) if at.head in self._names else at
        self._call(title, "Step", request)
        return after

    def _change(self, title: str, method: str, request: Any) -> list[Position]:
        """Where each item that was done has its session stand now."""
        found = []
        for reply in self._call(title, method, request):
            for result in reply.results:
                if result.HasField("position"):
                    position = result.position
                    self._names.generation(position.generation)
                    found.append(Position(position.generation, position.step, position.head))
        return found

    def _changed(self, session: str, change: Callable[[Header], Header]) -> None:
        def changed(record: Any) -> Any:
            return type(record)(change(record.header), record.checkpoint, record.log)

        change_record(self._store_url, MODEL, session, changed)


def _step_request(session: str, position: Position | None, rows: Rows, **fields: Any) -> pb.StepRequest:
    return pb.StepRequest(
        model=MODEL,
        session=session,
        dtype=pb.FLOAT32,
        shape=[len(rows), 2],
        inputs=b"".join(map(_bytes, rows)),
        position=None if position is None else _message(position),
        **fields,
    )


def _frame(items: Sequence[tuple[str, Position | None, Rows]], **fields: Any) -> pb.StepFrame:
    return pb.StepFrame(
        frame_id=7,
        model=MODEL,
        sessions=[session for session, _, _ in items],
        steps=[len(rows) for _, _, rows in items],
        dtype=pb.FLOAT32,
        step_shape=[2],
        inputs=b"".join(_bytes(row) for _, _, rows in items for row in rows),
        positions=b"".join(bytes(32) if position is None else position.pack() for _, position, _ in items),
        **fields,
    )


def _state(*values: float) -> pb.Tensor:
    return pb.Tensor(name="h", dtype=pb.FLOAT32, shape=[1, 2], data=np.array(values, "<f4").tobytes())


def _bytes(row: Row) -> bytes:
    return np.array(row, "<f4").tobytes()


def _message(position: Position) -> pb.Position:
    return pb.Position(generation=position.generation, step=position.step, head=position.head)


def _digest(numerics: str) -> bytes:
    """As headers have it."""
    return blake2b(numerics.encode(), digest_size=8).digest()
