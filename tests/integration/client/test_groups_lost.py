"""Groups whose replies, streams or steps are lost, on a server that loses them on request.

The model sums its inputs, so every later answer reveals a lost, doubled or misplaced step.
"""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest
from cellkeeper import AsyncClient, AsyncGroup, GroupError, HistoryChanged, HistoryLost, InvalidArgument
from cellkeeper_proto.v1 import cellkeeper_pb2 as pb

from .conftest import QUICK
from .counting_record import REFUSED_VALUE
from .counting_server import CountingServer
from .counting_wire import Refused
from .ones import IDS, ONES, count_together


@pytest.mark.parametrize("hook", ["lose_replies", "cut_frames"])
async def test_a_lost_stream(server: CountingServer, client: AsyncClient, group: AsyncGroup, hook: str) -> None:
    await count_together(group, 3)
    setattr(server, hook, 2)
    await count_together(group, 1, first=4)
    reply = group.last_reply
    assert reply is not None
    assert reply.replayed == (hook == "lose_replies",) * 8
    assert client.counters.stream_reconnects == 2
    server.frame_sizes.clear()
    await count_together(group, 3, first=5)
    assert server.frame_sizes == [8, 8, 8]  # all are in one frame again
    assert server.applied_steps == 8 * 7


async def test_groups_and_sessions_share_the_stream(server: CountingServer, client: AsyncClient) -> None:
    groups = [await client.group([f"{name}-{number}" for name in IDS]) for number in range(3)]
    sessions = [await client.session(f"single-{number}") for number in range(3)]
    for step in range(1, 4):
        steps = [*(group.step(ONES) for group in groups), *(session.step(ONES[0]) for session in sessions)]
        assert {y.flat[0] for y in await asyncio.gather(*steps)} == {step}
    assert server.streams == 1


async def test_items_are_answered_in_any_order(server: CountingServer, group: AsyncGroup) -> None:
    """A server answers them as they are ready."""
    server.backwards = True
    inputs = np.arange(16, dtype=np.float32).reshape(8, 2)
    for times in (1, 2):
        reply = await group.step_reply(inputs, outputs=("prediction", "state"))
        assert reply.outputs["prediction"].tolist() == (times * inputs).tolist()
        assert reply.state["h"][:, 0].tolist() == (times * inputs).tolist()
    some = {"s5": inputs[5], "s2": inputs[2]}
    reply = await group.step_reply(some)
    assert dict(zip(reply.ids, reply.outputs["prediction"].tolist(), strict=True)) == {
        name: (3 * values).tolist() for name, values in some.items()
    }


