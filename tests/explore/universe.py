"""The explored world: replicas, one store, clients, and every message in the air. It does one event at a time.

What is checked, at every event:

- an answer's outputs, and its position, are the sequential model's for the history that the request named;
- it leaves only once the store holds that step (acknowledged means committed);
- the record is always the tuple of inputs that its position names: nothing lost, nothing twice, no hole;
- a generation that was replaced or deleted neither stands again nor answers a positioned step as success;
- a correct client is never refused for good, unless others use its session, the store lost commits, or it was restarted
  in the middle of a change of lives; and then only with a reason that says so;
- every request is answered once;
- a record's log never passes its limit.

And where nothing more can happen: every client is through or was told why not, no replica holds an unanswered request,
what a client was told is in the store (unless that lost it), and a steady pipeline has left a short log.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from cellkeeper_service.domain.meter import NullMeter
from cellkeeper_service.domain.position import Position
from cellkeeper_service.domain.store import Commit, CommitResult, Load, Outcome, StoreError
from cellkeeper_service.sessions.limits import Clock, Limits
from cellkeeper_service.sessions.planner import TickLimits
from cellkeeper_service.sessions.requests import Request, Step, StepReply
from cellkeeper_service.sessions.served import Models, Served
from cellkeeper_service.sessions.sessions import Sessions

from tests.sessions.counting_engine import CountingEngine

from .player import MOVED_BY_OTHERS, Player, flying
from .scope import Delete, Fork, Reset, Scope, Steps
from .store import ExploredStore
from .truth import Violation, born, consumed, learn, outputs_after, pack, unpack

NAMES = "AB"
Event = tuple[Any, ...]


class Impossible(Exception):
    """An event that cannot happen here."""


def still() -> float:
    return 0.0


def still_ms() -> int:
    return 0


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
        if self.answered:
            raise Violation(f"{self.name} was answered twice")
        self.answered = True
        self.universe.answered(self, result)


@dataclass(eq=False)
class Answer:
    player: int
    ticket: int
    name: str
    result: Any


@dataclass(eq=False)
class Read:
    """Records on their way from the store. results: None while they are not read."""

    lines: list[Any]
    loads: list[Load]
    results: list[Any] | None = None


@dataclass(eq=False)
class Write:
    """A commit or delete on its way to the store and back. results: None while it has not landed."""

    flights: list[Any]
    calls: list[Any]
    results: list[CommitResult] | None = None


@dataclass(eq=False)
class Node:
    """One replica."""

    name: str
    served: Served
    sessions: Sessions
    reads: list[Read] = field(default_factory=list)
    calls: list[Any] = field(default_factory=list)
    writes: list[Write] = field(default_factory=list)

    def collect(self) -> None:
        """Takes out of the heart what it wants done."""
        lines, loads = self.sessions.take_loads()
        self.reads += [Read([line], [load]) for line, load in zip(lines, loads, strict=True)]
        if not self.calls:
            self.calls = self.sessions.take_calls()
        for flight in self.sessions.take_flights():
            self.writes.append(Write([flight], [flight.call]))

    @property
    def blank(self) -> bool:
        """Nothing ever came here."""
        return not self.sessions._desk.lines and not (self.reads or self.calls or self.writes)


class Universe:
    """faults: how often each kind may still happen."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self.store = ExploredStore(scope.max_log_steps, scope.depth if scope.fall_backs else 0)
        self.minted = 0
        self.tickets = 0
        self.fell_back = False
        self.nodes = [self._node(NAMES[index]) for index in range(scope.replicas)]
        self.players = [Player(f"c{index}", scope, list(script)) for index, script in enumerate(scope.scripts)]
        self.slow: list[Request] = []
        self.answers: list[Answer] = []
        self.late: list[Write] = []
        kinds = ("slow", "timeouts", "unknowns", "refusals", "unread", "fall_backs", "restarts", "give_ups", "crashes")
        self.left = {kind: int(getattr(scope, kind)) for kind in kinds}
        for player in self.players:
            player.prepare()

    # ------------------------------------------------------------------------------------------ what can happen

    def events(self) -> list[Event]:
        """Everything that can happen next."""
        return [*self._clients(), *self._replicas(), *self._store()]

    def _clients(self) -> Iterator[Event]:
        left = self.left
        targets = NAMES[: 1 if all(node.blank for node in self.nodes) else len(self.nodes)]
        for answer in self.answers:
            yield ("hear", answer.player, answer.name)
        for index, player in enumerate(self.players):
            what = player.can_send()
            if what:
                for target in targets:
                    yield ("send", index, what, target)
                if left["slow"]:
                    yield ("slow", index, what)
            if left["timeouts"]:
                for attempt in player.waiting.values():
                    yield ("timeout", index, attempt.name)
            if left["give_ups"] and isinstance(player.op, Steps) and flying(player.lines[player.op.session].history):
                yield ("give_up", index)
            if left["restarts"] and not player.done and player.lines:
                yield ("restart", index)
        for number in range(len(self.slow)):
            for target in targets:
                yield ("arrive", number, target)

    def _replicas(self) -> Iterator[Event]:
        left, scope = self.left, self.scope
        for node in self.nodes:
            for number, read in enumerate(node.reads):
                if read.results is None and not scope.atomic_reads:
                    yield ("read", node.name, number)
                else:
                    yield ("loaded", node.name, number)
                if left["unread"]:
                    yield ("unread", node.name, number)
            if node.calls:
                yield ("compute", node.name)
            for number, write in enumerate(node.writes):
                if write.results is None and not scope.atomic_commits:
                    yield ("land", node.name, number)
                else:
                    yield ("landed", node.name, number)
                if left["unknowns"]:
                    yield ("unknown", node.name, number)
                if left["refusals"] and write.results is None:
                    yield ("refuse", node.name, number)
            if left["crashes"] and not node.blank:
                yield ("crash", node.name)

    def _store(self) -> Iterator[Event]:
        for number in range(len(self.late)):
            yield ("late", number)
        if self.left["fall_backs"]:
            for commits in range(1, len(self.store.past) + 1):
                yield ("fall_back", commits, "")
                if len(self.store._kept) > 1:
                    for key in self.store._kept:
                        yield ("fall_back", commits, key.session)

    # ------------------------------------------------------------------------------------------ what happens

    def do(self, event: Event) -> None:
        """Lets it happen. Raises Violation, or Impossible for an event that cannot be."""
        getattr(self, f"_do_{event[0]}")(*event[1:])
        for node in self.nodes:
            node.collect()
        for player in self.players:
            player.prepare()

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
        channel: Channel = request.done  # type: ignore[assignment]
        if isinstance(request, Step) and request.position is not None:
            channel.ended = request.position.generation in self.store.ledger.ended
        self.node(target).sessions.submit(request)

    def _do_send(self, index: int, what: str, target: str) -> None:
        self._submit(self._request(index, what), target)

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
        self._check_refusal(player)

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
        read.results = list(self.store.load_many(read.loads))

    def _do_loaded(self, name: str, number: int) -> None:
        node = self.node(name)
        read = node.reads.pop(number)
        results = read.results if read.results is not None else list(self.store.load_many(read.loads))
        node.sessions.loaded(read.lines, results)

    def _do_unread(self, name: str, number: int) -> None:
        self._spend("unread")
        node = self.node(name)
        read = node.reads.pop(number)
        node.sessions.loaded(read.lines, [StoreError("lost")] * len(read.loads))

    def _do_compute(self, name: str) -> None:
        node = self.node(name)
        call = node.calls.pop(0)
        call.execute()
        node.sessions.computed(call)

    def _land(self, write: Write) -> None:
        many = self.store.commit_many if isinstance(write.calls[0], Commit) else self.store.delete_many
        write.results = many(write.calls)  # type: ignore[operator]

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
        node.sessions.landed(write.flights, write.results or [])

    def _do_unknown(self, name: str, number: int) -> None:
        node = self.node(name)
        write = node.writes.pop(number)
        self._spend("unknowns")
        if write.results is None:
            self.late.append(Write([], write.calls))
        node.sessions.landed(write.flights, [CommitResult(Outcome.UNKNOWN, None, "lost")])

    def _do_refuse(self, name: str, number: int) -> None:
        node = self.node(name)
        if node.writes[number].results is not None:
            raise Impossible("landed already")
        self._spend("refusals")
        write = node.writes.pop(number)
        node.sessions.landed(write.flights, [CommitResult(Outcome.REFUSED, None, "full")])

    def _do_late(self, number: int) -> None:
        self._land(self.late.pop(number))

    def _do_fall_back(self, commits: int, session: str) -> None:
        if commits > len(self.store.past):
            raise Impossible("the store has no such past")
        self._spend("fall_backs")
        self.fell_back = True
        key = next((key for key in self.store._kept if key.session == session), None) if session else None
        self.store.fall_back(commits, key)

    def _do_crash(self, name: str) -> None:
        """Connections break, so the clients know; what was on its way to the store may still arrive there."""
        self._spend("crashes")
        index = NAMES.index(name)
        node = self.nodes[index]
        for line in node.sessions._desk.lines.values():
            for request in requests_of(line):
                channel: Channel = request.done  # type: ignore[assignment]
                channel.answered = True
                player = self.players[channel.player]
                if channel.ticket in player.waiting:
                    player.lost(channel.ticket)
        self.late += [Write([], write.calls) for write in node.writes if write.results is None]
        self.nodes[index] = self._node(name)

    # ------------------------------------------------------------------------------------------ checks

    def answered(self, channel: Channel, result: Any) -> None:
        """A replica answers: the promises are checked whether or not anybody still listens."""
        request = channel.request
        if isinstance(result, StepReply) and isinstance(request, Step):
            self._check_step(channel, request, result)
        if channel.ticket in self.players[channel.player].waiting:
            self.answers.append(Answer(channel.player, channel.ticket, channel.name, result))

    def _check_step(self, channel: Channel, step: Step, reply: StepReply) -> None:
        inputs = unpack(step.data)
        if step.position is not None:
            if learn(step.position, inputs) != reply.position:
                raise Violation(f"{channel.name} was applied on another history than its sender's")
            generation = step.position.generation
            if channel.ended and generation in self.store.ledger.ended:
                raise Violation(f"{channel.name}: a generation that had ended answers it as success")
        whole = consumed(reply.position)
        if whole[len(whole) - step.steps :] != inputs:
            raise Violation(f"{channel.name}: the position in its answer names {whole}")
        if reply.outputs["prediction"].tolist() != outputs_after(whole, step.steps):
            raise Violation(f"{channel.name}: the outputs are not those of {whole}")
        if not self.store.ledger.was_durable(reply.position.generation, whole):
            raise Violation(f"{channel.name} is acknowledged, and the store never held {whole}")

    def _check_refusal(self, player: Player) -> None:
        reason = player.failed
        if not reason or reason == "OUTCOME_UNKNOWN":
            return
        allowed: set[str] = set()
        if self.scope.shared:
            allowed |= MOVED_BY_OTHERS | {"STEP_CONFLICT", "STEP_COMPACTED", "STEP_GAP"}
        if self.fell_back:
            allowed |= MOVED_BY_OTHERS | {"HISTORY_LOST"}
            if player.lives:
                allowed.add("STEP_GAP")  # of an Open that insists on what the store has lost
        if player.gave_up:
            allowed |= {"STEP_CONFLICT", "HISTORY_CHANGED", "STEP_COMPACTED"}  # what it gave up was applied
        kinds = {type(op) for op in player.script}
        if {Delete, Fork} <= kinds and (self.scope.unknowns or self.scope.slow or self.scope.crashes):
            allowed.add("SESSION_EXISTS")  # a late copy of the first fork found the target deleted, and made it again
        if player.lives and any(isinstance(op, (Reset, Delete, Fork)) for op in player.script):
            allowed |= MOVED_BY_OTHERS
        if reason not in allowed:
            raise Violation(f"{player.name}, which did everything right, is refused for good: {reason}")

    def finish(self) -> None:
        """Nothing more can happen. Raises Violation."""
        for player in self.players:
            if not player.done:
                raise Violation(f"{player.name} is stuck at {player.op}")
        for node in self.nodes:
            if node.sessions.unanswered:
                raise Violation(f"{node.name} holds {node.sessions.unanswered} requests that it will never answer")
            if node.served.starved or node.served.singles or node.served.longs:
                raise Violation(f"{node.name} holds work that it will never do")
        held = self.store.ledger.standing
        for player in self.players:
            for session, line in player.lines.items():
                position = Position(*line.history.position)
                generation, inputs = next((v for k, v in held.items() if k.session == session), (b"", ()))
                told = consumed(position)
                if self.scope.shared or self.fell_back or player.failed:
                    continue
                if generation != position.generation or inputs[: len(told)] != told:
                    raise Violation(f"{player.name} was told {told}, and the store has {inputs}")
        if self.scope.steady:
            for key, kept in self.store._kept.items():
                logged = kept.header.position.step - kept.header.checkpoint_step
                if logged > self.scope.steady:
                    raise Violation(f"a steady pipeline leaves a log of {logged} steps in {key.session}")

    # ------------------------------------------------------------------------------------------ inside

    def node(self, name: str) -> Node:
        return self.nodes[NAMES.index(name)]

    def mint(self) -> bytes:
        self.minted += 1
        generation = self.minted.to_bytes(16, "big")
        born(generation)
        return generation

    def _node(self, name: str) -> Node:
        scope = self.scope
        due_steps = scope.other_due_steps if name == "B" and scope.other_due_steps else scope.due_steps
        served = Served(CountingEngine(), scope.slots, due_steps)
        served.due_steps = due_steps  # whatever the size of the state
        limits = Limits(max_log_steps=scope.max_log_steps, tick=TickLimits(4, 8))
        sessions = Sessions({"m": Models([served])}, limits, Clock(still, still_ms), NullMeter(), self.mint)
        return Node(name, served, sessions)


def requests_of(line: Any) -> list[Request]:
    """Everything in this line that has not been answered."""
    found = list(line.queue)
    found += [item.request for item in line.pending]
    if line.flight is not None:
        found += [item.request for item in line.flight.items]
    if line.run is not None:
        found += [collect.request for collect in line.run.collects]
    return found


__all__ = ["Event", "Universe", "pack"]
