"""The members of a group: ids, rows, and the calls that start and end their generations."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import Any

import numpy as np
from cellkeeper_proto.v1 import cellkeeper_pb2 as pb

from .._session.arguments import invalid, session_id, several_ids, ttl_milliseconds
from .._session.group_history import Members
from .._session.group_sender import GroupSender
from .._session.time_limit import TimeLeft
from ..errors import CellkeeperError, Closed, ModelChanged
from ..position import Position
from ..types import Model
from .caller import Caller
from .item_calls import call_items
from .requests import request_id
from .wire import position_message, position_of


class GroupMembers:
    """The members of a group. all: in their order."""

    def __init__(self, client: Caller, model: Model, sender: GroupSender, ttl: float | timedelta | None) -> None:
        self._client = client
        self._model = model
        self._sender = sender
        self._ttl_ms = ttl_milliseconds(ttl)
        self._rows: dict[str, int] = {}
        self.all = self._latest = Members(np.zeros(0, np.intp), [])

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, name: object) -> bool:
        return name in self._rows

    def pairs(self) -> Iterator[tuple[str, int]]:
        """Returns ids and rows, in order."""
        return iter(list(self._rows.items()))

    def of(self, names: Sequence[str]) -> Members:
        """Returns these members in this order; the same object if they are all members, or those of the last call."""
        for known in (self.all, self._latest):
            if names is known.names or list(names) == known.names:
                return known
        self._latest = Members(np.array([self._rows[name] for name in names], np.intp), list(names))
        return self._latest

    def named(self, names: Iterable[str] | None) -> Members:
        """Returns these members, or all. Raises InvalidArgument."""
        if names is None:
            return self.all
        given = several_ids(names)
        self.check(given, "sessions")
        return self.of(given)

    def check(self, names: Sequence[object], field: str, place: str = "") -> None:
        """Raises InvalidArgument if these are not members, or occur twice.

        field: the argument that has them. place: where in it they belong, for the message.
        """
        for at, name in enumerate(names):
            if not isinstance(name, str) or name not in self._rows:
                raise invalid(field, f"{name!r} at {at}", f"the id of a member{place} (the group has {len(self)})")
        _check_each_once(names, field)

    def positions(self, members: Members) -> list[tuple[str, Position]]:
        """Returns the id and position of each."""
        rows = zip(members.names, members.rows.tolist(), strict=True)
        return [(name, self._sender.history.position(row)) for name, row in rows]

    def gone(self, row: int, name: str) -> CellkeeperError | None:
        """Returns the error for a member that has left `row`, which may be another's by now; None: it is still there.

        Whatever awaits something between two uses of a row must ask again.
        """
        return None if self._rows.get(name) == row else Closed(f"session {name!r} left the group")

    # ------------------------------------------------------------------------------------------ calls

    async def call(
        self, method: str, message: Any, items: Mapping[str, Any], left: TimeLeft
    ) -> tuple[dict[str, Any], dict[str, CellkeeperError]]:
        """Makes a call with one item for each of some members. Returns results and errors, by id.

        message: the class of its request. If all members fail with one and the same error, raises it. Raises Closed.
        """
        self._sender.check()
        most = self._model.max_frame_items or len(items)
        request = partial(message, model=self._model.name)
        results, errors = await call_items(self._client, method, request, items, max_items=max(1, most), left=left)
        causes = {id(error): error for error in errors.values()}
        if errors and len(errors) == len(items) and len(causes) == 1 and len(items) > 1:
            raise next(iter(causes.values()))
        return results, errors

    async def open(
        self, names: Iterable[str], expect: Mapping[str, Position], left: TimeLeft
    ) -> tuple[dict[str, Any], dict[str, CellkeeperError]]:
        """Opens sessions that are not members yet. Returns the OpenResponses and the errors, by id."""
        given = [session_id(name, f"sessions[{at}]") for at, name in enumerate(several_ids(names))]
        for at, name in enumerate(given):
            if name in self._rows:
                raise invalid("sessions", f"{name!r} at {at}", "sessions that are not members yet")
        _check_each_once(given, "sessions")
        for name in expect:
            if name not in given:
                raise invalid("expect", f"a position for {name!r}", "positions of these `sessions`")
        opened, errors = await self._open(given, expect, left)
        return {name: opened[name] for name in given if name in opened}, errors

    async def take_in(
        self, opened: Mapping[str, Any], errors: dict[str, CellkeeperError], left: TimeLeft
    ) -> dict[str, bool]:
        """Appends opened sessions to the members. Returns, by id, whether opening created it.

        Adds those that do not match the group to `errors`. Raises Closed.
        """
        errors.update(await self._mismatches(opened, left))
        self._sender.check()  # the group may have been closed meanwhile
        found = [name for name in opened if name not in errors]
        rows = self._sender.history.add([position_of(opened[name].position) for name in found])
        for name, row in zip(found, rows, strict=True):
            self._rows[name] = row
        self._changed()
        return {name: opened[name].created for name in found}

    async def restart(self, positions: Mapping[str, Position], left: TimeLeft) -> dict[str, CellkeeperError]:
        """Gives these members new generations.

        Returns the errors of those that now belong to a version of the model with other inputs or outputs. Raises
        Closed.
        """
        self._sender.check()
        for name, position in positions.items():
            row = self._rows[name]
            self._sender.forget(row, name, Closed(f"session {name!r} started another generation"))
            self._sender.history.restart(row, position)
        opened, errors = await self._open(list(positions), positions, left)
        return {**errors, **await self._mismatches(opened, left)}

    def remove(self, members: Members) -> None:
        """Removes these members from the group. Raises Closed."""
        self._sender.check()  # the group may have been closed meanwhile
        for name, row in zip(members.names, members.rows.tolist(), strict=True):
            self._sender.remove(row, name, Closed(f"session {name!r} left the group"))
            del self._rows[name]
        self._changed()

    # ------------------------------------------------------------------------------------------ inside

    def _changed(self) -> None:
        self.all = self._latest = Members(np.array(list(self._rows.values()), np.intp), list(self._rows))

    async def _open(
        self, names: Sequence[str], expect: Mapping[str, Position], left: TimeLeft
    ) -> tuple[dict[str, Any], dict[str, CellkeeperError]]:
        items = {
            name: pb.OpenManyRequest.Item(
                session=name,
                request_id=request_id(),
                expect=position_message(expect[name]) if name in expect else None,
                ttl_ms=self._ttl_ms,
            )
            for name in names
        }
        results, errors = await self.call("OpenMany", pb.OpenManyRequest, items, left)
        return {name: result.opened for name, result in results.items()}, errors

    async def _mismatches(self, opened: Mapping[str, Any], left: TimeLeft) -> dict[str, CellkeeperError]:
        """Returns, by id, why some of these cannot be stepped together with the others."""
        versions: dict[bytes, CellkeeperError | None] = {self._model.fingerprint: None}
        found = {}
        for name, answer in opened.items():
            if answer.fingerprint not in versions:
                versions[answer.fingerprint] = await self._mismatch(name, answer.fingerprint, left)
            if (error := versions[answer.fingerprint]) is not None:
                found[name] = error
        return found

    async def _mismatch(self, name: str, fingerprint: bytes, left: TimeLeft) -> CellkeeperError | None:
        """Returns why sessions of another version cannot be stepped together with the others; None if they can."""
        ours = self._model
        try:
            theirs = await self._client._served(name, ours.name, fingerprint, left())
        except ModelChanged as gone:
            return gone
        for what in (
            "input",
            "inputs",
            "feature_names",
            "outputs",
            "states",
            "vocabulary",
            "missing_values",
            "feedback",
            "input_feedback",
        ):
            if getattr(ours, what) != getattr(theirs, what):
                text = (
                    f"{what}: the session belongs to version {fingerprint.hex()[:12]} of {ours.name!r}, where it is "
                    f"{getattr(theirs, what)!r}; expected that of the group's version {ours.fingerprint.hex()[:12]}, "
                    f"{getattr(ours, what)!r}; open it in a group of its own"
                )
                return ModelChanged(text, reason="MODEL_CHANGED")
        return None


def _check_each_once(names: Sequence[object], field: str) -> None:
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise invalid(field, f"{twice!r} twice", "each once", "DUPLICATE_SESSION")
