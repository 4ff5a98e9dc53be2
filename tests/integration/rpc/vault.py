"""Writes records, whole and damaged ones, into a server's store without the server's knowledge."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import redis
from cellkeeper_service.domain.position import advance, first_position
from cellkeeper_service.domain.record import Header, Record, SessionKey
from cellkeeper_service.domain.store import Commit, Load, Outcome
from cellkeeper_service.store.open import open_store
from cellkeeper_service.store.redis.keys import redis_key

from .calls import Api, Array, Chunk, new_id, numbers

Change = Callable[[list[bytes]], list[bytes]]


class Vault:
    """The store at `url`, sqlite: or redis:, of a server that serves the counting model as `api`.

    Use as a context manager.
    """

    def __init__(self, url: str, api: Api, step: Array | None = None) -> None:
        """step: one time step of the model, [1, F]; by default one with a single feature."""
        self.url = url
        self._api = api
        self._store = open_store(url, timeout_ms=10_000)
        self._step = numbers(1) if step is None else step
        self._sample: Record | None = None

    def put(self, session: str, *inputs: float, **fields: Any) -> Header:
        """Creates the session with these inputs in its log. Returns the header. fields: replace the right ones."""
        log = numbers(*inputs).tobytes()
        start = first_position(new_id())
        header = self.sample.header.replace(
            position=advance(start, log, 4), checkpoint_step=0, checkpoint_head=start.head, origin=new_id()
        )
        if "step" in fields:
            fields["position"] = header.position.changed(step=fields.pop("step"))
        header = header.replace(**fields)
        commit = Commit(SessionKey("", self._api.model, session), None, header, log, self.sample.checkpoint)
        (result,) = self._store.commit_many([commit])
        if result.outcome is not Outcome.COMMITTED:
            raise AssertionError(f"expected it to be committed, got {result}")
        return header

    def put_copies(self, sessions: Sequence[str], inputs: Array) -> None:
        """Creates the sessions, all with one history: these inputs, [T, F], in the log."""
        log, start = inputs.tobytes(), first_position(new_id())
        position = advance(start, log, inputs[0].nbytes)
        header = self.sample.header.replace(position=position, checkpoint_step=0, checkpoint_head=start.head)
        for session in sessions:
            at = SessionKey("", self._api.model, session)
            (result,) = self._store.commit_many([Commit(at, None, header, log, self.sample.checkpoint)])
            if result.outcome is not Outcome.COMMITTED:
                raise AssertionError(f"expected it to be committed, got {result}")

    @property
    def sample(self) -> Record:
        """A record that the server has created."""
        if self._sample is None:
            self._api.send("unary", Chunk("sample", self._step, self._api.open("sample")))
            (record,) = self._store.load_many([Load(SessionKey("", self._api.model, "sample"), False)])
            if not isinstance(record, Record):
                raise AssertionError(f"expected a record, got {record!r}")
            initial = bytes(len(record.checkpoint))
            self._sample = Record(record.header, initial, record.log)
        return self._sample

    def change_elements(self, session: str, change: Change) -> None:
        """Redis: replaces the elements of the session's list."""
        name = redis_key(SessionKey("", self._api.model, session))
        with redis.Redis(port=urlsplit(self.url).port or 0) as client:
            elements: list[bytes] = client.lrange(name, 0, -1)
            client.delete(name)
            client.rpush(name, *change(elements))

    def execute(self, statement: str, parameters: Sequence[object]) -> None:
        """SQLite: executes one statement, in which `record` is that of the session, the last parameter."""
        *before, session = parameters
        find = "(SELECT record FROM records WHERE session = CAST(? AS BLOB))"
        connection = sqlite3.connect(Path(self.url.removeprefix("sqlite:")), timeout=10)
        with connection:
            connection.execute(f"{statement} WHERE record = {find}", [*before, session])
        connection.close()

    def spoil_id(self, session: str, raw: bytes) -> None:
        """SQLite: gives the session's row another id."""
        self.execute("UPDATE records SET session = ?", (raw, session))

    def spoil_header(self, session: str) -> None:
        """Makes the session's header unreadable."""
        if self.url.startswith("sqlite:"):
            self.execute("UPDATE records SET checked_header = ?", (b"none", session))
        else:
            self.change_elements(session, lambda elements: [*elements, b"none"])

    def flip_log(self, session: str) -> None:
        """Flips a bit of the last input in the log."""
        if self.url.startswith("sqlite:"):
            self.execute(
                "UPDATE chunks SET inputs = CAST(substr(inputs, 1, length(inputs) - 1) || x'7f' AS BLOB)", (session,)
            )
        else:
            self._change_inputs(session, flipped)

    def swap_log(self, session: str) -> None:
        """Swaps the last two inputs in the log."""
        if self.url.startswith("sqlite:"):
            swapped = "substr(inputs, 1, length(inputs) - 8) || substr(inputs, -4) || substr(inputs, -8, 4)"
            self.execute(f"UPDATE chunks SET inputs = CAST({swapped} AS BLOB)", (session,))
        else:
            self._change_inputs(session, lambda inputs: inputs[:-8] + inputs[-4:] + inputs[-8:-4])

    def _change_inputs(self, session: str, change: Callable[[bytes], bytes]) -> None:
        """Redis: changes the last element that has inputs."""

        def changed(elements: list[bytes]) -> list[bytes]:
            at = max(number for number, element in enumerate(elements) if element[:1] == b"D")
            return [*elements[:at], change(elements[at]), *elements[at + 1 :]]

        self.change_elements(session, changed)

    def flip_checkpoint(self, session: str) -> None:
        """Flips a bit of the checkpoint's state."""
        if self.url.startswith("sqlite:"):
            state = flipped(self.sample.checkpoint)
            self.execute("UPDATE checkpoints SET state = ?", (state, session))
        else:
            self.change_elements(session, lambda elements: [flipped(elements[0]), *elements[1:]])

    def __enter__(self) -> Vault:
        return self

    def __exit__(self, *_: object) -> None:
        self._store.close()


def flipped(data: bytes) -> bytes:
    """Returns the data with the last byte's lowest bit flipped."""
    return data[:-1] + bytes([data[-1] ^ 1])
