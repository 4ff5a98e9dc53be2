"""The explored world: replicas, one store, clients, and every message in the air. It does one event at a time, and
holds what comes of it against the promises."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cellkeeper_service.domain.store import Commit, CommitResult, Outcome, StoreError
from cellkeeper_service.errors import Reason, Rejection
from cellkeeper_service.sessions.requests import Request, Step, StepReply

from tests.sessions.columns import Frame, fits_a_frame

from . import events, promises
from .events import NAMES, Event
from .node import Node, Read, Write, new_node
from .player import Player, flying
from .scope import Scope, Steps
from .store import ExploredStore
from .truth import Violation, born

FAULTS = (
    "slow",
    "timeouts",
    "unknowns",
    "refusals",
    "unread",
    "fall_backs",
    "power_cuts",
    "restarts",
    "give_ups",
    "crashes",
)
LOST = CommitResult(Outcome.UNKNOWN, None, "lost")


class Impossible(Exception):
    """An event that cannot happen here."""


@dataclass(eq=False)
class Channel:
    """Where a request's answer goes. ended: its generation had ended when it arrived."""

    universe: Universe
    player: int
    ticket: int
    name: str
    request: Request | None = None
    ended: bool = False
    answered: bool = False

    def __call__(self, result: Any) -> None:
        try:
            if self.answered:
                raise Violation(f"{self.name} was answered twice")
            self.answered = True
            if isinstance(result, Rejection) and result.reason is Reason.INTERNAL_ERROR:
                raise Violation(f"{self.name}: an exception in the service")
            self.universe.answered(self, result)
        except Exception as error:  # the service takes it for one of its own
            self.universe.broken = self.universe.broken or error
            raise


@dataclass(eq=False)
class Answer:
    player: int
    ticket: int
    name: str
    result: Any


