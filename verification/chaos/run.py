"""One run: starts everything, plays rounds until its time is over, and judges each.

A round's history stays in memory until it is judged. To limit its size, however long a run takes, a round ends when its
history has reached the maximum, and the next one starts on the same servers and store, with other sessions.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tests.integration.acceptance.models import counting_and_lstm
from tests.integration.acceptance.sequences import Model

from .checker import Checker
from .deployment import Deployment
from .figures import Figures
from .memory import bounded, watched
from .offline import Reference
from .round import Round, Tamper, play
from .settings import Settings
from .stores import make_store

SHORTEST_S = 1.0  # a shorter round shows nothing


@dataclass
class Outcome:
    """The result of a run. last: the round whose violation ended the run, or the last one."""

    settings: Settings
    figures: Figures
    last: Round


def run(settings: Settings, tamper: Tamper | None = None) -> Outcome:
    """Runs the chaos test.

    tamper: receives the deployment when all clients have made their last step, before everything is read back. Raises
    RuntimeError if the harness itself cannot continue.
    """
    with tempfile.TemporaryDirectory(prefix="cellkeeper-chaos-") as folder:
        bundles = counting_and_lstm(Path(folder))
        models = [model for _, model in bundles]
        with make_store(settings.store) as store:
            deployment = Deployment(
                [bundle for bundle, _ in bundles], store, settings.replicas, settings.workers, settings.wait_replicas
            )
            with watched():
                return asyncio.run(bounded(_rounds(settings, deployment, models, tamper)))


async def _rounds(settings: Settings, deployment: Deployment, models: list[Model], tamper: Tamper | None) -> Outcome:
    figures, left_s = Figures(), settings.seconds
    async with deployment:
        while True:
            played = await play(settings, deployment, models, figures.rounds, left_s, tamper)
            await asyncio.to_thread(_judge, played, models)  # in a thread, so that the proxies continue
            figures.add(played)
            left_s -= played.seconds
            if played.verdict.findings or left_s < SHORTEST_S:
                return Outcome(settings, figures, played)
            del played  # before the next one fills its history


def _judge(played: Round, models: list[Model]) -> None:
    began = time.monotonic()
    references = {model.name: Reference(model.engine) for model in models}
    played.verdict = Checker(played.history, references).check()
    played.check_seconds = time.monotonic() - began
