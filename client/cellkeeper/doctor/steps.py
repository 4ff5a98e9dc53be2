"""Steps scratch sessions to find out whether endpoints compute alike and share one store."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from contextlib import suppress
from itertools import cycle

import numpy as np

from ..client import Client
from ..errors import AccessDenied, CellkeeperError, InvalidArgument, QuotaExceeded
from ..sync_session import Session
from ..types import Array, Model, Sample, TensorSpec
from .endpoint import EndpointCheck
from .finding import Finding, fail, ok, warn

STEPS = 8
TTL_S = 120.0  # in case deleting fails
SLOW_MS = 250.0
PREFIX = "cellkeeper-doctor/"


def check_steps(checks: Sequence[EndpointCheck], name: str, timeout: float) -> list[Finding]:
    """Steps a session on each endpoint. name: of the model; "": every model, in the version that takes new sessions."""
    findings: list[Finding] = []
    if not checks:
        return findings
    clients = {
        check.target: Client(check.target, timeout=timeout, tls=check.tls or False, token=check.token)
        for check in checks
    }
    try:
        models = {model.name: model for model in reversed(checks[0].models or ()) if name in ("", model.name)}
        if not models:
            return [
                fail("", "step", f"no endpoint serves a model {name!r}", "`cellkeeper model list` prints their names")
            ]
        for model in models.values():
            findings += _check_model(model, clients)
    finally:
        for client in clients.values():
            client.close()
    return findings


def _check_model(model: Model, clients: dict[str, Client]) -> list[Finding]:
    rows = samples(model)
    findings, outputs = [], dict[str, bytes]()
    for target, client in clients.items():
        try:
            outputs[target], median_ms = _stepped(model, client, rows)
        except CellkeeperError as error:
            text = f"{model.name}: {type(error).__name__}: {error}"
            findings.append(fail(target, "step", text, _advice(error)))
            continue
        text = f"{model.name}: {STEPS} steps of a scratch session, median {median_ms:.1f} ms"
        if median_ms > SLOW_MS:
            findings.append(warn(target, "step", text, "check which phase takes long: cellkeeper_chunk_seconds"))
        else:
            findings.append(ok(target, "step", text))
    if len(outputs) > 1:
        first, *others = outputs
        different = [target for target in others if outputs[target] != outputs[first]]
        for target in different:
            text = f"{model.name}: its outputs differ from those of {first} for the same inputs"
            advice = "the replicas must serve the same bundle on the same kind of engine"
            findings.append(fail(target, "step", text, advice))
        if not different:
            findings.append(ok("", "step", f"{model.name}: the same bits on every endpoint"))
            findings += _check_shared(model, {target: clients[target] for target in outputs}, rows)
    return findings


def _advice(error: CellkeeperError) -> str:
    match error:
        case QuotaExceeded():
            return "delete sessions of this tenant or step less, or raise its quota"
        case AccessDenied():
            return "use a token with the right step"
        case _:
            return "check its log and its store"


def _stepped(model: Model, client: Client, rows: Sequence[Sample]) -> tuple[bytes, float]:
    """Returns the outputs of a new session, and the median milliseconds of a step."""
    session = _scratch_session(client, model)
    times, outputs = [], []
    try:
        for row in rows:
            began = time.monotonic()
            outputs.append(session.step(row).tobytes())
            times.append(1000 * (time.monotonic() - began))
    finally:
        with suppress(CellkeeperError):  # its TTL ends it
            session.delete()
    return b"".join(outputs), sorted(times)[len(times) // 2]


def _scratch_session(client: Client, model: Model) -> Session:
    name = f"{PREFIX}{secrets.token_hex(8)}"
    try:
        return client.session(name, model=model.name, ttl=TTL_S)
    except InvalidArgument as error:
        if error.field != "ttl_ms":
            raise
        return client.session(name, model=model.name)  # the server allows less, and by default no more than that


def _check_shared(model: Model, clients: dict[str, Client], rows: Sequence[Sample]) -> list[Finding]:
    """Steps one session on each endpoint in turn."""
    session, last = None, ""
    try:
        for (target, client), row in zip(clients.items(), cycle(rows), strict=False):
            last = target
            if session is None:
                session = _scratch_session(client, model)
            else:
                session = client.session(session.id, model=model.name, expect=session.position)
            session.step(row)
    except CellkeeperError as error:
        reason = f"{type(error).__name__}: {error}"
        text = f"{model.name}: a session stepped on another endpoint is missing or differs: {reason}"
        return [fail(last, "store", text, "all replicas must share one --store")]
    finally:
        if session is not None:
            with suppress(CellkeeperError):
                session.delete()
    return [ok("", "store", f"{model.name}: one session, stepped on every endpoint in turn")]


def samples(model: Model) -> Sequence[Sample]:
    """Returns STEPS time steps, always the same: small numbers, or ids of the vocabulary."""
    draw = np.random.default_rng(1)
    if not model.inputs:
        return list(_values(draw, model.input, model.vocabulary))
    columns = {spec.name: _values(draw, spec, spec.vocabulary) for spec in model.inputs}
    return [{name: values[step] for name, values in columns.items()} for step in range(STEPS)]


def _values(draw: np.random.Generator, spec: TensorSpec, vocabulary: int) -> Array:
    shape = (STEPS, *spec.shape)
    if np.dtype(spec.dtype).kind in "iu":
        return draw.integers(0, vocabulary or 2, shape)
    return draw.uniform(0.0, 1.0, shape).astype(spec.dtype)
