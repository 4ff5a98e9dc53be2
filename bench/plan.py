"""What is measured: every scenario with its contenders, which take turns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .case import Case
from .load import Load
from .models import MAIN
from .table import keys_of_peers

GROUPS = ("client", "blocking", "group", "unary", "frames", "chunks", "mixed", "cold", "open")
OPEN_SESSIONS = 256
OPEN_RATES = (100, 1000, 4000, 8000, 16000)  # steps a second
COLD_SESSIONS = 16384
SINGLE_STEPS, LONG_CHUNKS = 64, 8


@dataclass(frozen=True, slots=True)
class Selection:
    groups: Sequence[str] = GROUPS
    stores: Sequence[str] = ("memory", "sqlite", "redis", "redis-always")
    peers: Sequence[str] = ("websocket", "triton", "kserve", "naive", "echo", "engine", "commit")
    models: Sequence[str] = (MAIN, "1x64", "2x512")
    sizes: Sequence[int] = ()  # flows, or items of a frame; empty: all


def plan(chosen: Selection) -> list[Case]:
    """Returns the cases in the order of a round."""
    cases: list[Case] = []
    for model in chosen.models:
        cases += _of_model(model, chosen)
    wanted = [case for case in cases if case.scenario.split()[0] in chosen.groups and _of_size(case, chosen.sizes)]
    needed = {key for case in wanted for key in keys_of_peers(case)}
    return [case for case in cases if case in wanted or case.key in needed]


def _of_size(case: Case, sizes: Sequence[int]) -> bool:
    """Returns True if the load has one of these sizes: its items in a frame, or its number of senders."""
    return not sizes or (case.load.items if case.load.items > 1 else case.load.flows) in sizes


def _of_model(model: str, chosen: Selection) -> list[Case]:
    main = model == MAIN
    ours = [f"cellkeeper {store}" for store in chosen.stores if store != "redis-always"]
    always = ["cellkeeper redis-always"] if "redis-always" in chosen.stores and main else []
    durable = [name for name in ours if "memory" not in name]
    triton = ["triton unary", "triton stream"] if "triton" in chosen.peers else []
    served = [name.split()[1] for name in ours if "sqlite" not in name]
    kserve = [f"kserve {way} {store}" for way in ("unary", "stream") for store in served]
    kserve = kserve if "kserve" in chosen.peers and main else []
    websocket = [name.replace("cellkeeper", "websocket") for name in ours] if "websocket" in chosen.peers else []
    naive = ["naive redis"] if "naive" in chosen.peers else []
    echo = ["echo"] if "echo" in chosen.peers else []
    engine = ["engine"] if "engine" in chosen.peers else []
    commits = [f"commit {name.split()[1]}" for name in durable] if "commit" in chosen.peers else []

    cases: list[Case] = []
    for flows in (1, 16, 64, 128, 256, 512, 1024) if main else (1, 256, 512):
        names = ours + websocket + (always if flows in (64, 256) else []) + triton + naive
        names = triton + naive if flows in (128, 512) else names  # as many sessions as two flows of frames
        names += kserve if flows in (1, 64, 256) else []
        cases += [Case(f"client {flows}", name, Load("client", model, flows=flows)) for name in names]
    if main:  # for comparison with "client 1": what a thread of its own costs a step
        cases += [Case("blocking 1", name, Load("blocking", model)) for name in ours + websocket]
    for items in (64, 256) if main else (256,):
        load = Load("group", model, items=items)
        names = ours + websocket + (always if items == 256 else [])
        cases += [Case(f"group {items}", name, load) for name in names]
    if main:
        cases += [Case("unary 64", name, Load("unary", model, flows=64)) for name in ours + echo + naive]
    for items in (64, 256) if main else (256,):
        scenario = f"frames {items}"
        names = ours + websocket + (always if items == 256 else []) + (echo if main else [])
        cases += [Case(scenario, name, Load("frames", model, flows=2, items=items)) for name in names]
        cases += [Case(scenario, name, Load("engine", model, items=items)) for name in engine]
        cases += [Case(scenario, name, Load("commit", model, items=items)) for name in commits if main]
    if not main:
        return cases

    for steps, flows in ((16, 64), (256, LONG_CHUNKS)):
        load = Load("client", model, flows=flows, steps=steps)
        cases += [Case(f"chunks {steps}", name, load) for name in ours + triton[:1]]
    single, long = Load("client", model, flows=SINGLE_STEPS), Load("client", model, flows=LONG_CHUNKS, steps=256)
    for name in [name for name in ours if "sqlite" not in name] + triton[:1]:
        cases += [Case("mixed without", name, single), Case("mixed with", name, single, beside=long)]
    load = Load("cold", model, flows=2, items=256, sessions=COLD_SESSIONS)
    cases += [Case("cold 256", f"{name}-cold", load) for name in durable]
    for rate in OPEN_RATES:
        load = Load("client", model, flows=OPEN_SESSIONS, rate=rate)
        names = [name for name in ours + websocket if "redis" in name] + triton + naive
        cases += [Case(f"open {rate}/s", name, load) for name in names]
    return cases
