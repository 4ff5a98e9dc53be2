"""Groups whose replies, streams or steps are lost, on a server that loses them on request.

The model sums its inputs, so every later answer reveals a lost, doubled or misplaced step.
"""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest
from cellkeeper import (
    AsyncClient,
    AsyncGroup,
    Closed,
    DeadlineExceeded,
    GroupError,
    HistoryChanged,
    HistoryLost,
    InvalidArgument,
    ModelChanged,
)
from cellkeeper._session.time_limit import TimeLeft
from cellkeeper_proto.v1 import cellkeeper_pb2 as pb

from .conftest import QUICK, until
from .counting_record import REFUSED_VALUE, fresh
from .counting_server import CountingServer
from .counting_sessions import FINGERPRINT, OTHER_FINGERPRINT
from .counting_wire import Refused
from .ones import ONES, count_together

IDS = [f"s{number}" for number in range(8)]


@pytest.fixture
async def group(client: AsyncClient) -> AsyncGroup:
    return await client.group(IDS)


async def test_calls_that_wait_when_their_group_is_closed(server: CountingServer, group: AsyncGroup) -> None:
    """They are not made any more, whichever of their members have steps in flight."""
    server.gate.clear()
    first = asyncio.ensure_future(group.step({"s0": [1, 1]}))
    await until(lambda: server.frames == 1)
    row = {"s1": [1, 1]}
    calls: list[Any] = [group.step({"s0": [1, 1], **row}), group.peek(row), group.state(["s1"]), group.settle()]
    waiting = [asyncio.ensure_future(call) for call in calls]
    await asyncio.sleep(0)
    await group.close()
    for call in (first, *waiting):
        with pytest.raises(GroupError) as caught:
            await call
        assert set(map(str, caught.value.errors.values())) == {"the group was closed"}
        assert ("s1" in caught.value.errors) == (call is not first)


async def test_a_read_of_a_member_that_is_reset_before_the_wait_for_it(group: AsyncGroup) -> None:
    group._sender.alone(0, "s0")  # as after a lost step
    read = asyncio.ensure_future(group.state(["s0"]))
    restarted = asyncio.ensure_future(group._members.restart({"s0": group.positions["s0"]}, TimeLeft(20)))
    assert (await read)["h"].shape == (1, 1, 2)
    assert await restarted == {}


async def test_a_step_that_waits_for_others_when_a_member_is_deleted(server: CountingServer, group: AsyncGroup) -> None:
    """That member's error stays, though the others run out of time."""
    server.gate.clear()
    first = asyncio.ensure_future(group.step({"s0": [1, 1]}))
    await until(lambda: server.frames == 1)
    deleted = asyncio.ensure_future(group.delete(["s1"]))
    await asyncio.sleep(0)
    waiting = asyncio.ensure_future(group.step_reply({"s0": [1, 1], "s1": [1, 1]}, timeout=0.5))
    await deleted
    errors = (await waiting).errors
    assert [(name, type(error)) for name, error in errors.items()] == [("s0", DeadlineExceeded), ("s1", Closed)]
    server.gate.set()
    assert (await first)["s0"].tolist() == [1, 1]


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


async def test_versions_that_do_not_fit_together(server: CountingServer, client: AsyncClient) -> None:
    server.of_other_version = {"b"}
    with pytest.raises(GroupError, match="missing_values: the session belongs to version 000000000000") as caught:
        await client.group(["a", "b", "c"])
    assert isinstance(caught.value.errors["b"], ModelChanged)
    assert caught.value.group.ids == ("a", "c")
    alone = await client.group(["b"])
    assert alone.model.fingerprint == OTHER_FINGERPRINT
    assert alone.model.missing_values
    server.of_other_version = set()
    with pytest.raises(GroupError, match="reset: 1 of 1"):
        await alone.reset()  # it is at step 0 of another version
    server.of_other_version = {"b"}
    assert (await alone.reset())["b"].step == 0


