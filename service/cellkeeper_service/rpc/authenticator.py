"""Authenticates each call once, by its token or client certificate, before any of its message is read."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from cellkeeper_service.access.quotas import Allowances
from cellkeeper_service.access.rights import ANYBODY, NEEDS, Grant, Right, allowed
from cellkeeper_service.access.tokens import TokenFile
from cellkeeper_service.errors import Reason, Rejection

from .call_context import CallContext
from .caller import Caller
from .catalog import Catalog

log = logging.getLogger(__name__)

WATCH_SECONDS = 1.0
"""How often to check the token file, and whether the callers of open streams may continue."""

HEADER = "authorization"
SCHEME = "bearer "
NAMES = ("x509_subject_alternative_name", "x509_common_name")


class Authenticator:
    """Checks who calls. Without tokens every caller is admitted, with every right, as the tenant ""."""

    def __init__(self, catalog: Catalog, tokens: TokenFile | None = None, allowances: Allowances | None = None) -> None:
        """allowances: the tenants' quotas; None if nobody is limited."""
        self._catalog = catalog
        self._tokens = tokens
        self._allowances = allowances or Allowances()
        self._callers: dict[Grant, Caller] = {}
        self._streams: dict[Callable[[Rejection], None], Caller] = {}
        self.renewed()
        self._anybody = self._caller(ANYBODY)

    @property
    def is_open(self) -> bool:
        return self._tokens is None

    def enter(self, rpc: str, context: CallContext) -> Caller:
        """Returns the caller. Raises UNAUTHENTICATED, or PERMISSION_DENIED if it lacks the right for the RPC."""
        if self._tokens is None:
            return self._anybody
        grant = _grant(context, self._tokens)
        if not allowed(rpc, grant.rights):
            needed = " or ".join(sorted(right.value for right in NEEDS.get(rpc, ())))
            text = f"{rpc} needs the right {needed}" if needed else f"{rpc}: no right permits this call"
            raise Rejection(Reason.PERMISSION_DENIED, text)
        caller = self._callers.get(grant)
        if caller is None:
            caller = self._callers[grant] = self._caller(grant)
        return caller

    def check(self, caller: Caller) -> None:
        """Raises UNAUTHENTICATED if the caller's grant has expired or been revoked since it was admitted."""
        if self._tokens is None:
            return
        if caller.grant.expires <= time.time() or not self._tokens.table.holds(caller.grant):
            raise _refused()

    @contextmanager
    def open_stream(self, caller: Caller, end: Callable[[Rejection], None]) -> Iterator[None]:
        """Registers an open stream. Calls `end` when its caller may no longer continue.

        `end` stops reading and answers what has been read: unanswered messages were not applied. Raises QUOTA_EXCEEDED.
        """
        caller.allowance.open_stream()
        self._streams[end] = caller
        try:
            yield
        finally:
            del self._streams[end]
            caller.allowance.close_stream()

    async def watch(self) -> None:
        """Rereads the token file and sweeps the streams until cancelled."""
        while self._tokens is not None:
            await asyncio.sleep(WATCH_SECONDS)
            try:
                if await asyncio.to_thread(self._tokens.reread):
                    self.renewed()
            except Exception:  # if the watch ended, tokens could no longer be revoked
                log.exception("internal error: the token file could not be reread")
            self.sweep()

    def renewed(self) -> None:
        """Called when the tokens have been read: drops cached callers and renews the tenants' quotas."""
        self._callers.clear()
        if self._tokens is not None:
            self._allowances.renew(self._tokens.table.quotas)

    def sweep(self) -> None:
        """Ends the streams of callers whose grant has expired or been revoked."""
        if self._tokens is None:
            return
        for end, caller in list(self._streams.items()):
            try:
                self.check(caller)
            except Rejection as refused:  # noqa: PERF203 - each stream ends on its own
                end(refused)

    def _caller(self, grant: Grant) -> Caller:
        catalog = self._catalog.of(grant.tenant, shows_state=Right.READ in grant.rights)
        return Caller(grant, catalog, self._allowances.of(grant.tenant))


def _grant(context: CallContext, tokens: TokenFile) -> Grant:
    """Returns the grant of the call's token or certificate. Raises UNAUTHENTICATED."""
    sent = [value for name, value in context.invocation_metadata() if name == HEADER]
    grant = None
    if len(sent) == 1 and isinstance(sent[0], str) and sent[0][: len(SCHEME)].lower() == SCHEME:
        grant = tokens.table.of_token(sent[0][len(SCHEME) :].strip())
    elif not sent and tokens.table.by_name:
        names = [name for kind in NAMES for name in context.auth_context().get(kind, ())]
        found = (tokens.table.by_name.get(bytes(name).decode(errors="replace")) for name in names)
        grant = next(filter(None, found), None)
    if grant is None or grant.expires <= time.time():
        raise _refused()
    return grant


def _refused() -> Rejection:
    """Returns the one rejection for all failures, so that guessing tokens reveals nothing."""
    text = "expected a valid, unexpired token in `authorization: Bearer TOKEN`"
    return Rejection(Reason.UNAUTHENTICATED, text)
