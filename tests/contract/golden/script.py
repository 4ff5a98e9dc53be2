"""The fixed requests: every RPC, every kind of step, retries of each kind, and refusals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from cellkeeper_proto.v1 import cellkeeper_pb2 as pb
from cellkeeper_service.domain.record import Header

from tests.integration.rpc.record_changes import change_record

from .messages import MODEL, frame_request, numerics_digest, position_message, row_bytes, state_tensor, step_request
from .names import Names, Position
from .sender import Sender
from .transcript import Transcript

OPTIONS = {
    "--max-replay-steps": 4,
    "--max-chunk-steps": 8,
    "--max-log-steps": 16,
    "--max-frame-items": 8,
    "--max-message-bytes": 4096 + 64,  # 64 bytes of outputs
}
OTHER = b"of another life."  # a generation that no session has


class Script(Sender):
    """store_url: that of the server's store, in which some records are changed without the server's knowledge."""

    def __init__(self, transcript: Transcript, names: Names, store_url: str) -> None:
        super().__init__(transcript, names)
        self._store_url = store_url

    def run(self) -> None:
        (model,) = self.call("the model", "GetModel", pb.GetModelRequest(model=MODEL))
        self.transcript.numerics = model.numerics
        self.names.add(numerics_digest(model.numerics), b"numerics")
        self.call("all models", "ListModels", pb.ListModelsRequest())
        self._opening()
        self._steps()
        self._frames()
        self._reading()
        self._generations()
        self._refused_steps()
        self._refused_fields()
        self._records_that_cannot_be_served()
        self._opening_many()

    def _opening(self) -> None:
        request_id = self.new_id()
        start = self.open("open", "a", request_id=request_id)
        self.open("open again: a retry", "a", request_id=request_id)
        self.open("open what is there already", "a")
        self.open("open at the right position", "a", expect=position_message(start))
        self.open("open for an hour", "hour", ttl_ms=3_600_000)
        self.open("open with a state of its own", "state", initial_state=[state_tensor(5, 7)])
        self.open("open for an hour what was for ever", "state", ttl_ms=3_600_000)
        self.open("open another generation", "a", expect=position_message(Position(OTHER, 0, bytes(8))))
        self.open("open ahead of the record", "a", expect=position_message(start._replace(step=3)))
        self.open("insist on a session that is not there", "none", expect=position_message(start))

    def _steps(self) -> None:
        start = self.open("open for steps", "s")
        one = self.step("a step", "s", start, [(1, 2)])
        self.step("the step again: a positioned retry", "s", start, [(1, 2)])
        three = [(1, 0), (0, 3), (2, 2)]
        outputs = ["prediction", "hidden", "state"]
        four = self.step("a chunk with every output", "s", one, three, outputs=outputs)
        self.step("the chunk again", "s", one, three, outputs=outputs)
        self.step("a part of the chunk again", "s", one, three[:2])
        self.step("a step over a chunk's end again", "s", start, [(1, 2), *three])
        six = self.step("acknowledging less", "s", four, [(1, 1), (1, 1)], acked=1)
        seven = self.step("acknowledging everything", "s", six, [(1, 0)], acked=6)
        eight = self.step("the next one", "s", seven, [(0, 1)])
        self.step("a step behind the checkpoint", "s", start, [(1, 2)])
        self.step("peek", "s", eight, [(4, 4)], peek=True, outputs=outputs)
        known = np.array([[5], [6]], "<f4").tobytes()
        fed_back = [(1, 1), (30, 5), (70, 6)]  # the first feature is the previous prediction
        self.names.advance(eight, *map(row_bytes, fed_back))
        self.step("forecast", "s", eight, [(1, 1)], peek=True, rollout_steps=2, rollout_inputs=known)
        self.step("forecast from before", "s", seven, [(1, 1)], peek=True, rollout_steps=1, rollout_inputs=known[:4])
        self.step("a step without position", "s", None, [(9, 9)], at=eight)
        self.step("a step without position makes a session", "made", None, [(1, 2), (3, 4)])
        place = self.open("open for many", "many")
        for number in range(9):
            place = self.step(f"step {number} of many", "many", place, [(number, 1)])
        self.step("a step of a session for an hour", "hour", self.open("find it", "hour"), [(1, 1)])

    def _frames(self) -> None:
        a, b = self.open("open for frames", "f1"), self.open("and another", "f2")
        frame = frame_request([("f1", a, [(1, 2)]), ("f2", b, [(3, 4)])])
        self.call("a frame", "StepBatch", frame)
        a2, b2 = self.names.advance(a, row_bytes((1, 2))), self.names.advance(b, row_bytes((3, 4)))
        self.call("the frame again", "StepBatch", frame)
        mixed = [
            ("f1", a2, [(1, 1)]),
            ("f2", b2._replace(step=9), [(1, 1)]),
            ("none", b, [(1, 1)]),
            ("f1", a2, [(1, 1)]),
        ]
        self.call("a frame of which one item is well", "StepBatch", frame_request(mixed))
        a3 = self.names.advance(a2, row_bytes((1, 1)))
        self.names.advance(a3, row_bytes((2, 1)), row_bytes((1, 2)))
        chunks = frame_request([("f1", a3, [(2, 1), (1, 2)])], outputs=["hidden", "state"])
        self.call("a chunk in a frame, with its state", "StepBatch", chunks)
        self.names.advance(b2, row_bytes((2, 1)))
        self.call("a frame that peeks", "StepBatch", frame_request([("f2", b2, [(2, 1)])], peek=True))
        made = self.call("a frame without positions", "StepBatch", frame_request([("f3", None, [(1, 2)])]))
        self.names.advance(self.names.generation(made[0].positions[:16]), row_bytes((1, 2)))
        self.names.advance(b2, row_bytes((8, 8)))
        streamed = frame_request([("f2", b2, [(8, 8)])])
        self.call("a frame of a stream", "StepStream", streamed)
        self.call("the frame of a stream again", "StepStream", streamed)
        self.call("a frame of a stream ahead", "StepStream", frame_request([("f2", b2._replace(step=7), [(8, 8)])]))
        broken = frame_request([("f2", b2, [(8, 8)])])
        broken.positions = bytes(31)
        self.call("a frame of a stream that cannot be read", "StepStream", broken)
        self.call("a frame that cannot be read", "StepBatch", broken)

    def _reading(self) -> None:
        self.call("the state", "GetState", pb.GetStateRequest(model=MODEL, session="s"))
        self.call("the session", "GetSession", pb.GetSessionRequest(model=MODEL, session="s"))
        self.call("no session", "GetSession", pb.GetSessionRequest(model=MODEL, session="none"))
        self.call("a list", "ListSessions", pb.ListSessionsRequest(model=MODEL, prefix="mad", page_size=9))
        self.call("an empty list", "ListSessions", pb.ListSessionsRequest(model=MODEL, prefix="none"))
        self.call("no page", "ListSessions", pb.ListSessionsRequest(model=MODEL, page_token="?"))

    def _generations(self) -> None:
        start = self.open("open to reset", "r")
        self.step("a step before the reset", "r", start, [(1, 1)])
        reset = pb.ResetRequest(
            model=MODEL, items=[{"session": "r", "generation": start.generation, "request_id": self.new_id()}]
        )
        self.names.origin(reset.items[0].request_id, "Reset", start.generation)
        (made,) = self.change("reset", "Reset", reset)
        self.change("reset again: a retry", "Reset", reset)
        reset.items[0].request_id = self.new_id()
        self.change("reset a generation that has ended", "Reset", reset)
        self.step("a step of the generation that has ended", "r", start, [(1, 1)])
        state = state_tensor(2, 3)
        put = pb.SetStateRequest(
            model=MODEL,
            items=[
                {
                    "session": "r",
                    "generation": made.generation,
                    "request_id": self.new_id(),
                    "step": 100,
                    "state": [state],
                }
            ],
        )
        step = (100).to_bytes(8, "little")
        self.names.origin(put.items[0].request_id, "SetState", made.generation, step, state.data)
        (at,) = self.change("set the state", "SetState", put)
        self.change("set the state again: a retry", "SetState", put)
        after = self.step("a step on the state", "r", at, [(1, 1)])
        fork = pb.ForkRequest(
            model=MODEL,
            items=[
                {"source": "r", "target": "copy", "request_id": self.new_id()},
                {"source": "r", "target": "copy at", "request_id": self.new_id(), "position": position_message(at)},
                {"source": "r", "target": "r", "request_id": self.new_id()},
                {"source": "none", "target": "copy of none", "request_id": self.new_id()},
            ],
        )
        self.names.origin(fork.items[0].request_id, "Fork", b"r", b"")
        self.names.origin(fork.items[1].request_id, "Fork", b"r", at.pack())
        self.change("fork, and two that cannot be", "Fork", fork)
        self.change("fork again: a retry", "Fork", fork)
        again = pb.ForkRequest(model=MODEL, items=[{"source": "r", "target": "copy", "request_id": self.new_id()}])
        self.change("fork to what is there already", "Fork", again)
        used = pb.ResetRequest(
            model=MODEL,
            items=[{"session": "r", "generation": after.generation, "request_id": put.items[0].request_id}],
        )
        self.change("a request_id used for something else", "Reset", used)
        delete = pb.DeleteRequest(model=MODEL, items=[{"session": "r", "generation": start.generation}])
        self.change("delete another generation", "Delete", delete)
        delete.items[0].generation = after.generation
        self.change("delete", "Delete", delete)
        self.change("delete again", "Delete", delete)
        self.step("a step of a session that is gone", "r", after, [(1, 1)])

    def _refused_steps(self) -> None:
        start = self.open("open for refusals", "x")
        one = self.step("a step to conflict with", "x", start, [(1, 1)], acked=0)
        self.step("other inputs at that step", "x", start, [(2, 2)])
        self.step("a step ahead", "x", one._replace(step=5), [(1, 1)])
        self.step("another history", "x", one._replace(head=b"anything"), [(1, 1)])
        self.step("another generation", "x", Position(OTHER, 1, one.head), [(1, 1)])
        self.step("NaN", "x", one, [(float("nan"), 1)])
        big = self.step("a big number", "x", one, [(2.0**127, 0)])
        self.step("a result that is not finite", "x", big, [(2.0**127, 0)])
        outputs = ["prediction", "hidden", "state"]
        self.step("a reply that is too large", "x", big, [(1, 1)] * 8, outputs=outputs)
        full = self.open("open for a full log", "full")
        for _ in range(2):
            full = self.step("a chunk that is not acknowledged", "full", full, [(1, 1)] * 8, acked=0)
        self.step("a step too many for the log", "full", full, [(1, 1)], acked=0)

    def _refused_fields(self) -> None:
        start = self.open("open for fields", "y")
        good = step_request("y", start, [(1, 1)])
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
            self.call(title, "Step", request)
        self.call("a request_id of zeros", "Open", pb.OpenRequest(model=MODEL, session="y", request_id=bytes(16)))
        self.call("no request_id", "Open", pb.OpenRequest(model=MODEL, session="y"))
        items: list[Any] = [{"session": "y", "generation": b"short", "request_id": self.new_id()}]
        self.change("a generation of five bytes", "Reset", pb.ResetRequest(model=MODEL, items=items))
        items = [{"session": "y", "generation": OTHER, "request_id": self.new_id()}] * 2
        self.change("a session twice", "Reset", pb.ResetRequest(model=MODEL, items=items))
        self.change("no items", "Reset", pb.ResetRequest(model=MODEL))
        self.call("a version that is not served", "GetModel", pb.GetModelRequest(model=MODEL, fingerprint=bytes(32)))

    def _records_that_cannot_be_served(self) -> None:
        start = self.open("open for another version", "version")
        self._changed("version", lambda header: header.replace(fingerprint=b"another version".ljust(32)))
        self.step("a step of another version's", "version", start, [(1, 1)])
        take = pb.CarryOverRequest(
            model=MODEL, items=[{"session": "version", "generation": start.generation, "request_id": self.new_id()}]
        )
        self.change("carry over without a policy", "CarryOver", take)
        take.items[0].policy = pb.CarryOverRequest.RERUN
        take.items[0].dtype = pb.FLOAT32
        take.items[0].shape[:] = [2, 2]
        take.items[0].inputs = row_bytes((1, 2)) + row_bytes((3, 4))
        parts = start.generation, b"", b"rerun", take.items[0].inputs
        self.names.origin(take.items[0].request_id, "CarryOver", *parts)
        replies = self.call("carry over with inputs", "CarryOver", take)
        first = self.names.generation(replies[0].results[0].position.generation)
        after = self.names.advance(first, row_bytes((1, 2)), row_bytes((3, 4)))
        self.change("carry over again: a retry", "CarryOver", take)
        self.step("a step after it", "version", after, [(1, 1)])
        start = self.open("open for other numerics", "numerics")
        self._changed("numerics", lambda header: header.replace(numerics=b"otherone"))
        self.step("a step on other numerics", "numerics", start, [(1, 1)])
        start = self.open("open to damage", "damaged")
        self._changed("damaged", lambda header: header.replace(step_bytes=0))
        self.step("a step of a damaged record", "damaged", start, [(1, 1)])
        self.call("a damaged record in a list", "ListSessions", pb.ListSessionsRequest(model=MODEL, prefix="damaged"))
        whole = pb.DeleteRequest(model=MODEL, items=[{"session": "damaged"}])
        self.change("delete a damaged record", "Delete", whole)

    def _opening_many(self) -> None:
        at = self.open("open before many", "o1")
        items: list[dict[str, Any]] = [
            {"session": "o1", "request_id": self.new_id(), "expect": position_message(at)},
            {"session": "o2", "request_id": self.new_id(), "ttl_ms": 3_600_000},
            {"session": "o3", "request_id": self.new_id(), "initial_state": [state_tensor(5, 7)]},
            {"session": "o2", "request_id": self.new_id()},
            {"session": "o4"},
            {"session": "o5", "request_id": self.new_id(), "expect": position_message(at)},
        ]
        request = pb.OpenManyRequest(model=MODEL, items=items)
        for title in ("open many, and three that cannot be", "open many again: a retry"):
            (reply,) = self.call(title, "OpenMany", request)
            for result in reply.results:
                if not result.HasField("error"):
                    self.names.generation(result.opened.position.generation)
        self.call("open none", "OpenMany", pb.OpenManyRequest(model=MODEL))

    def _changed(self, session: str, change: Callable[[Header], Header]) -> None:
        def changed(record: Any) -> Any:
            return type(record)(change(record.header), record.checkpoint, record.log)

        change_record(self._store_url, MODEL, session, changed)
