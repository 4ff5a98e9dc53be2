"""Works with the official client's groups.

Many sessions of one model are stepped as one, or any part of them; members are settled, forgotten and reopened; callers
of steps go away; and the client itself is replaced.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress

import numpy as np
from cellkeeper import AsyncClient, AsyncGroup, CellkeeperError, GroupError, GroupReply
from cellkeeper import Position as ClientPosition

from testing.wire_client import Position

from .expected_errors import OPEN_ENDED
from .history import Ack, Burst
from .workload import ATTEMPT_S, TIMEOUT_S, TrackedSession, Workload

MOST_CHUNK_STEPS = 12
FORGET_S = 0.2  # for the late steps of members that will be reopened anyway


class GroupClient:
    """One official client with one group. tracked_sessions: of one model."""

    def __init__(self, workload: Workload, name: str, tracked_sessions: Sequence[TrackedSession]) -> None:
        self.name = name
        self._workload = workload
        self._draw = workload.dice()
        self._tracked_sessions = {tracked.session: tracked for tracked in tracked_sessions}
        self._model = tracked_sessions[0].model

    async def run(self) -> None:
        """Works until the last step of every session is answered."""
        while not await self._with_one_client():
            self._workload.did("group_client_replaced")

    async def _with_one_client(self) -> bool:
        """Returns False if another client takes over: this one was closed with requests in flight."""
        targets, websockets = self._workload.addresses(self._draw)
        async with AsyncClient(
            targets,
            timeout=TIMEOUT_S,
            attempt_timeout=ATTEMPT_S,
            connect_timeout=TIMEOUT_S,
            websocket=websockets,
        ) as client:
            try:
                while True:
                    try:
                        group = await client.group([], model=self._model.name)
                        return await self._work(group)
                    except CellkeeperError:  # noqa: PERF203 - no server, or none that is ready
                        await asyncio.sleep(self._draw.uniform(0.0, 0.1))
            finally:
                self._workload.replayed_steps += client.counters.replayed_steps

    async def _work(self, group: AsyncGroup) -> bool:
        while True:
            last = self._workload.ending.is_set()
            await self._open_missing(group)
            missing = len(self._tracked_sessions) - len(group)
            if not last and self._draw.random() < 0.005:
                await self._leave_midway(group)
                return False
            failed = await self._turn(group, last) if len(group) else {}
            if last and not missing and not failed:
                return True
            await self._look_after(group, failed)
            if missing or failed:
                await asyncio.sleep(self._draw.uniform(0.0, 0.05))

    # ------------------------------------------------------------------------------------------ members

    async def _open_missing(self, group: AsyncGroup) -> None:
        """Opens missing members at their known positions; after a refusal, at whatever position they have."""
        lost = [tracked for name, tracked in self._tracked_sessions.items() if name not in group]
        if not lost:
            return
        expect = {each.session: each.position for each in lost if each.position is not None}
        operations = {
            each.session: self._workload.operation("open", each, self.name, expect=expect.get(each.session))
            for each in lost
        }
        insist = {name: ClientPosition(*position) for name, position in expect.items()}
        created: Mapping[str, bool] = {}
        errors: Mapping[str, CellkeeperError] = {}
        try:
            created = await group.add(list(operations), expect=insist)
        except GroupError as error:  # which does not say what the others' openings created
            errors = error.errors
            created = {name: name not in expect for name in operations}
        except CellkeeperError as error:
            errors = dict.fromkeys(operations, error)
        positions = group.positions
        for name, operation in operations.items():
            tracked, operation.at = self._tracked_sessions[name], time.monotonic()
            if name in errors:
                operation.error, operation.error_text = reason_of(errors[name]), str(errors[name])
                if operation.error not in OPEN_ENDED:
                    tracked.position = None
                continue
            operation.created = created.get(name, False)
            operation.result = tracked.position = Position(*positions[name])
            self._workload.opened(tracked, self.name)

    async def _look_after(self, group: AsyncGroup, failed: Mapping[str, CellkeeperError]) -> None:
        """Settles members that failed, so that they continue, or reopens them."""
        again = set(failed)
        if failed and self._draw.random() < 0.5:
            self._workload.did("group_settled")
            try:
                await group.settle()
                again.clear()
            except GroupError as error:
                again = set(error.errors)
            except CellkeeperError:
                again = set(failed)
            again |= {name for name, error in failed.items() if error.late_step is None}
        self._note_positions(group)
        if again:
            with suppress(CellkeeperError):
                await group.remove(sorted(again), timeout=FORGET_S)

    def _note_positions(self, group: AsyncGroup) -> None:
        for name, position in group.positions.items():
            self._tracked_sessions[name].position = Position(*position)

    # ------------------------------------------------------------------------------------------ steps

    async def _turn(self, group: AsyncGroup, last: bool) -> Mapping[str, CellkeeperError]:
        """Steps all members, or some. Returns the errors of those that failed."""
        draw = self._draw
        bursts = self._begin(group, group.ids if last or draw.random() < 0.7 else self._some(group))
        rows = {name: burst.inputs[0] if len(burst.inputs) == 1 else burst.inputs for name, burst in bursts.items()}
        whole = tuple(rows) == group.ids
        names = ("prediction", "state") if draw.random() < 0.05 else ("prediction",)
        for burst in bursts.values():
            burst.wanted = names
        try:
            reply = await group.step_reply(np.stack(list(rows.values())) if whole else rows, outputs=names)
        except CellkeeperError as error:
            for burst in bursts.values():
                fail(burst, reason_of(error), str(error))
            return dict.fromkeys(bursts, error)
        self._take(bursts, reply)
        self._note_positions(group)
        return reply.errors

    def _some(self, group: AsyncGroup) -> Sequence[str]:
        return self._draw.sample(group.ids, self._draw.randint(1, len(group)))

    def _begin(self, group: AsyncGroup, names: Sequence[str]) -> dict[str, Burst]:
        steps = 1 if self._draw.random() < 0.7 else self._draw.randint(2, MOST_CHUNK_STEPS)
        positions = group.positions
        return {
            name: self._workload.begin(
                self._tracked_sessions[name],
                positions[name],
                self._workload.draw_inputs(self._model, self._draw, steps),
                positions[name].step,
            )
            for name in names
        }

    def _take(self, bursts: Mapping[str, Burst], reply: GroupReply) -> None:
        now = time.monotonic()
        states = reply.state
        replayed, positions = reply.replayed, reply.positions
        for row, name in enumerate(reply.ids):
            burst, steps = bursts[name], len(bursts[name].inputs)
            outputs = {
                key: values[row][None] if steps == 1 else values[row]
                for key, values in reply.outputs.items()
                if not key.startswith("state.")
            }
            own = {key: values[row] for key, values in states.items()}
            burst.acks.append(Ack(steps, now, Position(*positions[row]), outputs, own, not replayed[row]))
        for name, error in reply.errors.items():
            fail(bursts[name], reason_of(error), str(error))

    async def _leave_midway(self, group: AsyncGroup) -> None:
        """Starts a step, and leaves with the client before it is answered."""
        bursts = self._begin(group, group.ids)
        step = asyncio.ensure_future(group.step_reply({name: burst.inputs for name, burst in bursts.items()}))
        await asyncio.sleep(self._draw.choice((0.0, 0.001, 0.02)))
        step.cancel()
        await asyncio.gather(step, return_exceptions=True)
        for burst in bursts.values():
            fail(burst, "CLIENT_KILLED", "")


def reason_of(error: CellkeeperError) -> str:
    return error.reason or type(error).__name__


def fail(burst: Burst, reason: str, text: str) -> None:
    burst.error, burst.error_text, burst.error_at = reason, text, time.monotonic()
