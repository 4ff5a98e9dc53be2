"""Clients, sessions and groups stay in their process: pickle, copy, and what uses them, say what to do instead."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import pytest
from cellkeeper import AsyncClient, Client

ADVICE = "objects cannot be pickled or copied.*make a client in each process"


@dataclass
class Pump:
    session: Any


def on_their_way(thing: Any) -> list[Callable[[], Any]]:
    context = multiprocessing.get_context("spawn")

    def mapped() -> Any:
        with ProcessPoolExecutor(1, context) as pool:
            return pool.submit(repr, thing).result()

    return [
        lambda: pickle.dumps(thing),
        lambda: pickle.dumps([thing], 0),
        lambda: pickle.dumps(thing.close),
        lambda: copy.copy(thing),
        lambda: copy.deepcopy(thing),
        lambda: asdict(Pump(thing)),
        lambda: context.Process(target=repr, args=(thing,)).start(),
        mapped,
    ]


def test_of_the_blocking_client(target: str) -> None:
    with Client(target) as client:
        for thing in (client, client.session("a"), client.group(["b"])):
            for way in on_their_way(thing):
                with pytest.raises(TypeError, match=f"{type(thing).__name__} {ADVICE}"):
                    way()
        assert client.session("a").step([1.0, 1.0]).tolist() == [1, 1]


async def test_of_the_asyncio_client(target: str) -> None:
    async with AsyncClient(target) as client:
        for thing in (client, await client.session("a"), await client.group(["b"])):
            for way in (copy.copy, copy.deepcopy, pickle.dumps):
                with pytest.raises(TypeError, match=f"{type(thing).__name__} {ADVICE}"):
                    way(thing)
