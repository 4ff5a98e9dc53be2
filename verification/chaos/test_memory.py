"""The limit on memory."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest

from . import memory


async def test_work_within_the_bound() -> None:
    assert await memory.bounded(asyncio.sleep(0, "done")) == "done"


async def test_work_beyond_the_bound_is_ended_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "MOST_BYTES", 1)
    with pytest.raises(RuntimeError, match="tasks at"):
        await memory.bounded(asyncio.Event().wait())


async def test_what_the_work_raises() -> None:
    async def broken() -> None:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        await memory.bounded(broken())


async def stuck() -> None:
    until = time.monotonic() + 20.0
    while time.monotonic() < until:
        pass


def test_a_loop_that_is_stuck_is_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "BLOCKED_BYTES", 1)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background process ignores it
    began = time.monotonic()
    try:
        with pytest.raises(RuntimeError, match="where the threads were"), memory.watched():
            asyncio.run(stuck())
    finally:
        signal.signal(signal.SIGINT, before)
    assert time.monotonic() < began + 15.0


def test_who_holds_the_interpreter_is_denied_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "DENIED_BYTES", mapped_bytes() + (1 << 30))
    with memory.watched(), pytest.raises(MemoryError):
        bytes(8 << 30)


def test_a_process_that_has_mapped_too_much_already_is_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stacks and arenas of threads are mapped, though hardly any of them is resident."""
    monkeypatch.setattr(memory, "DENIED_BYTES", mapped_bytes() // 2)
    with pytest.raises(MemoryError), memory.watched():
        bytes(1 << 30)


def mapped_bytes() -> int:
    """What the system's limit on data counts, and the main thread's stack."""
    return int(Path("/proc/self/statm").read_text().split()[5]) * os.sysconf("SC_PAGE_SIZE")
