"""Switches that turn off the protocol rules that the client keeps. See switches.py."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any
from unittest.mock import patch

from cellkeeper._session.chunk import Chunk, ChunkState
from cellkeeper._session.history import History
from cellkeeper._session.verdict import RESEND


def acks_without_holes() -> AbstractContextManager[Any]:
    launch = History.launch

    def with_holes(self: History, chunk: Chunk) -> None:
        launch(self, chunk)
        highest = max([c.end.step for c in self._open if c.state is ChunkState.DONE], default=0)
        chunk.acked_sent = min(max(chunk.acked_sent, highest), chunk.start.step)

    return patch.object(History, "launch", with_holes)


def client_replays_on_its_own_history() -> AbstractContextManager[Any]:
    gap = History._gap

    def on_any(self: History, chunk: Any, position: Any) -> Any:
        if position is None or self._reason_against(position) != "HISTORY_CHANGED":
            return gap(self, chunk, position)
        self._again(chunk)
        self._reopen(position.step)
        at, held = position, self.position.step
        for one in self._open:
            if one.start.step >= position.step:
                one.start = at
                one.end = at = at.advance(one.inputs, 4)
            if one.end.step == held:
                self.position = one.end
        return RESEND

    return patch.object(History, "_gap", on_any)


def compacted_is_harmless_when_held() -> AbstractContextManager[Any]:
    on_error = History.on_error

    def strict(self: History, chunk: Any, reason: str, position: Any = None) -> Any:
        if reason == "STEP_COMPACTED" and chunk.held and self._count_outcome(chunk):
            return self._fail(chunk, reason)
        return on_error(self, chunk, reason, position)

    return patch.object(History, "on_error", strict)
