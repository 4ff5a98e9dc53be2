"""The checks of `cellkeeper doctor`, one finding a line."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

from .._transport.credentials import Tls
from ..types import Model
from .endpoint import EndpointCheck
from .finding import Finding, fail, ok, warn
from .metrics import Scrape, check_scrapes
from .steps import check_steps


def examine(
    endpoints: Sequence[str], metrics: Sequence[str], model: str, tls: Tls | None, token: str | None, timeout: float
) -> list[Finding]:
    """Runs all checks of a deployment, in an order in which the first failure explains later ones.

    endpoints: host:port. metrics: URLs of /metrics; empty: not checked. model: whose sessions are stepped; "": every
    model's. tls: None: plain text. timeout: seconds for each call. The sessions that it creates are deleted; if that
    fails, they expire.
    """
    findings: list[Finding] = []
    models: dict[str, list[Model]] = {}
    with ExitStack() as opened:
        checks = [opened.enter_context(EndpointCheck(target, tls, token, timeout)) for target in endpoints]
        for check in checks:
            findings += check.run()
            if check.models is not None:
                models[check.target] = check.models
        findings += compare_models(models)
        serving = [check for check in checks if check.serving and check.models]
        findings += check_steps(serving, model, timeout)
    if metrics:
        findings += check_scrapes([Scrape.of(url, timeout) for url in metrics])
    else:
        findings.append(Finding("skip", "", "store, clock, metrics", "not checked: give --metrics URL"))
    return findings


def compare_models(by_target: dict[str, list[Model]]) -> list[Finding]:
    """Checks that every endpoint serves the same versions and numerics: a session may move between any two."""
    findings = []
    for target, models in by_target.items():
        if not models:
            findings.append(fail(target, "model", "no model is served", "give `cellkeeper-server serve` a bundle"))
        for model in models:
            if not model.exact:
                text = f"{model.name} is not exact: outputs may differ by {model.tolerance:g} (relative)"
                findings.append(warn(target, "model", text, "serve it with an engine that is exact: docs/models.md"))
    if len(by_target) < 2:
        return findings
    (first, expected), *others = (
        (target, {(m.name, m.fingerprint.hex()[:12], m.numerics) for m in models})
        for target, models in by_target.items()
    )
    for target, found in others:
        if found != expected:
            only = ", ".join(" ".join(row) for row in sorted(expected ^ found))
            text = f"serves other versions than {first}, or computes them differently: {only}"
            advice = "give all replicas the same bundles, engine and kind of processor"
            findings.append(fail(target, "model", text, advice))
    if not any(finding.level == "fail" for finding in findings):
        findings.append(ok("", "model", "the same versions and numerics on every endpoint"))
    return findings
