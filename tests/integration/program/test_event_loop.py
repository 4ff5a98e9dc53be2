"""Which event loop the server runs on."""

from __future__ import annotations

import asyncio
import sys

import pytest
from cellkeeper_service.server import event_loop


async def name_of_loop(names: list[str]) -> None:
    names.append(type(asyncio.get_running_loop()).__module__.partition(".")[0])


def test_it_is_uvloop_where_there_is_one() -> None:
    names: list[str] = []
    event_loop.run(name_of_loop(names))
    assert names == ["uvloop"]


def test_it_is_asyncios_own_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", None)  # as if it were not installed
    names: list[str] = []
    event_loop.run(name_of_loop(names))
    assert names == ["asyncio"]