async def test_an_answer_that_stands_elsewhere_is_none(
    server: CountingServer, group: AsyncGroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server applied the step to a history other than the member's."""
    await count_together(group, 1)
    answer = server.answer

    def answers_elsewhere(frame: Any) -> Any:
        reply = answer(frame)
        positions = bytearray(reply.positions)
        positions[3 * 32 + 31] ^= 1  # the head of the fourth
        reply.positions = bytes(positions)
        return reply

    with monkeypatch.context() as patch:
        patch.setattr(server, "answer", answers_elsewhere)
        with pytest.raises(GroupError) as caught:
            await group.step(ONES)
    assert {name: type(error) for name, error in caught.value.errors.items()} == {"s3": HistoryChanged}
    assert caught.value.outputs["prediction"].tolist() == [[2, 2]] * 7


async def test_integers_have_no_nan(server: CountingServer, group: AsyncGroup, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = server.answer

    def answers_integers(frame: Any) -> Any:
        reply = answer(frame)
        reply.outputs[0].data = np.frombuffer(reply.outputs[0].data, "<f4").astype("<i4").tobytes()
        reply.outputs[0].dtype = pb.INT32
        return reply

    monkeypatch.setattr(server, "answer", answers_integers)
    assert (await group.step(ONES, failed="nan")).dtype == np.int32
    server.refusals = [Refused("INVALID_FIELD")]
    with pytest.raises(GroupError, match="1 of 8 members failed: 's0'") as caught:
        await group.step(ONES, failed="nan")
    assert caught.value.outputs["prediction"].tolist() == [[2, 2]] * 7


async def test_errors_that_pass_are_tried_again_for_the_members_that_had_them(
    server: CountingServer, group: AsyncGroup
) -> None:
    await count_together(group, 1)
    server.refusals = [Refused("QUEUE_FULL"), Refused("COMMIT_CONFLICT"), Refused("STORE_UNAVAILABLE")]
    server.frame_sizes.clear()
    await count_together(group, 2, first=2)
    assert server.frame_sizes[0] == server.frame_sizes[-1] == 8
    assert sum(server.frame_sizes[1:-1]) == 3
    assert server.applied_steps == 8 * 3


@pytest.mark.parametrize("chunk", [1, 3])
async def test_what_the_server_lost_is_sent_again(
    server: CountingServer, client: AsyncClient, group: AsyncGroup, chunk: int
) -> None:
    total = 0
    for _ in range(4):
        await group.step(np.ones((8, chunk, 2)))
        total += chunk
    await group.step({"s1": [1, 1], "s6": [1, 1]})  # some of them are at another step
    server.records["s1"].cut(2)
    server.records["s2"].cut(2 * chunk)
    server.records["s3"].cut(1)
    y = await group.step(ONES)
    assert y[:, 0].tolist() == [total + 1 + (name in ("s1", "s6")) for name in IDS]
    assert client.counters.replayed_steps == 2 + 2 * chunk + 1
    server.records["s2"].cut(3)  # some of these were replayed before
    y = await group.step(ONES)
    assert y[:, 0].tolist() == [total + 2 + (name in ("s1", "s6")) for name in IDS]


@pytest.mark.parametrize("options", [{"buffer_steps": 4, "window_steps": 4}, {"buffer_bytes": 4 * 8}])
async def test_a_loss_beyond_what_is_kept(server: CountingServer, options: dict[str, int]) -> None:
    async with AsyncClient(f"127.0.0.1:{server.port}", backoff=QUICK, **options) as client:  # type: ignore[arg-type]
        group = await client.group(IDS)
        await count_together(group, 6)
        server.records["s0"].cut(5)
        server.records["s1"].cut(3)
        with pytest.raises(GroupError) as caught:
            await group.step(ONES)
        assert list(caught.value.errors) == ["s0"]
        assert isinstance(caught.value.errors["s0"], HistoryLost)
        assert caught.value.outputs["prediction"].tolist() == [[7, 7]] * 7


async def test_an_input_that_is_refused_is_one_members(server: CountingServer, group: AsyncGroup) -> None:
    await count_together(group, 2)
    x = ONES.copy()
    x[3, 1] = REFUSED_VALUE
    with pytest.raises(GroupError) as caught:
        await group.step(x)
    assert list(caught.value.errors) == ["s3"]
    assert isinstance(caught.value.errors["s3"], InvalidArgument)
    y = await group.step(ONES)  # it did not count, and its member continues
    assert y[:, 0].tolist() == [4, 4, 4, 3, 4, 4, 4, 4]
    assert server.frame_sizes == [8, 8, 8, 8]


async def test_requests_keep_their_ids_over_retries(server: CountingServer, client: AsyncClient) -> None:
    server.lose_calls = 2
    group = await client.group(["a", "b"])
    assert len(server.request_ids) == 6
    assert len(set(server.request_ids)) == 2
    server.refusals = [Refused("QUEUE_FULL")]
    assert await group.add(["c", "d"]) == {"c": True, "d": True}
    server.refusals = [Refused("INTERNAL_ERROR")]
    with pytest.raises(GroupError) as caught:
        await group.add(["e", "f"])
    assert list(caught.value.errors) == ["e"]
    assert group.ids == ("a", "b", "c", "d", "f")


async def test_members_leave_and_their_rows_serve_others(server: CountingServer, group: AsyncGroup) -> None:
    await count_together(group, 3)
    await group.remove(["s2", "s4"])
    await group.add(["t", "u"])
    assert group.ids == ("s0", "s1", "s3", "s5", "s6", "s7", "t", "u")
    assert (await group.step(ONES))[:, 0].tolist() == [4] * 6 + [1, 1]
    server.records["u"].cut(1)  # replayed from its own steps, not from those of the row's previous member
    server.records["s0"].cut(3)
    assert (await group.step(ONES))[:, 0].tolist() == [5] * 6 + [2, 2]
    await group.reset(["s0"])
    await counted_one(group, "s0", 2)
    server.records["s0"].cut(2)
    await counted_one(group, "s0", 1, first=3)


async def counted_one(group: AsyncGroup, name: str, steps: int, first: int = 1) -> None:
    for step in range(first, first + steps):
        assert (await group.step({name: [1, 1]}))[name].tolist() == [step, step]
