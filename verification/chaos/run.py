"""One run: starts everything, and judges what came of it."""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path

from tests.integration.acceptance.models import counting_and_lstm

from .checker import Checker
from .cluster import Cluster
from .memory import bounded, watched
from .offline import Reference
from .round import Outcome, Tamper, under_fire
from .settings import Settings
from .stores import make_store


def run(settings: Settings, tamper: Tamper | None = None) -> Outcome:
    """tamper: is given the cluster when all have made their last step, before everything is read back. Raises
    RuntimeError where the harness itself cannot go on."""
    with tempfile.TemporaryDirectory(prefix="cellkeeper-chaos-") as folder:
        bundles = counting_and_lstm(Path(folder))
        models = [model for _, model in bundles]
        with make_store(settings.store) as store:
            cluster = Cluster([bundle for bundle, _ in bundles], store, settings.replicas, settings.workers)
            with watched():
                outcome = asyncio.run(bounded(under_fire(settings, cluster, models, tamper)))
        began = time.monotonic()
        references = {model.name: Reference(model.engine) for model in models}
        outcome.verdict = Checker(outcome.history, references).check()
        outcome.check_seconds = time.monotonic() - began
    return outcome
