"""Deletes many sessions, several in one request."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from cellkeeper_proto.v1 import cellkeeper_pb2 as pb

from .._session.arguments import invalid
from .._session.retry import worth_retrying
from ..errors import CellkeeperError, InvalidArgument
from ..types import Deleted, Model, SessionInfo
from .caller import Caller
from .calls import only_result
from .wire import error_of

MAX_ITEMS = 64  # sessions in one request


def listed(sessions: object) -> Iterable[Any]:
    """Returns the sessions. Raises InvalidArgument for anything but an iterable of them."""
    if isinstance(sessions, str | bytes) or not isinstance(sessions, Iterable):
        raise _wrong(sessions)
    return sessions


class BulkDelete:
    """Deletes sessions for the clients' delete_many. result: the outcomes so far."""

    def __init__(self, client: Caller, model: Model, timeout: float | None) -> None:
        self.result = Deleted()
        self.room = min(MAX_ITEMS, model.max_frame_items or MAX_ITEMS)  # sessions in one call of `delete`
        self._client = client
        self._model = model.name
        self._timeout = timeout

    async def delete(self, sessions: Sequence[SessionInfo]) -> None:
        """Deletes each session in the generation it was listed with. Failures are recorded one by one."""
        for info in sessions:
            if not isinstance(info, SessionInfo):
                raise _wrong(info)
        items = [pb.DeleteRequest.Item(session=info.session, generation=info.position.generation) for info in sessions]
        answer = await self._client._call("Delete", self._request(items), items[0].session, self._timeout)
        for item, result in zip(items, answer.results, strict=True):
            try:
                await self._note(item, result)
            except CellkeeperError as error:  # noqa: PERF203 - each session fails on its own
                self.result._fail(item.session, error)

    async def _note(self, item: Any, result: Any) -> None:
        """Counts the outcome of one item. Sends the item again by itself if it failed for a transient reason."""
        if result.HasField("error"):
            error = error_of(result.error)
            if not worth_retrying(error):
                raise error
            again = self._request([item])
            result = await self._client._call("Delete", again, item.session, self._timeout, only_result)
        self.result._count(deleted=result.deleted)

    def _request(self, items: Sequence[Any]) -> Any:
        return pb.DeleteRequest(model=self._model, items=items)


def _wrong(given: object) -> InvalidArgument:
    return invalid("sessions", type(given).__name__, "SessionInfo objects, as `sessions` lists them")
