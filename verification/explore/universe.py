"""The explored world: replicas, one store, clients, and every message in flight.

It executes one event at a time, and checks the result against the promises.
"""

from __future__ import annotations

from functools import partial
from hashlib import blake2b
from typing import Any

from cellkeeper_service.core.requests import Request
from cellkeeper_service.domain.store import Commit, CommitResult, Delete, Outcome, StoreError

from . import answers, events, invariants, layout2, losses, reads
from .call import session_key
from .channel import Answer, Channel, alike, generation_of
from .client import Client
from .events import NAMES, Event
from .losses import LOST
from .replica import Read, Replica, Write, new_replica
from .scope import Scope
from .sequential_model import created
from .store import ExploredStore

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
    "overdue",
    "gone",
    "expiries",
    "exchanges",
)


class Impossible(Exception):
    """An event that cannot happen here."""


class Universe:
    """The state of the explored world.

    left: how often each fault may still happen. slow: requests that are delayed. late: writes on their way to the store
    that nobody waits for.
    """

    def __init__(self, scope: Scope) -> None:
        layout2.forget()
        self.scope = scope
        self.store = ExploredStore(
            scope.max_log_steps, scope.depth, bool(scope.fall_backs), scope.synced, bool(scope.power_cuts)
        )
        self.store.ledger.peeked, self.store.ledger.windows = scope.peeked, scope.windows
        self.store.ledger.set_states, self.store.ledger.ttls_ms = scope.set_states, scope.ttls_ms
        self.minted, self.happened = 0, bytes(8)
        self.tickets = 0
        self.fell_back = self.expired = False
        self.replicas = [
            new_replica(NAMES[index], scope.serves[index], scope, self.mint) for index in range(scope.replicas)
        ]
        self.clients = [Client(f"c{index}", scope, list(script)) for index, script in enumerate(scope.scripts)]
        self.slow: list[list[Request]] = []
        self.answers: list[Answer] = []
        self.late: list[Write] = []
        self.left = {kind: int(getattr(scope, kind)) for kind in FAULTS}
        for client in self.clients:
            client.prepare()

    @property
    def losses(self) -> int:
        """How often the store may have lost something."""
        return sum(getattr(self.scope, kind) - self.left[kind] for kind in ("fall_backs", "power_cuts"))

    def events(self) -> list[Event]:
        """Returns everything that can happen next."""
        return events.possible(self)

    def finish(self) -> None:
        """Checks the state in which nothing more can happen. Raises Violation."""
        invariants.check_end(self)

    def do(self, event: Event) -> None:
        """Executes the event. Raises Violation, or Impossible for an event that cannot happen."""
        if self.scope.two_versions or self.scope.set_states:
            self.happened = blake2b(self.happened + repr(event).encode(), digest_size=8).digest()
        getattr(self, f"_do_{event[0]}")(*event[1:])
        for replica in self.replicas:
            replica.go_on()
        for client in self.clients:
            client.prepare()

    def _spend(self, kind: str) -> None:
        if not self.left[kind]:
            raise Impossible(f"no {kind} left")
        self.left[kind] -= 1

    def _requests(self, index: int, what: str) -> list[Request]:
        client = self.clients[index]
        if what not in client.can_send():
            raise Impossible("not to be sent now")
        self.tickets += 1
        requests = client.send(self.tickets, partial(Channel, self, index, self.tickets), what)
        for request in requests:
            request.done.request = request  # type: ignore[attr-defined]
        return requests

    def _submit(self, requests: list[Request], target: str) -> None:
        for request in requests:
            channel: Channel = request.done  # type: ignore[assignment]
            channel.ended = generation_of(request) in self.store.ledger.ended
            channel.before = reads.before(self, request)
            channel.served = self.replica(target).served
        core = self.replica(target).core
        if steps := alike(requests):
            core.submit_alike(steps)
        else:
            core.submit_many(requests)

    def _do_send(self, index: int, what: str, target: str) -> None:
        self._submit(self._requests(index, what), target)

    def _do_frame(self, items: tuple[tuple[int, str], ...], target: str) -> None:
        if not all(self.clients[index].sends() for index, _ in items):
            raise Impossible("not a frame")
        self._submit([request for index, what in items for request in self._requests(index, what)], target)

    def _do_slow(self, index: int, what: str) -> None:
        self._spend("slow")
        self.slow.append(self._requests(index, what))

    def _do_arrive(self, number: int, target: str) -> None:
        self._submit(self.slow.pop(number), target)

    def _do_receive(self, index: int, name: str) -> None:
        answer = next((one for one in self.answers if (one.client, one.name) == (index, name)), None)
        if answer is None:
            raise Impossible("no such answer")
        self.answers.remove(answer)
        answers.receive(self, self.clients[index], answer)

    def _do_timeout(self, index: int, name: str) -> None:
        self._spend("timeouts")
        client = self.clients[index]
        ticket = next((t for t, attempt in client.waiting.items() if attempt.name == name), None)
        if ticket is None:
            raise Impossible("no such attempt")
        client.lost(ticket)
        self._forget_answers()

    def _do_give_up(self, index: int) -> None:
        client = self.clients[index]
        if not client.can_give_up:
            raise Impossible("nothing to give up")
        self._spend("give_ups")
        client.give_up()
        self._forget_answers()

    def _do_restart(self, index: int) -> None:
        client = self.clients[index]
        if client.done or not client.sessions:
            raise Impossible("nothing to restart")
        self._spend("restarts")
        client.restart()
        self._forget_answers()

    def _forget_answers(self) -> None:
        self.answers = [one for one in self.answers if one.ticket in self.clients[one.client].waiting]

    def _do_read(self, name: str, number: int) -> None:
        read = self.replica(name).reads[number]
        if read.results is not None:
            raise Impossible("read already")
        self._read(name, read)

    def _read(self, name: str, read: Read) -> None:
        read.results = list(self.store.load_many(read.loads, name))
        read.read_at = self.store.file.end

    def _do_loaded(self, name: str, number: int) -> None:
        replica = self.replica(name)
        read = replica.reads.pop(number)
        if read.results is None:
            self._read(name, read)
        self.store.tell(read.read_at)
        replica.core.on_loaded(read.sessions, read.results or [])

    def _do_unread(self, name: str, number: int) -> None:
        self._spend("unread")
        replica = self.replica(name)
        read = replica.reads.pop(number)
        replica.core.on_loaded(read.sessions, [StoreError("lost")] * len(read.loads))

    def _do_compute(self, name: str) -> None:
        replica = self.replica(name)
        batch = replica.batches.pop(0)
        batch.execute()
        batch.version.engine.calls.clear()  # type: ignore[attr-defined]  # other tests count them
        replica.core.on_computed(batch)

    def _apply(self, write: Write) -> None:
        commits = [call for call in write.calls if isinstance(call, Commit)]
        deletes = [call for call in write.calls if isinstance(call, Delete)]
        write.results = self.store.commit_many(commits, write.connection) if commits else []
        write.results += self.store.delete_many(deletes, write.connection)
        write.applied_at = self.store.file.end

    def _do_apply(self, name: str, number: int) -> None:
        write = self.replica(name).writes[number]
        if write.results is not None:
            raise Impossible("applied already")
        self._apply(write)

    def _do_answered(self, name: str, number: int) -> None:
        replica = self.replica(name)
        write = replica.writes.pop(number)
        if write.results is None:
            self._apply(write)
        self.store.tell(write.applied_at)
        replica.core.on_committed(write.commits, write.results or [])

    def _do_unknown(self, name: str, number: int) -> None:
        replica = self.replica(name)
        write = replica.writes.pop(number)
        self._spend("unknowns")
        if write.results is None:
            self.late.append(write.without_answer())
        replica.core.on_committed(write.commits, [LOST] * len(write.commits))

    def _do_refuse(self, name: str, number: int) -> None:
        replica = self.replica(name)
        if replica.writes[number].results is not None:
            raise Impossible("applied already")
        self._spend("refusals")
        write = replica.writes.pop(number)
        replica.core.on_committed(write.commits, [CommitResult(Outcome.REFUSED, None, "full")] * len(write.commits))

    def _do_late(self, number: int) -> None:
        self._apply(self.late.pop(number))

    def _do_fall_back(self, commits: int, session: str) -> None:
        if commits > len(self.store.snapshots):
            raise Impossible("the store has no such snapshot")
        self._spend("fall_backs")
        losses.fall_back(self, commits, session)

    def _do_power_cut(self, lost: int, writes: int) -> None:
        if (lost, writes) not in self.store.power_cuts():
            raise Impossible("the file has no such cut")
        self._spend("power_cuts")
        losses.power_cut(self, lost, writes)

    def _do_crash(self, name: str) -> None:
        """Crashes a replica. Its connections break, so clients notice; writes in flight may still reach the store."""
        self._spend("crashes")
        index = NAMES.index(name)
        replica = self.replicas[index]
        for request in replica.requests:
            channel: Channel = request.done  # type: ignore[assignment]
            channel.answered = True
            if self.waits_for(request):
                self.clients[channel.client].lost(channel.ticket)
        self.late += [write.without_answer() for write in replica.writes if write.results is None]
        self.store.disconnect(name)
        self.replicas[index] = new_replica(name, replica.serves, self.scope, self.mint)

    def _do_overdue(self, name: str, number: int) -> None:
        self._spend("overdue")
        for request in self._together(name, number):
            request.deadline = 0.0  # time stands still at 0

    def _together(self, name: str, number: int) -> list[Request]:
        """Returns the request and the other items of its call."""
        requests = self.replica(name).requests
        ticket = requests[number].done.ticket  # type: ignore[attr-defined]
        return [request for request in requests if request.done.ticket == ticket]  # type: ignore[attr-defined]

    def _do_gone(self, name: str, number: int) -> None:
        self._spend("gone")
        channel: Channel = self.replica(name).requests[number].done  # type: ignore[assignment]
        for request in self._together(name, number):
            request.gone = True
        self.clients[channel.client].lost(channel.ticket)

    def _do_idle(self, session: str) -> None:
        """Lets nearly the session's TTL pass."""
        key = session_key(session)
        self.store.idle(key)
        for request in [request for replica in self.replicas for request in replica.requests]:
            if request.key == key:
                request.done.recent = False  # type: ignore[attr-defined]

    def _do_expired(self, session: str) -> None:
        self._spend("expiries")
        self.expired = True
        self.store.expire(session_key(session), noticed=True)

    def _do_lapsed(self, session: str) -> None:
        self._spend("expiries")
        self.expired = True
        self.store.expire(session_key(session), noticed=False)

    def _do_exchange(self, name: str, serves: bytes) -> None:
        self._spend("exchanges")
        replica = self.replica(name)
        replica.exchange(serves, self.scope)
        for request in replica.requests:
            request.done.served |= replica.served  # type: ignore[attr-defined]

    def _do_expire(self, name: str) -> None:
        self.replica(name).core.expire()

    def answered(self, channel: Channel, result: Any) -> None:
        """Takes a replica's answer."""
        answers.check(self, channel, result)
        request = channel.request
        if request is not None and self.waits_for(request):
            answers.send(self, channel, result)

    def waits_for(self, request: Request) -> bool:
        """Returns whether the request's client still waits for its answer."""
        channel: Channel = request.done  # type: ignore[assignment]
        return channel.ticket in self.clients[channel.client].waiting

    def replica(self, name: str) -> Replica:
        return self.replicas[NAMES.index(name)]

    def mint(self) -> bytes:
        """Returns a new generation. If generations begin with more than nothing, it also stands for all that happened
        before, so that its version and what it begins with are the same in all worlds."""
        self.minted += 1
        generation = self.happened + self.minted.to_bytes(8, "big")
        created(generation)
        return generation
