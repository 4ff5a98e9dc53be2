"""Deletes many sessions, several in one request."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

from cellkeeper_proto.v1 import cellkeeper_pb2 as pb

from .._session.arguments import invalid
from ..errors import CellkeeperError, InvalidArgument
from ..types import Deleted, Model, SessionInfo
from .caller import Caller
from .item_calls import each_result, page_items


def listed(sessions: object) -> Iterable[Any]:
    """Returns the sessions. Raises InvalidArgument for anything but an iterable of them."""
    if isinstance(sessions, str | bytes) or not isinstance(sessions, Iterable):
        raise _wrong(sessions)
    return sessions


class BulkDelete:
    """Deletes sessions for the clients' delete_many. result: the outcomes so far."""

    def __init__(self, client: Caller, model: Model, timeout: float | None) -> None:
        self.result = Deleted()
        self.room = page_items(model)  # sessions in one call of `delete`
        self._client = client
        self._request = partial(pb.DeleteRequest, model=model.name)
        self._timeout = timeout

    async def delete(self, sessions: Sequence[SessionInfo]) -> None:
        """Deletes each session in the generation it was listed with. Failures are recorded one by one."""
        for info in sessions:
            if not isinstance(info, SessionInfo):
                raise _wrong(info)
        items = [pb.DeleteRequest.Item(session=info.session, generation=info.position.generation) for info in sessions]
        for item, outcome in await each_result(self._client, "Delete", self._request, items, self._timeout):
            if isinstance(outcome, CellkeeperError):
                self.result._fail(item.session, outcome)
            else:
                self.result._count(deleted=outcome.deleted)


def _wrong(given: object) -> InvalidArgument:
    return invalid("sessions", type(given).__name__, "SessionInfo objects, as `sessions` lists them")
