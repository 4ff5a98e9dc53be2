"""A session's history without a transport, and shortcuts to its states."""

from __future__ import annotations

from typing import Any

from cellkeeper import Position, first_position
from cellkeeper._session.chunk import Chunk
from cellkeeper._session.history import History
from cellkeeper._session.verdict import Action

WIDTH = 4
START = first_position(bytes(range(16)))


def steps(*values: int) -> bytes:
    return b"".join(value.to_bytes(WIDTH, "little") for value in values)


def new_history(**options: Any) -> History:
    return History(START, step_bytes=WIDTH, **options)


def send(history: History) -> Chunk:
    chunk = history.upcoming
    if chunk is None:
        raise LookupError("nothing to send")
    history.launch(chunk)
    return chunk


def sent(history: History, *inputs: bytes) -> list[Chunk]:
    for chunk in inputs:
        history.append(chunk)
    return [send(history) for _ in inputs]


def answered(history: History, *inputs: bytes) -> list[Chunk]:
    chunks = sent(history, *inputs)
    for chunk in chunks:
        if history.on_reply(chunk, chunk.end).action is not Action.DELIVER:
            raise LookupError("not delivered")
    return chunks


def resent(history: History) -> list[Chunk]:
    chunks = []
    while history.upcoming is not None:
        chunks.append(send(history))
    return chunks


def bytes_and_places(*chunks: Chunk) -> list[tuple[bytes, Position, Position]]:
    """Returns what identifies a resend: for a replay, a new chunk object replaces the answered one."""
    return [(chunk.inputs, chunk.start, chunk.end) for chunk in chunks]