async def test_versions_whose_features_have_another_order(
    server: CountingServer, client: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One array, or one DataFrame, cannot have its columns in the order of both."""
    made = server._model

    def with_names(fingerprint: bytes = FINGERPRINT) -> Any:
        model = made()
        model.fingerprint = fingerprint
        model.feature_names.extend(("flow", "pressure") if fingerprint == FINGERPRINT else ("pressure", "flow"))
        return model

    monkeypatch.setattr(server, "_model", with_names)
    server.of_other_version = {"b"}
    says = r"feature_names: the session belongs to version .*, where it is \('pressure', 'flow'\)"
    with pytest.raises(GroupError, match=says) as caught:
        await client.group(["a", "b"])
    assert caught.value.group.ids == ("a",)


# ---------------------------------------------------------------------------------------------- late steps


async def test_a_deadline_makes_late_steps_which_count(server: CountingServer, group: AsyncGroup) -> None:
    await count_together(group, 1)
    server.gate.clear()
    with pytest.raises(GroupError) as caught:
        await group.step(2 * ONES, timeout=0.05)
    errors = caught.value.errors
    assert [type(error) for error in errors.values()] == [DeadlineExceeded] * 8
    late = {name: (error.late_step,) for name, error in errors.items()}
    assert group.unsettled == late
    with pytest.raises(GroupError) as caught:
        await group.step(4 * ONES, timeout=0.05)
    assert [error.late_step for error in caught.value.errors.values()] == [None] * 8  # not sent
    server.gate.set()
    reply = await group.step_reply(8 * ONES)
    assert reply.output.tolist() == [[11, 11]] * 8
    assert reply.late_steps == late
    assert [steps[0].applied for steps in late.values() if steps[0] is not None] == [True] * 8
    assert group.unsettled == await group.settle() == {}
    assert server.applied_steps == 8 * 3


async def test_settling_waits_for_late_steps(server: CountingServer, group: AsyncGroup) -> None:
    server.gate.clear()
    task = asyncio.ensure_future(group.step({"s0": [1, 1], "s1": [2, 2]}))
    await until(lambda: server.frames == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert list(group.unsettled) == ["s0", "s1"]
    with pytest.raises((DeadlineExceeded, GroupError)):
        await group.settle(timeout=0.05)
    server.gate.set()
    settled = await group.settle()
    assert {name: (step.applied, step.outputs["prediction"].tolist()) for name, (step,) in settled.items()} == {
        "s0": (True, [1, 1]),
        "s1": (True, [2, 2]),
    }
    assert [position.step for position in group.positions.values()] == [1, 1, 0, 0, 0, 0, 0, 0]


async def test_a_step_that_waits_for_its_members_is_not_sent_after_its_deadline(
    server: CountingServer, group: AsyncGroup
) -> None:
    server.gate.clear()
    first = asyncio.ensure_future(group.step(ONES))
    await until(lambda: server.frames == 1)
    with pytest.raises(GroupError, match="it was not sent: earlier steps of its members are still unanswered"):
        await group.step(16 * ONES, timeout=0.05)
    cancelled = asyncio.ensure_future(group.step(32 * ONES))
    await asyncio.sleep(0)
    cancelled.cancel()
    await asyncio.gather(cancelled, return_exceptions=True)
    server.gate.set()
    assert (await first).tolist() == [[1, 1]] * 8
    assert (await group.step(ONES)).tolist() == [[2, 2]] * 8


async def test_closing_ends_what_waits(server: CountingServer, client: AsyncClient, group: AsyncGroup) -> None:
    server.gate.clear()
    waiting = [asyncio.ensure_future(group.step(ONES)) for _ in range(2)]
    await until(lambda: server.frames == 1)
    await group.close()
    for task, sent in zip(waiting, (True, False), strict=True):
        with pytest.raises(GroupError) as caught:
            await task
        assert {type(error) for error in caught.value.errors.values()} == {Closed}
        assert all((error.late_step is not None) == sent for error in caught.value.errors.values())
    with pytest.raises(Closed):
        await group.step(ONES)
    other = await client.group(["z"])
    last = asyncio.ensure_future(other.step([[1, 1]]))
    await asyncio.sleep(0)
    await client.close()
    with pytest.raises(GroupError, match="the client was closed"):
        await last
    server.gate.set()


@pytest.mark.parametrize("call", ["reset", "delete", "remove"])
async def test_a_call_that_waits_for_a_step_does_nothing_once_the_group_is_closed(
    server: CountingServer, group: AsyncGroup, call: str
) -> None:
    server.gate.clear()
    step = asyncio.ensure_future(group.step(ONES))
    await until(lambda: server.frames == 1)
    waiting = asyncio.ensure_future(getattr(group, call)(["s0"]))
    await asyncio.sleep(0)
    before = server.records["s0"].position.generation
    await group.close()
    with pytest.raises(Closed):
        await waiting
    with pytest.raises(GroupError):
        await step
    assert group.ids == tuple(IDS)
    assert server.records["s0"].position.generation == before
    server.gate.set()


# ---------------------------------------------------------------------------------------------- at the same time


async def test_a_step_that_waits_for_a_member_goes_on_with_its_new_generation(
    server: CountingServer, group: AsyncGroup
) -> None:
    """Others reset and step the member while an older step of it is still in flight."""
    await group.step({"s0": [5, 5]})
    server.gate.clear()
    first = asyncio.ensure_future(group.step_reply({"s0": [1, 1]}))
    await until(lambda: server.frames == 2)
    second = asyncio.ensure_future(group.step({"s0": [1, 1]}))
    await asyncio.sleep(0)
    server.records["s0"] = fresh(b"")
    await group._members.restart({"s0": server.records["s0"].position}, TimeLeft(20))  # as at the end of a reset
    assert isinstance((await first).errors["s0"], Closed)
    server.gate.set()
    assert (await second)["s0"].tolist() == [1, 1]


async def test_members_go_while_steps_wait(server: CountingServer, group: AsyncGroup) -> None:
    server.gate.clear()
    steps = [asyncio.ensure_future(group.step(ONES)) for _ in range(3)]
    removal = asyncio.ensure_future(group.remove(["s0", "s1"]))
    await until(lambda: server.frames == 1)
    server.gate.set()
    await removal
    assert [(await step).tolist() for step in steps] == [[[value, value]] * 8 for value in (1, 2, 3)]
    assert await group.add(["t"]) == {"t": True}
    assert (await group.step(np.ones((7, 2))))[:, 0].tolist() == [4] * 6 + [1]


# ---------------------------------------------------------------------------------------------- several endpoints
