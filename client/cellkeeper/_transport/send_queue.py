"""Lanes that have something to send, and the frames made of it."""

from __future__ import annotations

from collections import deque

from .._session.session_sender import GroupKey, Lane
from .frame_codec import Frame

MAX_FRAME_BYTES = 1 << 20
_FOREVER = float("inf")


class Outbox:
    """default_timeout: seconds that a frame of replays gets."""

    def __init__(self, default_timeout: float) -> None:
        self._default_timeout = default_timeout
        self._added: list[Lane] = []  # since a frame was made; they are looked at when the next one is
        self._groups: dict[GroupKey, deque[Lane]] = {}

    def __bool__(self) -> bool:
        return bool(self._added or self._groups)

    def __len__(self) -> int:
        """Lanes that wait."""
        return len(self._added) + sum([len(group) for group in self._groups.values()])

    def add(self, lane: Lane) -> bool:
        """Whether it is the first that waits."""
        lane.queued = True
        added = self._added
        added.append(lane)
        return len(added) == 1 and not self._groups

    def drain(self) -> list[Lane]:
        """Takes all lanes out."""
        lanes = [lane for group in self._groups.values() for lane in group] + self._added
        self._groups.clear()
        self._added.clear()
        for lane in lanes:
            lane.queued = False
        return lanes

    def _sort(self, now: float) -> None:
        """Puts what was added into its groups."""
        default, groups = self._default_timeout, self._groups
        for lane in self._added:
            key = lane.group(now, default)
            if key is None:
                lane.queued = False
            elif key in groups:
                groups[key].append(lane)
            else:
                groups[key] = deque((lane,))
        self._added.clear()

    def next_frame(self, now: float, max_items: int) -> Frame | None:
        """The next frame; None where its lanes had nothing to send any more."""
        self._sort(now)
        if not self._groups:
            return None
        key = next(iter(self._groups))
        group = self._groups.pop(key)
        kind = key[0]
        frame = Frame(kind)
        lanes, chunks = frame.lanes, frame.chunks
        left, size = _FOREVER, 0
        names: set[str] = set()
        again: list[Lane] = []  # have more to send
        later: list[Lane] = []
        while group and len(lanes) < max_items and size < MAX_FRAME_BYTES:
            lane = group.popleft()
            name = lane.session
            if name in names:  # a second session object of the same name
                later.append(lane)
                continue
            lane.queued = False
            chunk = lane.take(kind)
            if chunk is None:  # what it was queued for is gone
                again.append(lane)
                continue
            names.add(name)
            lanes.append(lane)
            chunks.append(chunk)
            size += len(chunk.inputs) + 48
            call = chunk.tag
            if call is not None and call.late is None and call.deadline < left:
                left = call.deadline
            if lane.history.queued:
                again.append(lane)
        if later or group:
            group.extendleft(reversed(later))
            self._groups[key] = group
        for lane in again:
            lane.go_on()
        if not lanes:
            return None
        frame.timeout_ms = max(1, int((self._default_timeout if left == _FOREVER else left - now) * 1000))
        return frame
