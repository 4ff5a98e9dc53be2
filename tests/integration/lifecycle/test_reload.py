"""SIGHUP under load: new sessions take the new version, old ones continue exactly with theirs, nobody sees an error."""

from __future__ import annotations

import asyncio
import re
import signal
from pathlib import Path

import pytest
from cellkeeper import ModelChanged
from cellkeeper.aio import AsyncClient

from testing.bundles import make_bundle
from testing.forked_server import ForkedServer
from tests.integration.program.workers import Workers, scraped

from .live import Live
from .load import Load, until

OPTIONS = ("--device", "cpu", "--max-batch", "64")
RELOADS = "cellkeeper_reloads_total"


async def test_under_load(tmp_path: Path) -> None:
    live = Live(tmp_path)
    live.put(live.version(1))
    engines = live.engines(1, 2, 3)
    first, second, third = engines
    with ForkedServer([live.path], f"sqlite:{tmp_path / 's.db'}", OPTIONS) as server:
        async with AsyncClient(server.target) as client:
            load = Load(client, waiting=12, pipelining=4, features=3)

            async def reload(line: str) -> str:
                server.send_signal(signal.SIGHUP)
                said = await asyncio.to_thread(server.wait_for, line)
                await load.until_all_moved()
                return said

            def serves_new_sessions(fingerprint: bytes) -> bool:
                return any(story.session and story.fingerprint == fingerprint for story in load.stories)

            async with load:
                live.put(live.version(2))
                said = await reload("reload: model m: (.*)")
                assert said == (
                    f"{second.hex()[:12]} takes new sessions; also served: {first.hex()[:12]}; no longer served: none"
                )
                await until(lambda: serves_new_sessions(second))

                broken = tmp_path / "broken"
                make_bundle(broken, name="m", hidden_size=48, num_layers=2, seed=9)
                (broken / "model.safetensors").write_bytes(b"not tensors")
                other = make_bundle(tmp_path / "other", name="other", hidden_size=48, num_layers=2)
                wider = make_bundle(tmp_path / "wider", name="m", hidden_size=32)
                turned = ["known", 0, "known"]
                turned_bundle = make_bundle(
                    tmp_path / "turned", name="m", hidden_size=48, num_layers=2, feedback=turned
                )
                for folder, why in (
                    (turned_bundle, "feedback: differs from that of the served versions of model m"),
                    (broken, "not a safetensors file"),
                    (other, "holds model other now, expected m"),
                    (wider, "have different tensors; serve the new one under another name"),
                    (tmp_path / "nowhere", "no such folder"),
                ):
                    live.put(folder)
                    assert why in await reload("reload: refused, the served versions stay: (.*)")
                assert [model.fingerprint for model in await client.models()] == [second, first]

                live.put(live.version(3))
                server.send_signal(signal.SIGHUP)
                server.send_signal(signal.SIGHUP)
                await asyncio.to_thread(server.wait_for, "reload: done")
                server.send_signal(signal.SIGHUP)  # this one, at the latest, finds nothing new
                await asyncio.to_thread(server.wait_for, "reload: nothing has changed")
                await until(lambda: serves_new_sessions(third))
                assert [model.fingerprint for model in await client.models()] == [third, second, first]
            assert {load.stories[0].fingerprint, load.stories[-1].fingerprint} == {first, third}
            await load.check(engines)
            assert server.metric(RELOADS, result="changed") == 2
            assert server.metric(RELOADS, result="refused") == 5
            assert server.metric("cellkeeper_current_model_info", fingerprint=third.hex()) == 1
            assert server.metric("cellkeeper_model_info") == 3

            live.put(live.version(1))  # back: it is still loaded, and takes new sessions again
            server.send_signal(signal.SIGHUP)
            await asyncio.to_thread(server.wait_for, "reload: done")
            assert (await client.open("again")).model.fingerprint == first

        live.put(live.version(4))
        server.send_signal(signal.SIGHUP)
        assert server.stop() == 0  # a load in progress does not delay it
        server.restart()
        with server.channel():
            pass


async def test_the_version_replaced_first_goes(tmp_path: Path) -> None:
    live = Live(tmp_path, hidden_size=8, num_layers=1)
    live.put(live.version(1))
    with ForkedServer([live.path], "memory:", (*OPTIONS, "--keep-versions", "1")) as server:
        async with AsyncClient(server.target) as client:
            old = await client.open("old")
            await old.step([0.0] * 3)
            for seed in (2, 3):
                live.put(live.version(seed))
                server.send_signal(signal.SIGHUP)
                server.wait_for("reload: done")
            assert "no longer served: " + old.model.fingerprint.hex()[:12] in server.output()
            with pytest.raises(ModelChanged):
                await old.step([0.0] * 3)
            assert server.metric("cellkeeper_model_info") == 2


def until_said(workers: Workers, pattern: str, count: int) -> None:
    """Waits until so many lines match the pattern."""
    while sum(re.search(pattern, line) is not None for line in workers.lines) < count:
        workers.read_line()


@pytest.mark.fire
def test_every_worker_reloads(tmp_path: Path) -> None:
    live = Live(tmp_path, hidden_size=8, num_layers=1)
    live.put(live.version(1))
    with Workers(f"--store=sqlite:{tmp_path / 's.db'}", live.path) as workers:
        live.put(live.version(2))
        workers.read_until("metrics of all workers")
        workers.process.send_signal(signal.SIGHUP)  # before they serve: it is not lost, and ends no worker
        workers.wait_until_serving()
        (metrics,) = [line.split()[-1] for line in workers.lines if line.startswith("metrics of all")]
        until_said(workers, "reload: (done|nothing has changed)", 2)
        fingerprint = next(iter(live.engines(3))).hex()
        live.put(live.version(3))
        workers.process.send_signal(signal.SIGHUP)
        until_said(workers, f"reload: model m: {fingerprint[:12]} takes new sessions", 2)
        assert scraped(metrics)[f'cellkeeper_current_model_info{{fingerprint="{fingerprint}",model="m"}}'] == 1
        assert len([name for name in scraped(metrics) if name.startswith("cellkeeper_current_model_info")]) == 1
        workers.process.send_signal(signal.SIGTERM)
        assert workers.end() == 0
