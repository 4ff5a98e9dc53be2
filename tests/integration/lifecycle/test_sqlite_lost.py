"""A running server's SQLite file is taken away: the server reports it, and acknowledges nothing more."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from testing.forked_server import ForkedServer
from tests.integration.rpc.calls import WAYS, Api, Chunk, numbers

from .load import until
from .test_readiness import ALIVE, READY, probes

OPTIONS = ("--device", "cpu", "--max-batch", "64")
NOTICED_S = 1.0


def unlink(path: Path) -> None:
    path.unlink()


def restore(path: Path) -> None:
    """Replaces the file by a backup."""
    shutil.copy(path, path.with_name("backup.db"))
    os.replace(path.with_name("backup.db"), path)


@pytest.mark.parametrize(("lose", "text"), [(unlink, "was removed"), (restore, "was replaced")])
async def test_noticed_within_a_second(
    lose: Callable[[Path], None], text: str, counting_model: Path, tmp_path: Path
) -> None:
    path = tmp_path / "data" / "s.db"
    with ForkedServer([counting_model], f"sqlite:{path}", OPTIONS) as server, server.channel() as channel:
        api = Api(server.stub(channel))
        at = {way: api.send(way, Chunk(way, numbers(1.0), api.open(way))).after for way in WAYS}
        assert probes(server) == (ALIVE, READY)
        lose(path)
        said = f"not ready: the store is lost: '{path}' {text}"
        await until(lambda: probes(server)[1][1].startswith(said), NOTICED_S)  # although nobody has stepped since
        for way in WAYS:
            result = api.send(way, Chunk(way, numbers(1.0), at[way]))
            assert (result.code, result.reason) == ("UNAVAILABLE", "STORE_UNAVAILABLE"), result
            assert text in result.message
        for session in ("unary", "new"):
            result = api.send("unary", Chunk(session, numbers(1.0)))
            assert (result.code, result.reason) == ("UNAVAILABLE", "STORE_UNAVAILABLE"), result
        alive, ready = probes(server)
        assert alive == ALIVE
        assert ready[0] == 503


async def test_not_ready_as_soon_as_a_step_was_refused(counting_model: Path, tmp_path: Path) -> None:
    """And ready again once the file is back."""
    path = tmp_path / "s.db"
    with ForkedServer([counting_model], f"sqlite:{path}", OPTIONS) as server, server.channel() as channel:
        api = Api(server.stub(channel))
        at = api.send("unary", Chunk("s", numbers(1.0), api.open("s"))).after
        path.rename(tmp_path / "away.db")
        assert api.send("unary", Chunk("s", numbers(2.0), at)).reason == "STORE_UNAVAILABLE"
        assert "the store is lost" in probes(server)[1][1]
        (tmp_path / "away.db").rename(path)
        await until(lambda: probes(server) == (ALIVE, READY))
        assert api.send("unary", Chunk("s", numbers(2.0), at)).sums == [3.0]
