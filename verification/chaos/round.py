"""One round: clients work under faults, everything comes to rest, and the sessions are read back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import numpy as np
from cellkeeper_proto.v1 import cellkeeper_pb2 as pb

from testing.wire_client import Position, Refused, Replica
from tests.integration.acceptance.sequences import Model

from .checker import Verdict
from .cluster import Cluster
from .crew import OFFICIAL, Crew, TrackedSession
from .excuses import PASSING, is_damaged
from .faults import Faults
from .fleet import Fleet
from .groups import Groups
from .history import History, Rest
from .meddler import Meddler
from .memory import unfinished
from .pumps import Habits, Pumps
from .raw import LateCopies, Rough
from .settings import Settings

FINISH_S = 120.0  # for the last step of every session, after all faults are over
READ_TRIES = 40
MOST_BURSTS = 400_000  # in a round, each with one or two answers: about 1 GiB
LOOK_S = 0.5
SINGLES = Habits(stream=0.0, window=0.0, single=0.97, reset=0.01, set_state=0.005, fork=0.01, delete=0.005)


@dataclass
class Round:
    """The result of a round.

    seconds: from the first request to the end of the last fault. races: what clients did to each other, by kind.
    replayed_steps: steps that official clients replayed on their own because the store had lost them.
    """

    history: History
    races: dict[str, int]
    replayed_steps: int
    started: float
    seconds: float
    verdict: Verdict = field(default_factory=Verdict)
    check_seconds: float = 0.0


Tamper = Callable[[Cluster, History], Awaitable[None]]


async def play(
    settings: Settings, cluster: Cluster, models: list[Model], number: int, seconds: float, tamper: Tamper | None
) -> Round:
    """Plays one round of at most `seconds` of faults on a running cluster.

    number: of the round, counting from 0; each round has its own sessions. tamper: receives the cluster when all
    clients have made their last step, before everything is read back.
    """
    seed, prefix = settings.seed + (number << 32), f"round-{number}/" if number else ""
    crew = Crew(History(), models, cluster.targets, cluster.websockets, seed, prefix)
    pumps = _pumps(crew, settings)
    late = LateCopies(crew)
    rough = [
        Rough(crew, f"rough-{index}", _track(crew, f"rough-{index}", models[index % 2]), late)
        for index in range(settings.rough)
    ]
    fleets = [
        Fleet(crew, f"fleet-{number}", _fleet_of(crew, f"fleet-{number}", models[number % 2], settings))
        for number in range(settings.fleets)
    ]
    groups = [
        Groups(crew, f"{OFFICIAL}-group-{number}", _fleet_of(crew, f"group-{number}", models[number % 2], settings))
        for number in range(settings.groups)
    ]
    direct_clients = [
        Rough(crew, f"direct-{index}", _track(crew, f"direct-{index}", models[index % 2]), late)
        for index in range(settings.direct_clients)
    ]
    faults = Faults(cluster, crew, pumps, settings.every_s, settings.only, direct_clients=direct_clients)
    # one connection for each worker: the kernel distributes them
    replicas = [Replica(target, 1.5) for target in cluster.targets for _ in range(settings.workers)]
    started = time.monotonic()
    try:
        for pump in pumps:
            pump.start()
        by_themselves: list[Rough | Fleet | Groups] = [*rough, *fleets, *groups]
        others = [asyncio.create_task(client.run(), name=f"last step of {client.name}") for client in by_themselves]
        meddling = [
            asyncio.create_task(Meddler(crew, settings.meddle_s).run(replicas)),
            asyncio.create_task(late.run(replicas)),
        ]
        trouble = asyncio.create_task(faults.run())
        await _until(started + seconds, crew.history, [*others, *meddling, trouble])
        crew.stopping.set()
        await asyncio.gather(trouble, *meddling)
        await cluster.heal()
        crew.ending.set()
        ended = time.monotonic()
        others += [asyncio.create_task(client.run(), name=f"last step of {client.name}") for client in direct_clients]
        lasts = [*others, *(asyncio.create_task(pump.finish()) for pump in pumps)]
        done, going_on = await asyncio.wait(lasts, timeout=FINISH_S)
        for task in done:
            task.result()
        if going_on:
            words = f"{len(going_on)} clients made no last step within {FINISH_S:g} s: {unfinished()}"
            crew.history.crashes.append(words)
            for task in going_on:
                task.cancel()
        await late.send_rest(replicas)
        await late.ask_again(replicas)
        if tamper is not None:
            await tamper(cluster, crew.history)
        await _read_back(crew, replicas)
    finally:
        for replica in replicas:
            await replica.close()
    cluster.tell(crew.history)
    return Round(crew.history, crew.races, crew.replayed_steps, started, ended - started)


async def _until(end: float, history: History, tasks: list[asyncio.Task[None]]) -> None:
    """Waits until `end`, or until the history has reached its maximum size. Raises what a task raises before."""
    while (left := end - time.monotonic()) > 0 and history.count_bursts() < MOST_BURSTS:
        done, _ = await asyncio.wait(tasks, timeout=min(left, LOOK_S), return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            task.result()
        tasks = [task for task in tasks if not task.done()]


def _pumps(crew: Crew, settings: Settings) -> list[Pumps]:
    found = []
    for number in range(settings.clients):
        tracked_sessions = [
            _track(crew, f"pump-{number}/{index}", crew.models[index % len(crew.models)])
            for index in range(settings.sessions)
        ]
        found.append(Pumps(crew, f"{OFFICIAL}-{number}", tracked_sessions, Habits()))
    if settings.singles:
        tracked_sessions = [_track(crew, f"single-{at}", crew.models[at % 2]) for at in range(settings.singles)]
        found.append(Pumps(crew, f"{OFFICIAL}-of-singles", tracked_sessions, SINGLES))
    draw, expiring = crew.dice(), []
    for index in range(settings.expiring):
        tracked = _track(crew, f"expiring-{index}", crew.models[index % len(crew.models)])
        crew.history.ttls[tracked.session] = draw.uniform(0.3, 1.5)
        expiring.append(tracked)
    if expiring:
        found.append(Pumps(crew, f"{OFFICIAL}-of-expiring", expiring, Habits()))
    return found


def _fleet_of(crew: Crew, name: str, model: Model, settings: Settings) -> list[TrackedSession]:
    """Returns sessions that are stepped together."""
    return [_track(crew, f"{name}/{index}", model) for index in range(settings.fleet)]


def _track(crew: Crew, session: str, model: Model) -> TrackedSession:
    session = crew.prefix + session
    tracked = crew.tracked_sessions[session] = TrackedSession(session, model)
    return tracked


async def _read_back(crew: Crew, replicas: list[Replica]) -> None:
    """Reads every session through every server."""
    for number, replica in enumerate(replicas):
        room = asyncio.Semaphore(16)

        async def read(session: str, model: str, number: int = number, replica: Replica = replica) -> None:
            async with room:  # noqa: B023 - awaited within the iteration
                crew.history.rests.append(await _rest(session, model, number, replica))

        await asyncio.gather(*(read(session, model) for session, model in list(crew.history.models.items())))


async def _rest(session: str, model: str, number: int, replica: Replica) -> Rest:
    asked_at = time.monotonic()
    for _ in range(READ_TRIES):
        reply = await replica.call("GetState", pb.GetStateRequest(model=model, session=session))
        if not isinstance(reply, Refused):
            states = {
                tensor.name.removeprefix("state."): np.frombuffer(tensor.data, "<f4").reshape(tuple(tensor.shape))
                for tensor in reply.state
            }
            return Rest(session, model, Position.of(reply.position), states, number, asked_at, time.monotonic())
        if reply.reason == "SESSION_NOT_FOUND":
            return Rest(session, model, None, {}, number, asked_at, time.monotonic())
        if is_damaged(reply.message) or reply.reason not in PASSING:
            words = f"{reply.reason} {reply.message}"
            return Rest(session, model, None, {}, number, asked_at, time.monotonic(), words)
        await asyncio.sleep(0.25)
    raise RuntimeError(f"{session!r} cannot be read after the run: {reply}")
