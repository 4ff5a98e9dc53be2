"""An open stream ends when its caller's token expires, like the stream of a withdrawn token."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import pytest
from cellkeeper_service.access.quotas import Quota
from cellkeeper_service.access.tokens import TokenFile
from cellkeeper_service.errors import Reason, Rejection
from cellkeeper_service.rpc import authenticator
from cellkeeper_service.rpc.authenticator import Authenticator
from cellkeeper_service.rpc.catalog import Catalog

from .tenants import bearer, entry

EXPIRES, EXPIRES_S = "2027-01-31T00:00:00Z", 1801353600.0


class Call:
    """A call with this token, as far as an authenticator looks at it."""

    def __init__(self, token: str) -> None:
        self._token = token

    def invocation_metadata(self) -> Sequence[tuple[str, str | bytes]]:
        return bearer(self._token)

    def auth_context(self) -> Mapping[str, Sequence[bytes]]:
        return {}

    def time_remaining(self) -> float | None:
        return None

    def peer(self) -> str:
        return ""

    async def read(self) -> Any:
        raise NotImplementedError

    async def sent(self) -> None:
        raise NotImplementedError

    def cancel(self) -> None:
        raise NotImplementedError

    async def refuse(self, why: Rejection) -> NoReturn:
        raise NotImplementedError


class Clock:
    """Unix time, in seconds, that a test sets."""

    def __init__(self, now: float) -> None:
        self.now = now

    def time(self) -> float:
        return self.now


def test_a_stream_ends_when_its_token_expires(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The token is still in the file: only its expiry ends the stream."""
    (token, line), (lasting, other) = entry("a", "step", EXPIRES), entry("a", "step")
    (tmp_path / "tokens").write_text(f"{line}\n{other}\n")
    clock = Clock(EXPIRES_S - 1)
    monkeypatch.setattr(authenticator, "time", clock)
    tokens = TokenFile(str(tmp_path / "tokens"), Quota())
    access = Authenticator(Catalog({}, None), tokens)  # type: ignore[arg-type]
    ended: list[Rejection] = []
    kept: list[Rejection] = []
    with (
        access.open_stream(access.enter("StepStream", Call(token)), ended.append),
        access.open_stream(access.enter("StepStream", Call(lasting)), kept.append),
    ):
        access.sweep()
        assert not ended
        clock.now = EXPIRES_S
        access.sweep()
        assert [refused.reason for refused in ended] == [Reason.UNAUTHENTICATED]
        assert not kept
    with pytest.raises(Rejection) as refused:
        access.enter("StepStream", Call(token))
    assert refused.value.reason is Reason.UNAUTHENTICATED


async def test_the_watch_goes_on_after_an_unforeseen_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (token, line), (_, other) = entry("a", "step"), entry("a", "step")
    (tmp_path / "tokens").write_text(f"{line}\n")
    tokens = TokenFile(str(tmp_path / "tokens"), Quota())
    access = Authenticator(Catalog({}, None), tokens)  # type: ignore[arg-type]
    reread = tokens.reread

    def fail_once() -> bool:
        monkeypatch.setattr(tokens, "reread", reread)
        raise RuntimeError("unforeseen")

    monkeypatch.setattr(tokens, "reread", fail_once)
    monkeypatch.setattr(authenticator, "WATCH_SECONDS", 0.001)
    ended: asyncio.Future[Rejection] = asyncio.get_running_loop().create_future()
    with access.open_stream(access.enter("StepStream", Call(token)), ended.set_result):
        watch = asyncio.create_task(access.watch())
        (tmp_path / "tokens").write_text(f"{other}\n")
        assert (await asyncio.wait_for(ended, 10)).reason is Reason.UNAUTHENTICATED
        watch.cancel()
        await asyncio.wait([watch])
    assert "the token file could not be reread" in caplog.text
