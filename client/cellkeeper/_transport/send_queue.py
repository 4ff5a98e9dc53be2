"""The queue of senders with something to send, and the frames made from it."""

from __future__ import annotations

from collections import deque
from itertools import chain
from typing import Any

from .._session.session_sender import FrameKey, SessionSender
from .frame_codec import MAX_FRAME_BYTES, Frame, item_bytes
from .group_frame import GroupFrame

_FOREVER = float("inf")

Sendable = SessionSender | GroupFrame


class SendQueue:
    """What waits to be sent to one endpoint: senders of sessions, to be packed into frames, and frames of groups.

    default_timeout: the seconds allowed for a frame of replays. max_items, max_bytes: of one frame.
    """

    def __init__(self, default_timeout: float, max_items: int) -> None:
        self.max_items = max_items
        self.max_bytes = MAX_FRAME_BYTES
        self._default_timeout = default_timeout
        self._added: list[Sendable] = []  # since the last frame; sorted when the next one is made
        self._groups: dict[FrameKey | GroupFrame, deque[Any]] = {}  # by what its items share; a group's frame alone

    def __bool__(self) -> bool:
        return bool(self._added or self._groups)

    def __len__(self) -> int:
        """Returns how many senders and frames wait."""
        return len(self._added) + sum([len(group) for group in self._groups.values()])

    def limit(self, max_items: int, max_bytes: int) -> None:
        """Limits frames to that many items, and these to that many bytes."""
        self.max_items, self.max_bytes = min(self.max_items, max_items), min(self.max_bytes, max_bytes)

    def add(self, sender: Sendable) -> bool:
        """Adds a sender or frame. Returns True if the queue was empty."""
        sender.queued = True
        added = self._added
        added.append(sender)
        return len(added) == 1 and not self._groups

    def drain(self) -> list[Sendable]:
        """Removes and returns everything."""
        waiting: list[Sendable] = [*chain(*self._groups.values()), *self._added]
        self._groups.clear()
        self._added.clear()
        for sender in waiting:
            sender.queued = False
        return waiting

    def _sort(self, now: float) -> None:
        """Groups the added senders by what may share a frame."""
        default, groups = self._default_timeout, self._groups
        for sender in self._added:
            key = sender if isinstance(sender, GroupFrame) else sender.frame_key(now, default)
            if key is None:
                sender.queued = False
                continue
            group = groups.get(key)
            if group is None:
                groups[key] = deque((sender,))
            else:
                group.append(sender)
        self._added.clear()

    def next_frame(self, now: float, max_items: int, least_seconds: float = 0.0) -> Frame | GroupFrame | None:
        """Returns the next frame; None if its senders have nothing left to send.

        now: on the event loop's clock. max_items: the most chunks in the frame, at most one for each session.
        least_seconds: chunks that have less time left stay in the queue while others wait.
        """
        self._sort(now)
        for key in list(self._groups):
            frame = self._frame_of(key, now, max_items, least_seconds)
            if frame is not None:
                return frame
        if least_seconds and self._groups:  # all would be late: the newest has the best chance
            return self._frame_of(next(reversed(self._groups)), now, max_items, newest_first=True)
        return None

    def _frame_of(
        self,
        key: FrameKey | GroupFrame,
        now: float,
        max_items: int,
        least_seconds: float = 0.0,
        newest_first: bool = False,
    ) -> Frame | GroupFrame | None:
        group = self._groups.pop(key)
        if isinstance(key, GroupFrame):
            return key if key.take(now) else None
        frame_format = key[0]
        frame = Frame(frame_format)
        senders, chunks = frame.senders, frame.chunks
        left, size = _FOREVER, 0
        names: set[str] = set()
        again: list[SessionSender] = []  # have more to send
        later: list[SessionSender] = []
        while group and len(senders) < max_items:
            sender = group[-1] if newest_first else group[0]
            name, upcoming = sender.session, sender.history.upcoming
            more = 0 if upcoming is None else item_bytes(len(upcoming.inputs), name)
            if senders and size + more > self.max_bytes:
                break
            group.pop() if newest_first else group.popleft()
            if name in names or (least_seconds and sender.seconds_left(now) < least_seconds):
                later.append(sender)  # another session object with the same id, or a chunk that would be late
                continue
            sender.queued = False
            chunk = sender.take(frame_format)
            if chunk is None:  # the chunk it was queued for is gone
                again.append(sender)
                continue
            names.add(name)
            senders.append(sender)
            chunks.append(chunk)
            size += more
            call = chunk.call
            if call is not None and call.late is None and call.deadline < left:
                left = call.deadline
            if sender.history.queued:
                again.append(sender)
        if later or group:
            group.extendleft(reversed(later))
            self._groups[key] = group
        for sender in again:
            sender.go_on()
        if not senders:
            return None
        frame.timeout_ms = max(1, int((self._default_timeout if left == _FOREVER else left - now) * 1000))
        return frame
