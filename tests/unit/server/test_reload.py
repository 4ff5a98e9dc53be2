"""Reloads that fail in a way that nobody foresaw: the next one is made, and the server can still end."""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from cellkeeper_service.core.models import Models, Version
from cellkeeper_service.engine.load import load_engine
from cellkeeper_service.metrics import ReloadResult
from cellkeeper_service.model.bundle import Bundle, read_bundle
from cellkeeper_service.server.reload import Reloader

from testing.bundles import make_bundle


def loaded(bundle: Bundle, _: Callable[[], None] = lambda: None) -> Version:
    return Version(load_engine(bundle, "cpu", max_batch=4, threads=1), slot_count=4, max_replay_steps=64)


class Served:
    """A folder of the model "m" that is served, what was counted, and whether showing a change fails."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.put(1)
        self.models = {"m": Models([loaded(read_bundle(self.path))])}
        self.counts: asyncio.Queue[ReloadResult] = asyncio.Queue()
        self.failing = False
        self.reloader = Reloader(
            [self.path], ["m"], self.models, loaded, keep=1, count=self.counts.put_nowait, on_change=self.changed
        )

    @property
    def path(self) -> Path:
        return self.folder / "m"

    def put(self, seed: int) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        make_bundle(self.path, name="m", seed=seed)

    def changed(self) -> None:
        if self.failing:
            raise RuntimeError("the change cannot be shown")

    async def reload(self) -> ReloadResult:
        """Requests a reload, waits for its result, and returns it."""
        self.reloader.request()
        return await asyncio.wait_for(self.counts.get(), timeout=30)


async def test_an_exchange_that_fails_is_logged_and_ends_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    served = Served(tmp_path)
    served.put(2)
    served.failing = True
    with caplog.at_level(logging.ERROR):
        assert await served.reload() == "refused"
    assert "reload: failed" in caplog.text
    assert "the change cannot be shown" in caplog.text
    assert served.reloader.failed
    served.failing = False
    served.put(3)
    assert await served.reload() == "changed"
    assert not served.reloader.failed
    (served.path / "config.json").unlink()
    assert await served.reload() == "refused"
    assert served.reloader.failed
    served.put(3)
    assert await served.reload() == "unchanged"
    assert not served.reloader.failed
    await served.reloader.close()


async def test_after_a_failed_exchange_the_server_can_end(tmp_path: Path) -> None:
    served = Served(tmp_path)
    served.put(2)
    served.failing = True
    assert await served.reload() == "refused"
    await served.reloader.close()


async def test_a_result_that_cannot_be_counted_is_logged_and_ends_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    counted = asyncio.Event()

    def count(result: ReloadResult) -> None:
        counted.set()
        raise RuntimeError(f"cannot count {result}")

    served = Served(tmp_path)
    reloader = Reloader([served.path], ["m"], served.models, loaded, keep=1, count=count, on_change=served.changed)
    reloader.request()
    await asyncio.wait_for(counted.wait(), timeout=30)
    await reloader.close()
    assert "cannot count unchanged" in caplog.text
    assert "cannot count refused" not in caplog.text


async def test_a_version_that_is_gone_exchanges_none(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    served = Served(tmp_path)
    (before,) = served.models["m"]
    served.put(2)
    assert await served.reload() == "changed"
    first, second = served.models["m"]
    assert second is before
    served.models["m"].find = lambda fingerprint: None  # type: ignore[method-assign]
    with caplog.at_level(logging.ERROR):
        assert await served.reload() == "refused"
    assert "no longer served" in caplog.text
    assert list(served.models["m"]) == [first, before]
    await served.reloader.close()
