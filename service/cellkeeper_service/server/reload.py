"""Reloads the models' folders while they are served: changed versions take new sessions, and those that they replaced
keep their old ones.

A reload is all or nothing: if one folder cannot be served, everything stays as it is.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cellkeeper_service.core.guarded_meter import logs_errors
from cellkeeper_service.core.models import Models, Version
from cellkeeper_service.domain.spec import ModelSpec
from cellkeeper_service.errors import StartError
from cellkeeper_service.metrics import ReloadResult
from cellkeeper_service.model.bundle import Bundle, read_bundle

log = logging.getLogger(__name__)

PAUSE_SHARE = 1.0
"""How long the loading thread pauses between two engine calls of the load-time test, in multiples of a call's time."""
LONGEST_PAUSE_SECONDS = 0.01


class Ended(Exception):
    """The server is ending, so what is being loaded will not be served."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a folder contains. served: the loaded version; None if that version is already served."""

    spec: ModelSpec
    served: Version | None


class Reloader:
    """Reads the folders again on request, on another thread, and exchanges the models' versions.

    folders: as given at the start; `names` has the model of each. load: returns a bundle's version, ready to be served;
    runs on the other thread and must call its second argument between engine calls. keep: how many replaced versions
    of each model stay served. count: is called with each result. on_change: is called after versions were exchanged.
    """

    def __init__(
        self,
        folders: Sequence[Path],
        names: Sequence[str],
        models: Mapping[str, Models],
        load: Callable[[Bundle, Callable[[], None]], Version],
        *,
        keep: int,
        count: Callable[[ReloadResult], None],
        on_change: Callable[[], None],
    ) -> None:
        self._folders = list(zip(folders, names, strict=True))
        self._models = models
        self._load = load
        self._count = logs_errors(count)
        self._keep = keep
        self._on_change = on_change
        self.failed = False
        """True if the last reload that came to an end was refused: the folders hold something that is not served."""
        self._wanted = False
        self._ending = False
        self._task: asyncio.Task[None] | None = None
        self._paused = 0.0

    def request(self) -> None:
        """Reads the folders again, after a reload in progress has finished."""
        if self._ending:
            log.info("reload: ignored, the server is stopping")
            return
        self._wanted = True
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run(), name="reload")

    async def close(self) -> None:
        """Abandons a reload in progress, and returns soon."""
        self._ending = True
        if self._task is not None:
            await self._task

    async def _run(self) -> None:
        while self._wanted and not self._ending:
            self._wanted = False
            try:
                result = await self._reload()
            except Exception:  # must not end the task: `close` waits for it
                log.exception("reload: failed; `cellkeeper model` shows the versions that are served now")
                result = "refused"
            if result != "abandoned":
                self.failed = result == "refused"
            self._count(result)

    async def _reload(self) -> ReloadResult:
        """Reloads, and returns the result."""
        started = time.monotonic()
        try:
            found = await asyncio.to_thread(self._read)
        except Ended:
            return "abandoned"
        except StartError as error:
            log.error("reload: refused, the served versions stay: %s", error)
            return "refused"
        if self._ending:
            return "abandoned"
        if not self._exchange(found):
            log.info("reload: nothing has changed")
            return "unchanged"
        log.info("reload: done in %.1f s", time.monotonic() - started)
        return "changed"

    # on the event loop's thread

    def _exchange(self, found: Sequence[Found]) -> bool:
        """Exchanges the models' versions, and returns True if any changed. No request is decided in between.

        Raises LookupError if a version is no longer served; then none was exchanged.
        """
        first = {name: self._first(name, models, found) for name, models in self._models.items()}
        changed = False
        for name, models in self._models.items():
            before = list(models)
            replaced = [version for version in before if version not in first[name]]
            versions = [*first[name], *replaced[: self._keep]]
            if versions != before:
                changed = True
                models.exchange(versions)
                self._tell(name, versions, replaced[self._keep :])
        if changed:
            self._on_change()
        return changed

    def _first(self, name: str, models: Models, found: Sequence[Found]) -> list[Version]:
        """Returns the versions of one model that the folders contain, in their order. Raises LookupError."""
        versions: list[Version] = []
        for item in found:
            if item.spec.name == name:
                version = item.served or models.find(item.spec.fingerprint)
                if version is None:
                    raise LookupError("a version that was served when its folder was read is no longer served")
                versions.append(version)
        return versions

    def _tell(self, name: str, versions: Sequence[Version], retired: Sequence[Version]) -> None:
        def listed(some: Sequence[Version]) -> str:
            return ", ".join(served.spec.fingerprint.hex()[:12] for served in some) or "none"

        text = "reload: model %s: %s takes new sessions; also served: %s; no longer served: %s"
        log.info(text, name, listed(versions[:1]), listed(versions[1:]), listed(retired))

    # on another thread

    def _read(self) -> list[Found]:
        """Reads and loads what the folders now contain. Raises StartError and Ended."""
        found: list[Found] = []
        for folder, name in self._folders:
            self._between()
            bundle = read_bundle(folder)
            spec = bundle.spec
            self._check(folder, name, spec, found)
            known = any(served.spec.fingerprint == spec.fingerprint for served in list(self._models[name]))
            found.append(Found(spec, None if known else self._load(bundle, self._between)))
        for (folder, _), item in zip(self._folders, found, strict=True):
            if item.served is not None and read_bundle(folder).spec.fingerprint != item.spec.fingerprint:
                raise StartError(f"{folder}: changed while it was read; reload again when it is complete")
        return found

    def _check(self, folder: Path, name: str, spec: ModelSpec, before: Sequence[Found]) -> None:
        """Raises StartError if the folder's model cannot replace the previous one. before: other folders' versions."""
        if spec.name != name:
            raise StartError(f"{folder}: holds model {spec.name} now, expected {name}; restart the server")
        if any(item.spec.fingerprint == spec.fingerprint for item in before):
            raise StartError(f"{folder}: holds the same version as another folder, expected a different one")
        served = self._models[name].default.spec
        if not spec.looks_like(served):
            raise StartError(
                f"{folder}: versions {served.fingerprint.hex()[:12]} and {spec.fingerprint.hex()[:12]} of model {name} "
                "have different tensors; serve the new one under another name"
            )
        feedback = self._models[name].feedback
        if spec.feedback is not None and feedback is not None and spec.feedback != feedback:
            raise StartError(f"{folder}: feedback: differs from that of the served versions of model {name}")

    def _between(self) -> None:
        """Pauses, to leave CPU time to the event loop's thread. Raises Ended if the server is ending."""
        if self._ending:
            raise Ended
        now = time.perf_counter()
        took = now - self._paused
        time.sleep(min(PAUSE_SHARE * took, LONGEST_PAUSE_SECONDS))
        self._paused = time.perf_counter()


class HangUps:
    """Handles SIGHUP from the start: one that arrives before the server serves is neither lost nor fatal."""

    def __init__(self) -> None:
        self.came = False
        signal.signal(signal.SIGHUP, self._note)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})  # blocked since this process began

    def _note(self, number: int, frame: object) -> None:
        self.came = True

    def hand_over(self, request: Callable[[], None]) -> None:
        """Call in the event loop. Calls `request` for each further SIGHUP, and at once if one has already arrived."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, request)
        if self.came:
            request()
