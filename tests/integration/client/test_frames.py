"""How a reply frame's columns are split into items, and how many items a frame takes."""

from __future__ import annotations

import asyncio
import struct
from typing import Any

import numpy as np
import pytest
from cellkeeper import first_position
from cellkeeper._session.chunk import Chunk
from cellkeeper._session.frame_format import FrameFormat, Layout
from cellkeeper._session.step_call import StepCall
from cellkeeper._transport.frame_codec import Frame, replies
from cellkeeper._transport.inflight_frames import LEAST_ITEMS, InflightFrames
from cellkeeper.errors import ServerError
from cellkeeper_proto.v1 import cellkeeper_pb2 as pb

FORMAT = FrameFormat(Layout("m", pb.FLOAT32, (1,), 4), ())


class Unheard:
    """An answer that no caller waits for."""

    def done(self) -> bool:
        return False

    def set_result(self, result: Any, /) -> None: ...

    def set_exception(self, exception: BaseException, /) -> None: ...

    def exception(self) -> None: ...


def inflight_frame(*counts: int, single: bool = False) -> Frame:
    """Returns a frame of items with these numbers of time steps, four bytes each."""
    sent = Frame(FORMAT)
    for index, steps in enumerate(counts):
        start, inputs = first_position(bytes([index]) * 16), bytes(4 * steps)
        call = StepCall(inputs, single, FORMAT, 1.0, 1.0, Unheard())
        sent.chunks.append(Chunk(inputs, start, start.advance(inputs, 4), call))
    sent.senders += [f"sender {index}" for index in range(len(counts))]  # type: ignore[misc]
    sent.launch(1, 0.0)
    return sent


def frame(sent: Frame, *items: int, **fields: Any) -> Any:
    chunks: Any = sent.chunks
    return pb.StepFrameReply(
        frame_id=1,
        items=struct.pack(f"<{len(items)}I", *items),
        positions=b"".join([chunks[item].end.pack() for item in items]),
        steps=[chunks[item].steps for item in items],
        **fields,
    )


def column(values: Any, name: str = "prediction", per_item: bool = False) -> Any:
    array = np.asarray(values, "<f4")
    return pb.OutputColumn(name=name, dtype=pb.FLOAT32, shape=array.shape[1:], per_item=per_item, data=array.tobytes())


def test_items_in_any_order_and_of_any_length() -> None:
    sent = inflight_frame(1, 3, 2)
    columns = [column([[0], [1], [2], [3], [4]]), column([[[7, 7]], [[8, 8]]], "state.h", per_item=True)]
    answered = frame(sent, 2, 1, outputs=columns, flags=bytes([2, 1]), queued_seconds=0.5)
    chunks = list(sent.chunks)
    (first, second) = replies(sent, answered)
    assert [str(first[0]), str(second[0])] == ["sender 2", "sender 1"]
    assert [first[1], second[1]] == [chunks[2], chunks[1]]
    assert first[2].output.tolist() == [[0], [1]]
    assert second[2].output.tolist() == [[2], [3], [4]]
    assert [reply.state["h"].tolist() for _, _, reply in (first, second)] == [[[7, 7]], [[8, 8]]]
    assert [(reply.created, reply.replayed) for _, _, reply in (first, second)] == [(False, True), (True, False)]
    assert first[2].queued_seconds == 0.5
    assert first[2].position == chunks[2].end  # type: ignore[union-attr]
    assert sent.chunks == [chunks[0], None, None]
    assert list(replies(sent, answered_again(answered))) == []


def answered_again(answered: Any) -> Any:
    return pb.StepFrameReply.FromString(answered.SerializeToString())


def test_outputs_without_axes() -> None:
    sent = inflight_frame(1, 1, single=True)
    values = [reply.output for _, _, reply in replies(sent, frame(sent, 0, 1, outputs=[column([5, 6])]))]
    assert [(value.shape, float(value)) for value in values] == [((), 5.0), ((), 6.0)]
    sent = inflight_frame(2, 1)
    values = [reply.output for _, _, reply in replies(sent, frame(sent, 0, 1, outputs=[column([5, 6, 7])]))]
    assert [value.tolist() for value in values] == [[5, 6], [7]]


def test_every_item_has_memory_of_its_own() -> None:
    for single in (True, False):
        sent = inflight_frame(1, 1, single=single)
        for _, _, reply in replies(sent, frame(sent, 0, 1, outputs=[column([[5, 5], [6, 6]])])):
            assert reply.output.base is None
            reply.output[...] = 0


def test_a_reply_at_another_place_says_where() -> None:
    sent = inflight_frame(1)
    there = first_position(bytes(16), 9)
    wrong = frame(sent, 0, outputs=[column([[1]])])
    wrong.positions = there.pack()
    ((_, _, reply),) = replies(sent, wrong)
    assert reply.position == there
    assert reply.position.step == 9


@pytest.mark.parametrize("fault", ["positions", "half a position", "steps", "item", "data", "dtype"])
def test_columns_that_do_not_fit_together(fault: str) -> None:
    sent = inflight_frame(1, 1)
    wrong = frame(sent, 0, 1, outputs=[column([[1], [2]])])
    if fault == "positions":
        wrong.positions = wrong.positions[:32]
    elif fault == "half a position":
        wrong.positions = wrong.positions[:-1]
    elif fault == "steps":
        wrong.steps[:] = [1]
    elif fault == "item":
        wrong.items = struct.pack("<2I", 0, 2)
    elif fault == "data":
        wrong.outputs[0].data = bytes(4)
    else:
        wrong.outputs[0].dtype = 77
    with pytest.raises(ServerError):
        list(replies(sent, wrong))


async def test_what_waits_is_shared_out_among_the_frames_that_may_leave() -> None:
    inflight = InflightFrames(asyncio.get_running_loop(), lambda: None)
    assert inflight.share(256) == 128
    assert inflight.share(2 * LEAST_ITEMS - 1) == LEAST_ITEMS  # too few to divide
    assert inflight.share(1) == LEAST_ITEMS
    inflight.add(Frame(FORMAT))
    assert inflight.share(256) == 256  # the last frame that may leave takes the rest
