"""A session opened at a position that it had: what it already has is answered again, and counts once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from cellkeeper import (
    AsyncClient,
    Client,
    GenerationChanged,
    HistoryChanged,
    InvalidArgument,
    Position,
    SessionNotFound,
    StepCompacted,
    StepConflict,
    StepGap,
    first_position,
)

from testing.bundles import make_bundle
from testing.forked_server import ForkedServer

LOG_STEPS = 16


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A model with a state so large that only --max-replay-steps ends a log."""
    bundle = make_bundle(tmp_path_factory.mktemp("bundles") / "m", input_size=1, hidden_size=64)
    with ForkedServer([bundle], "memory:", ["--max-replay-steps", str(LOG_STEPS)]) as server:
        yield server.target


def test_steps_that_the_session_has_are_answered_again_and_later_ones_are_applied(target: str) -> None:
    with Client(target) as first, Client(target) as second:
        session = first.session("again")
        start = session.position
        answers = [session.step_reply([number]) for number in (1, 2, 3)]
        again = second.session("again", at=start)
        assert again.position == start
        assert not again.created
        for number, answer in zip((1, 2, 3), answers, strict=True):
            reply = again.step_reply([number])
            assert reply.replayed
            assert (reply.position, reply.output.tolist()) == (answer.position, answer.output.tolist())
        fourth = again.step_reply([4])
        assert not fourth.replayed
        assert fourth.position.step == 4
        assert first.session_info("again").position == again.position


def test_what_was_never_answered_is_answered_to_another_client(target: str) -> None:
    """As after the death of a process that had saved the position before its last step."""
    with Client(target) as first, Client(target) as second:
        session = first.session("orphan")
        session.step([1])
        saved = Position.parse(str(session.position))
        lost = session.step([2])
        reply = second.session("orphan", at=saved).step_reply([2])
        assert reply.replayed
        assert reply.output.tolist() == lost.tolist()


def test_other_inputs_are_a_conflict(target: str) -> None:
    with Client(target) as client:
        session = client.session("conflict")
        start = session.position
        session.step([1])
        with pytest.raises(StepConflict) as caught:
            client.session("conflict", at=start).step([2])
        assert caught.value.position == session.position


def test_a_chunk_whose_beginning_the_session_has_is_sent_in_two(target: str) -> None:
    with Client(target) as first, Client(target) as second:
        session = first.session("in two")
        start = session.position
        session.step([1])
        again = second.session("in two", at=start)
        with pytest.raises(StepConflict, match="has these inputs up to step 1 already, and lacks the others"):
            again.step([[1], [2]])
        assert again.step_reply([[1]]).replayed
        assert not again.step_reply([[2]]).replayed


def test_expect_alone_continues_after_the_last_step(target: str) -> None:
    with Client(target) as client:
        session = client.session("expect")
        start = session.position
        session.step([1])
        assert client.session("expect", expect=start).position == session.position


def test_a_position_that_the_session_does_not_have_is_refused(target: str) -> None:
    with Client(target) as client:
        session = client.session("refused")
        start = session.position
        session.step([1])
        here = session.position
        for error, at in [
            (GenerationChanged, first_position(bytes(16))),
            (HistoryChanged, here._replace(head=bytes(8))),
            (StepGap, here._replace(step=5)),
        ]:
            with pytest.raises(error):
                client.session("refused", at=at)
        with pytest.raises(SessionNotFound):
            client.session("never opened", at=start)
        for number in range(2 * LOG_STEPS):
            session.step([number])
        with pytest.raises(StepCompacted):
            client.session("refused", at=start)
        with pytest.raises(InvalidArgument, match="expect: got a Position, expected None together with `at`") as caught:
            client.session("refused", at=here, expect=here)
        assert caught.value.field == "expect"


async def test_asyncio_opens_it_alike(target: str) -> None:
    async with AsyncClient(target) as client:
        session = await client.session("async")
        start = session.position
        (first, second) = [(await session.step([number])).tolist() for number in (1, 2)]
        again = await client.open("async", at=start)
        assert [(await again.step([number])).tolist() for number in (1, 2)] == [first, second]
        assert (await client.session_info("async")).position == again.position
