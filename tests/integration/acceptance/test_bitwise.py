"""A served stream equals an offline run bitwise, in any batch and any chunks, through evictions and restarts."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from pathlib import Path

import pytest
from cellkeeper_proto.v1 import cellkeeper_pb2 as pb

from testing.forked_server import ForkedServer
from testing.server_process import ServerProcess
from testing.wire_client import Replica

from .crew import Crew, Habits, check_at_rest
from .models import every_kind
from .sequences import Model, make_sequences

# nine models share the arena: 7 slots for a 2x512 LSTM, 28 for a 2x128
TIGHT = ("--arena-mib", "1", "--max-batch", "4", "--max-replay-steps", "3", "--max-slice-steps", "5")
ROOMY = ("--max-replay-steps", "1000", "--max-log-steps", "8192")
SESSIONS = {"lstm-2x512": 12, "lstm-2x128": 34, "hold": 34, "gru-after": 34}
KILLS = (0.3, 0.6)  # shares of all steps after which the server is killed
COUNTERS = ("cellkeeper_evictions_total", "cellkeeper_load_replayed_steps_total")
TIMEOUT_S = 300.0  # for what takes about twenty seconds, if the machine does nothing else

pytestmark = pytest.mark.timeout(2 * TIMEOUT_S)


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Path, Model]]:
    return every_kind(tmp_path_factory.mktemp("kinds"))


@pytest.mark.parametrize(
    "options", [pytest.param(TIGHT, id="tight"), pytest.param(ROOMY, id="roomy", marks=pytest.mark.fire)]
)
async def test_a_served_stream_equals_an_offline_run(
    options: tuple[str, ...], kinds: list[tuple[Path, Model]], seed: int, tmp_path: Path
) -> None:
    draw = random.Random(seed)
    models = [model for _, model in kinds]
    sequences = [
        sequence for model in models for sequence in make_sequences(model, SESSIONS.get(model.name, 16), 90, draw)
    ]
    words = ("--device", "cpu", *options)
    with ForkedServer([bundle for bundle, _ in kinds], f"sqlite:{tmp_path / 'store.db'}", words) as server:
        await check_models(server, models)
        crew = Crew([server.target], sequences, Habits())
        await crew.open_all(draw)
        kills = asyncio.create_task(kill_at(server, [crew.reached(share) for share in KILLS]))
        await crew.work(8, draw, TIMEOUT_S)
        earlier = await kills
        await check_at_rest(server.target, draw.sample(sequences, 60))
        in_all = earlier + counted(server)
        print(dict(crew.refusals), f"replayed: {crew.replayed}", dict(in_all))
        if options is TIGHT:
            assert all(in_all[name] > 0 for name in COUNTERS), in_all
        else:
            assert widest_batch(server) > 4


async def kill_at(server: ServerProcess, marks: list[asyncio.Event]) -> Counter[str]:
    """Kills the server at each mark. Returns the sum of the killed processes' counters.

    The last process may have only a few sessions left, and room for all of them.
    """
    earlier: Counter[str] = Counter()
    for mark in marks:
        await mark.wait()
        earlier += await asyncio.to_thread(counted, server)
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.restart)
    return earlier


def counted(server: ServerProcess) -> Counter[str]:
    return Counter({name: int(server.metric(name)) for name in COUNTERS})


async def check_models(server: ServerProcess, models: list[Model]) -> None:
    """Checks that the server says it is exact, with the numerics of the offline runs."""
    async with Replica(server.target) as replica:
        reply = await replica.call("ListModels", pb.ListModelsRequest())
        served = {info.name: (info.exact, info.numerics) for info in reply.models}
    assert served == {model.name: (True, model.engine.numerics) for model in models}


def widest_batch(server: ServerProcess) -> int:
    """Returns the largest bucket of batch sizes in use."""
    bounds = []
    for line in server.metrics().splitlines():
        if line.startswith("cellkeeper_batch_size_bucket") and 'le="+Inf"' not in line:
            model, bound = line.split('model="')[1].split('"')[0], float(line.split('le="')[1].split('"')[0])
            bounds.append((model, bound, float(line.rpartition(" ")[2])))
    full: dict[str, float] = {}
    widest = 0.0
    for model, bound, count in bounds:
        if count > full.get(model, 0.0):
            full[model], widest = count, max(widest, bound)
    return int(widest)
