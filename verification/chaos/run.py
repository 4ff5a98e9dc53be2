"""One run: starts everything, plays rounds until its time is over, and judges each.

A round's history is in memory until it is judged. So that this stays bounded however long a run takes, a round ends
when its history is as large as it may be, and the next one begins on the same servers and store, with other sessions.
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
from .cluster import Cluster
from .figures import Figures
from .memory import bounded, watched
from .offline import Reference
from .round import Round, Tamper, play
from .settings import Settings
from .stores import make_store

SHORTEST_S = 1.0  # a round of less shows nothing


@dataclass
class Outcome:
    """What a run gave. last: the round that a violation ended the run with, or the one that ended with it."""

    settings: Settings
    figures: Figures
    last: Round


def run(settings: Settings, tamper: Tamper | None = None) -> Outcome:
    """tamper: is given the cluster when all have made their last step, before everything is read back. Raises
    RuntimeError where the harness itself cannot go on."""
    with tempfile.TemporaryDirectory(prefix="cellkeeper-chaos-") as folder:
        bundles = counting_and_lstm(Path(folder))
        models = [model for _, model in bundles]
        with make_store(settings.store) as store:
            cluster = Cluster([bundle for bundle, _ in bundles], store, settings.replicas, settings.workers)
            with watched():
                return asyncio.run(bounded(_rounds(settings, cluster, models, tamper)))


async def _rounds(settings: Settings, cluster: Cluster, models: list[Model], tamper: Tamper | None) -> Outcome:
    figures, left_s = Figures(), settings.seconds
    async with cluster:
        while True:
            played = await play(settings, cluster, models, figures.rounds, left_s, tamper)
            await asyncio.to_thread(_judge, played, models)  # the proxies go on
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
