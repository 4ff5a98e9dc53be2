"""One round: clients work under faults, everything comes to rest, and the sessions are read back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from cellkeeper_proto.v1 import cellkeeper_pb2 as pb

from testing.wire_client import Position, Refused, Replica
from tests.integration.acceptance.sequences import Model

from .deployment import Deployment
from .expected_errors import PASSING, is_damaged
from .expiry import use_rarely
from .frame_client import FrameClient
from .group_client import GroupClient
from .history import FinalRead, History
from .interfering_client import InterferingClient
from .late_copies import LateCopies
from .memory import unfinished
from .nemesis import Nemesis
from .official_client import OfficialClient, OperationMix
from .quiet import step_quietly
from .raw_client import RawClient
from .settings import Settings
from .verdict import Verdict
from .workload import OFFICIAL, TrackedSession, Workload

FINISH_S = 120.0  # for the last step of every session, after all faults are over
READ_TRIES = 40
MOST_BURSTS = 400_000  # in a round, each with one or two answers: about 1 GiB
LOOK_S = 0.5
SINGLES = OperationMix(stream=0.0, window=0.0, single=0.97, reset=0.01, set_state=0.005, fork=0.01, delete=0.005)


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


Tamper = Callable[[Deployment, History], Awaitable[None]]


async def play(
    settings: Settings, deployment: Deployment, models: list[Model], number: int, seconds: float, tamper: Tamper | None
) -> Round:
    """Plays one round of at most `seconds` of faults on a running deployment.

    number: of the round, counting from 0; each round has its own sessions. tamper: receives the deployment when all
    clients have made their last step, before everything is read back.
    """
    seed, prefix = settings.seed + (number << 32), f"round-{number}/" if number else ""
    workload = Workload(History(), models, deployment.targets, deployment.websockets, seed, prefix)
    official_clients = _official_clients(workload, settings)
    late = LateCopies(workload)
    raw_clients = [
        RawClient(workload, f"raw-{index}", _track(workload, f"raw-{index}", models[index % 2]), late)
        for index in range(settings.raw_clients)
    ]
    contenders = [
        RawClient(workload, f"contender-{index}-{side}", tracked, late)
        for index in range(settings.contended)
        for side, tracked in enumerate(_track_twice(workload, f"contended-{index}", models[index % 2]))
    ]
    frame_clients = [
        FrameClient(
            workload, f"frame-{number}", _track_together(workload, f"frame-{number}", models[number % 2], settings)
        )
        for number in range(settings.frame_clients)
    ]
    groups = [
        GroupClient(
            workload,
            f"{OFFICIAL}-group-{number}",
            _track_together(workload, f"group-{number}", models[number % 2], settings),
        )
        for number in range(settings.groups)
    ]
    direct_clients = [
        RawClient(workload, f"direct-{index}", _track(workload, f"direct-{index}", models[index % 2]), late)
        for index in range(settings.direct_clients)
    ]
    interfering = [InterferingClient(workload, settings.interfere_s) for _ in range(settings.interfering)]
    nemesis = Nemesis(
        deployment, workload, official_clients, settings.every_s, settings.only, direct_clients=direct_clients
    )
    # one connection for each worker: the kernel distributes them
    replicas = [Replica(target, 1.5) for target in deployment.targets for _ in range(settings.workers)]
    started = time.monotonic()
    try:
        for official in official_clients:
            official.start()
        self_driven: list[RawClient | FrameClient | GroupClient] = [*raw_clients, *contenders, *frame_clients, *groups]
        others = [asyncio.create_task(client.run(), name=f"last step of {client.name}") for client in self_driven]
        background = [
            *(asyncio.create_task(client.run(replicas)) for client in interfering),
            asyncio.create_task(late.run(replicas)),
        ]
        injecting = asyncio.create_task(nemesis.run())
        await _until(started + seconds, workload.history, [*others, *background, injecting])
        workload.stopping.set()
        await _ended([injecting, *background])
        await deployment.heal()
        await asyncio.gather(*(client.repeat_all(replicas) for client in interfering))
        workload.ending.set()
        ended = time.monotonic()
        others += [asyncio.create_task(client.run(), name=f"last step of {client.name}") for client in direct_clients]
        lasts = [*others, *(asyncio.create_task(official.finish()) for official in official_clients)]
        done, going_on = await asyncio.wait(lasts, timeout=FINISH_S)
        for task in done:
            task.result()
        if going_on:
            words = f"{len(going_on)} clients made no last step within {FINISH_S:g} s: {unfinished()}"
            workload.history.crashes.append(words)
            for task in going_on:
                task.cancel()
        await late.send_rest(replicas)
        await late.ask_again(replicas)
        if not going_on:
            own = [client.tracked for client in (*raw_clients, *direct_clients)]
            await step_quietly(workload, deployment, own)
        if tamper is not None:
            await tamper(deployment, workload.history)
        await _read_back(workload.history.models, workload.history.final_reads, replicas)
        if settings.expiring:
            await use_rarely(workload, replicas, _final_read)
    finally:
        for replica in replicas:
            await replica.close()
    deployment.tell(workload.history)
    return Round(workload.history, workload.races, workload.replayed_steps, started, ended - started)


async def _until(end: float, history: History, tasks: list[asyncio.Task[None]]) -> None:
    """Waits until `end`, or until the history has reached its maximum size. Raises what a task raises before."""
    while (left := end - time.monotonic()) > 0 and history.count_bursts() < MOST_BURSTS:
        done, _ = await asyncio.wait(tasks, timeout=min(left, LOOK_S), return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            task.result()
        tasks = [task for task in tasks if not task.done()]


async def _ended(tasks: list[asyncio.Task[None]]) -> None:
    """Waits until the tasks, which have been told to stop, have ended. Raises what one of them raises."""
    done, going_on = await asyncio.wait(tasks, timeout=FINISH_S)
    for task in done:
        task.result()
    if going_on:
        words = f"{len(going_on)} of the faults and the clients that interfere go on {FINISH_S:g} s after the end"
        raise RuntimeError(f"{words}: {unfinished()}")


def _official_clients(workload: Workload, settings: Settings) -> list[OfficialClient]:
    found = []
    for number in range(settings.clients):
        tracked_sessions = [
            _track(workload, f"official-{number}/{index}", workload.models[index % len(workload.models)])
            for index in range(settings.sessions)
        ]
        found.append(OfficialClient(workload, f"{OFFICIAL}-{number}", tracked_sessions, OperationMix()))
    if settings.singles:
        tracked_sessions = [_track(workload, f"single-{at}", workload.models[at % 2]) for at in range(settings.singles)]
        found.append(OfficialClient(workload, f"{OFFICIAL}-of-singles", tracked_sessions, SINGLES))
    draw, expiring = workload.dice(), []
    for index in range(settings.expiring):
        tracked = _track(workload, f"expiring-{index}", workload.models[index % len(workload.models)])
        workload.history.ttls[tracked.session] = draw.uniform(0.3, 1.5)
        expiring.append(tracked)
    if expiring:
        found.append(OfficialClient(workload, f"{OFFICIAL}-of-expiring", expiring, OperationMix()))
    return found


def _track_together(workload: Workload, name: str, model: Model, settings: Settings) -> list[TrackedSession]:
    """Returns sessions that are stepped together."""
    return [_track(workload, f"{name}/{index}", model) for index in range(settings.together)]


def _track_twice(workload: Workload, session: str, model: Model) -> tuple[TrackedSession, TrackedSession]:
    """Returns the same session as two clients know it, which both step it."""
    tracked = _track(workload, session, model)
    return tracked, TrackedSession(tracked.session, model)


def _track(workload: Workload, session: str, model: Model) -> TrackedSession:
    session = workload.prefix + session
    tracked = workload.tracked_sessions[session] = TrackedSession(session, model)
    return tracked


async def _read_back(sessions: Mapping[str, str], reads: list[FinalRead], replicas: list[Replica]) -> None:
    """Reads the sessions through every server. sessions: their models."""
    for number, replica in enumerate(replicas):
        room = asyncio.Semaphore(16)

        async def read(session: str, model: str, number: int = number, replica: Replica = replica) -> None:
            async with room:  # noqa: B023 - awaited within the iteration
                reads.append(await _final_read(session, model, number, replica))

        await asyncio.gather(*(read(session, model) for session, model in list(sessions.items())))


async def _final_read(session: str, model: str, number: int, replica: Replica) -> FinalRead:
    asked_at = time.monotonic()
    for _ in range(READ_TRIES):
        reply = await replica.call("GetState", pb.GetStateRequest(model=model, session=session))
        if not isinstance(reply, Refused):
            states = {
                tensor.name.removeprefix("state."): np.frombuffer(tensor.data, "<f4").reshape(tuple(tensor.shape))
                for tensor in reply.state
            }
            return FinalRead(session, model, Position.of(reply.position), states, number, asked_at, time.monotonic())
        if reply.reason == "SESSION_NOT_FOUND":
            return FinalRead(session, model, None, {}, number, asked_at, time.monotonic())
        if is_damaged(reply.message) or reply.reason not in PASSING:
            words = f"{reply.reason} {reply.message}"
            return FinalRead(session, model, None, {}, number, asked_at, time.monotonic(), words)
        await asyncio.sleep(0.25)
    raise RuntimeError(f"{session!r} cannot be read after the run: {reply}")
