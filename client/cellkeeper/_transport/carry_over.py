"""Carries sessions over to another version of their model, one or many at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

from cellkeeper_proto.v1 import cellkeeper_pb2 as pb

from .._session.arguments import id_text, invalid, session_id, several_ids
from .._session.named_inputs import inputs_of
from ..errors import CellkeeperError, InvalidArgument, error_of_reason
from ..types import CarriedOver, Model, Sample, SessionInfo
from .caller import Caller
from .frame_codec import frame_bytes
from .item_calls import MAX_ITEMS, each_result, page_items
from .requests import chunk_fields, request_id
from .wire import session_info_of

POLICIES: dict[str, Any] = {
    "keep": pb.CarryOverRequest.KEEP,
    "rerun": pb.CarryOverRequest.RERUN,
    "reset": pb.CarryOverRequest.RESET,
}

WindowOf = Callable[[SessionInfo], "Sample | None"]


def check_policy(policy: str) -> None:
    if not isinstance(policy, str) or policy not in POLICIES:
        raise invalid("policy", repr(policy), f"one of {', '.join(POLICIES)}")


def carry_over_item(model: Model, session: str, generation: bytes, policy: str, window: Sample | None) -> Any:
    """Returns a CarryOverRequest.Item. Raises InvalidArgument."""
    check_policy(policy)
    if (window is None) == (policy == "rerun"):
        came = "none with rerun" if window is None else f"one with {policy}"
        raise invalid("window", came, "a window of inputs with rerun, and none with any other policy")
    fields = {} if window is None else chunk_fields(model, inputs_of(model).convert(window)[0])
    return pb.CarryOverRequest.Item(
        session=session, generation=generation, request_id=request_id(), policy=POLICIES[policy], **fields
    )


class CarryOver:
    """Carries many sessions over, page by page, for the clients' carry_over. result: the outcomes so far."""

    def __init__(self, client: Caller, target: Model, policy: str, timeout: float | None) -> None:
        check_policy(policy)
        self.result = CarriedOver()
        self._client = client
        self._target = target
        self._request = partial(pb.CarryOverRequest, model=target.name, fingerprint=target.fingerprint)
        self._policy = policy
        self._timeout = timeout
        self._prefix = ""
        self._named: list[str] | None = None  # those still to read; None: all of the prefix, page by page
        self._token: str | None = ""

    def choose(self, prefix: str, sessions: Iterable[str] | None) -> None:
        """Chooses these sessions, or all whose id starts with `prefix`. Reads `sessions`, in the caller's thread."""
        self._prefix = id_text(prefix, "prefix")
        if sessions is not None:
            self._named = [session_id(session, "sessions") for session in several_ids(sessions)]

    async def page(self) -> list[SessionInfo] | None:
        """Returns the next of the chosen sessions, without those of the new version; None after the last page."""
        if self._named is not None:
            names, self._named = self._named[:MAX_ITEMS], self._named[MAX_ITEMS:]
            return self._of_other_versions(await self._infos(names)) if names else None
        if self._token is None:
            return None
        request = pb.ListSessionsRequest(model=self._target.name, prefix=self._prefix, page_token=self._token)
        page = await self._client._call("ListSessions", request, self._prefix, self._timeout)
        self._token = page.next_page_token or None
        return self._of_other_versions(session_info_of(info) for info in page.sessions)

    async def _infos(self, sessions: Iterable[str]) -> list[SessionInfo]:
        """Reads each of these sessions. Failures are recorded one by one."""
        infos = []
        for session in sessions:
            try:
                infos.append(await self._client.session_info(session, model=self._target.name, timeout=self._timeout))
            except CellkeeperError as error:  # noqa: PERF203 - each session fails on its own
                self.result._fail(session, error)
        return infos

    def _of_other_versions(self, infos: Iterable[SessionInfo]) -> list[SessionInfo]:
        others = []
        for info in infos:
            if info.damage:
                self.result._fail(info.session, error_of_reason("DATA_LOSS", info.damage))
            elif info.fingerprint == self._target.fingerprint:
                self.result._count("already")
            else:
                others.append(info)
        return others

    async def carry(self, sessions: Iterable[tuple[SessionInfo, Sample | None]]) -> None:
        """Carries over each session, with its window if the policy is rerun; None skips that session."""
        items: dict[str, Any] = {}  # a session that was named twice is carried over once
        held_bytes, most_bytes = 0, frame_bytes(self._target)  # a request takes as much as a frame
        for info, window in sessions:
            if window is None and self._policy == "rerun":
                self.result._count("skipped")
                continue
            try:
                item = carry_over_item(self._target, info.session, info.position.generation, self._policy, window)
            except InvalidArgument as error:
                self.result._fail(info.session, error)
                continue
            if items and (len(items) == page_items(self._target) or held_bytes + item.ByteSize() > most_bytes):
                await self._send([*items.values()])
                items, held_bytes = {}, 0
            items[info.session] = item
            held_bytes += item.ByteSize()
        if items:
            await self._send([*items.values()])

    async def _send(self, items: Sequence[Any]) -> None:
        for item, outcome in await each_result(self._client, "CarryOver", self._request, items, self._timeout):
            if isinstance(outcome, CellkeeperError):
                self.result._fail(item.session, outcome)
            else:
                self.result._count("already" if outcome.position.generation == item.generation else "carried")