class Universe:
    """faults: how often each kind may still happen."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self.store = ExploredStore(
            scope.max_log_steps, scope.depth, bool(scope.fall_backs), scope.synced, bool(scope.power_cuts)
        )
        self.minted = 0
        self.tickets = 0
        self.fell_back = False
        self.broken: Exception | None = None
        self.nodes = [new_node(NAMES[index], scope, self.mint) for index in range(scope.replicas)]
        self.players = [Player(f"c{index}", scope, list(script)) for index, script in enumerate(scope.scripts)]
        self.slow: list[Request] = []
        self.answers: list[Answer] = []
        self.late: list[Write] = []
        self.left = {kind: int(getattr(scope, kind)) for kind in FAULTS}
        for player in self.players:
            player.prepare()

    def events(self) -> list[Event]:
        """Everything that can happen next."""
        return events.possible(self)

    def finish(self) -> None:
        """Nothing more can happen. Raises Violation."""
        promises.check_end(self)

    def do(self, event: Event) -> None:
        """Lets it happen. Raises Violation, or Impossible for an event that cannot be."""
        getattr(self, f"_do_{event[0]}")(*event[1:])
        for node in self.nodes:
            node.collect()
        for player in self.players:
            player.prepare()
        if self.broken is not None:
            raise self.broken

    def _spend(self, kind: str) -> None:
        if not self.left[kind]:
            raise Impossible(f"no {kind} left")
        self.left[kind] -= 1

    def _request(self, index: int, what: str) -> Request:
        player = self.players[index]
        if not what or player.can_send() != what:
            raise Impossible("not to be sent now")
        self.tickets += 1
        channel = Channel(self, index, self.tickets, what)
        channel.request = player.send(self.tickets, channel)
        return channel.request

    def _submit(self, request: Request, target: str) -> None:
        self._arrives(request)
        if self.scope.short and not self.scope.core and isinstance(request, Step) and fits_a_frame(request):
            Frame([request]).submit(self.node(target).sessions)
        else:
            self.node(target).sessions.submit(request)

    def _arrives(self, request: Request) -> None:
        channel: Channel = request.done  # type: ignore[assignment]
        channel.ended = _generation(request) in self.store.ledger.ended

    def _do_send(self, index: int, what: str, target: str) -> None:
        self._submit(self._request(index, what), target)

    def _do_frame(self, items: tuple[tuple[int, str], ...], target: str) -> None:
        if not all(self.players[index].sends_single_step for index, _ in items):
            raise Impossible("not a frame")
        steps = [self._request(index, what) for index, what in items]
        for step in steps:
            self._arrives(step)
        if self.scope.core:
            for step in steps:
                self.node(target).sessions.submit(step)
        else:
            Frame([step for step in steps if isinstance(step, Step)]).submit(self.node(target).sessions)

    def _do_slow(self, index: int, what: str) -> None:
        self._spend("slow")
        self.slow.append(self._request(index, what))

    def _do_arrive(self, number: int, target: str) -> None:
        self._submit(self.slow.pop(number), target)

    def _do_hear(self, index: int, name: str) -> None:
        answer = next((one for one in self.answers if (one.player, one.name) == (index, name)), None)
        if answer is None:
            raise Impossible("no such answer")
        self.answers.remove(answer)
        player = self.players[index]
        player.hear(answer.ticket, answer.result)
        promises.check_refusal(self, player)

    def _do_timeout(self, index: int, name: str) -> None:
        self._spend("timeouts")
        player = self.players[index]
        ticket = next((t for t, attempt in player.waiting.items() if attempt.name == name), None)
        if ticket is None:
            raise Impossible("no such attempt")
        player.lost(ticket)
        self._forget_answers()

    def _do_give_up(self, index: int) -> None:
        player = self.players[index]
        if not isinstance(player.op, Steps) or not flying(player.lines[player.op.session].history):
            raise Impossible("nothing to give up")
        self._spend("give_ups")
        player.give_up()
        self._forget_answers()

    def _do_restart(self, index: int) -> None:
        player = self.players[index]
        if player.done or not player.lines:
            raise Impossible("nothing to restart")
        self._spend("restarts")
        player.restart()
        self._forget_answers()

    def _forget_answers(self) -> None:
        self.answers = [one for one in self.answers if one.ticket in self.players[one.player].waiting]

    def _do_read(self, name: str, number: int) -> None:
        read = self.node(name).reads[number]
        if read.results is not None:
            raise Impossible("read already")
        self._read(name, read)

    def _read(self, name: str, read: Read) -> None:
        read.results = list(self.store.load_many(read.loads, name))
        read.read_at = self.store.file.end

    def _do_loaded(self, name: str, number: int) -> None:
        node = self.node(name)
        read = node.reads.pop(number)
        if read.results is None:
            self._read(name, read)
        self.store.hear(read.read_at)
        node.sessions.loaded(read.lines, read.results or [])

    def _do_unread(self, name: str, number: int) -> None:
        self._spend("unread")
        node = self.node(name)
        read = node.reads.pop(number)
        node.sessions.loaded(read.lines, [StoreError("lost")] * len(read.loads))

    def _do_compute(self, name: str) -> None:
        node = self.node(name)
        call = node.calls.pop(0)
        call.execute()
        node.served.engine.calls.clear()  # it counts them for other tests
        node.sessions.computed(call)

    def _land(self, write: Write) -> None:
        many = self.store.commit_many if isinstance(write.calls[0], Commit) else self.store.delete_many
        write.results = many(write.calls, write.connection)
        write.landed_at = self.store.file.end

    def _do_land(self, name: str, number: int) -> None:
        write = self.node(name).writes[number]
        if write.results is not None:
            raise Impossible("landed already")
        self._land(write)

    def _do_landed(self, name: str, number: int) -> None:
        node = self.node(name)
        write = node.writes.pop(number)
        if write.results is None:
            self._land(write)
        self.store.hear(write.landed_at)
        node.sessions.landed(write.flights, write.results or [])

    def _do_unknown(self, name: str, number: int) -> None:
        node = self.node(name)
        write = node.writes.pop(number)
        self._spend("unknowns")
        if write.results is None:
            self.late.append(write.without_answer())
        node.sessions.landed(write.flights, [LOST] * len(write.flights))

    def _do_refuse(self, name: str, number: int) -> None:
        node = self.node(name)
        if node.writes[number].results is not None:
            raise Impossible("landed already")
        self._spend("refusals")
        write = node.writes.pop(number)
        node.sessions.landed(write.flights, [CommitResult(Outcome.REFUSED, None, "full")] * len(write.flights))

    def _do_late(self, number: int) -> None:
        self._land(self.late.pop(number))

    def _do_fall_back(self, commits: int, session: str) -> None:
        if commits > len(self.store.past):
            raise Impossible("the store has no such past")
        self._spend("fall_backs")
        self.fell_back = True
        key = next((key for key in self.store.sessions() if key.session == session), None) if session else None
        self.store.fall_back(commits, key)

    def _do_power_cut(self, lost: int, writes: int) -> None:
        """Redis stops and starts anew. What was on its way to it is lost, or was not sent yet; of what it did without
        having answered, the replicas learn nothing."""
        if (lost, writes) not in self.store.power_cuts():
            raise Impossible("the file has no such cut")
        self._spend("power_cuts")
        kept_at = self.store.file.end - lost
        self.fell_back |= self.store.power_cut(lost, writes, tracks=self.left["power_cuts"] > 0)
        self.late.clear()
        for node in self.nodes:
            unread = [read for read in node.reads if read.results is not None and read.read_at > kept_at]
            node.reads = [read for read in node.reads if read not in unread]
            for read in node.reads:
                read.read_at = 0  # an answer that was under way already
            for read in unread:
                node.sessions.loaded(read.lines, [StoreError("lost")] * len(read.loads))
            unheard = [write for write in node.writes if write.results is not None]
            node.writes = [write for write in node.writes if write.results is None]
            for write in unheard:
                node.sessions.landed(write.flights, [LOST] * len(write.flights))
            for request in node.requests:
                channel: Channel = request.done  # type: ignore[assignment]
                channel.ended &= _generation(request) in self.store.ledger.ended  # what ended it may be lost

    def _do_crash(self, name: str) -> None:
        """Connections break, so the clients know; what was on its way to the store may still arrive there."""
        self._spend("crashes")
        index = NAMES.index(name)
        node = self.nodes[index]
        for request in node.requests:
            channel: Channel = request.done  # type: ignore[assignment]
            channel.answered = True
            player = self.players[channel.player]
            if channel.ticket in player.waiting:
                player.lost(channel.ticket)
        self.late += [write.without_answer() for write in node.writes if write.results is None]
        self.store.disconnect(name)
        self.nodes[index] = new_node(name, self.scope, self.mint)

    def answered(self, channel: Channel, result: Any) -> None:
        """A replica answers."""
        request = channel.request
        if isinstance(result, StepReply) and isinstance(request, Step):
            promises.check_answer(self, channel, request, result)
        if channel.ticket in self.players[channel.player].waiting:
            self.answers.append(Answer(channel.player, channel.ticket, channel.name, result))

    def node(self, name: str) -> Node:
        return self.nodes[NAMES.index(name)]

    def mint(self) -> bytes:
        self.minted += 1
        generation = self.minted.to_bytes(16, "big")
        born(generation)
        return generation


def _generation(request: Request) -> bytes | None:
    """The one that a step names."""
    return request.position.generation if isinstance(request, Step) and request.position is not None else None
