"""Replies to many items on a server whose messages are small: errors with long texts fit beside everything else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from cellkeeper_proto.v1 import cellkeeper_pb2 as pb
from cellkeeper_service.model.write import write_bundle

from testing.bundles import bundle_config, random_tensors
from testing.forked_server import ForkedServer

from .calls import Api, Chunk, Refused, Way, frame_message, from_error, from_frames, new_id

MESSAGE_BYTES = 32768
ITEMS = MESSAGE_BYTES // 512  # as many as the server accepts
WIDTH = 1024
LONG = "\x01" * 256  # errors quote it with four characters for each byte, so their texts are as long as texts can be


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkedServer]:
    """A model whose hidden values are all the sum of its inputs: 4 KiB for each time step."""
    folder = tmp_path_factory.mktemp("small") / "m"
    config = bundle_config(name="small", cell="rnn_relu", input_size=1, hidden_size=WIDTH, bias=False)
    summing = {"rnn.weight_ih_l0": np.ones((WIDTH, 1), np.float32), "rnn.weight_hh_l0": np.eye(WIDTH, dtype=np.float32)}
    write_bundle(folder, config, random_tensors(config) | summing)
    options = ["--max-message-bytes", str(MESSAGE_BYTES), "--max-frame-items", "100000"]
    with ForkedServer([folder], "memory:", options) as server:
        yield server


@pytest.fixture(scope="module")
def small(server: ForkedServer) -> Iterator[Api]:
    with server.channel() as channel:
        yield Api(server.stub(channel), "small")


def inputs(steps: int = 1) -> Any:
    return np.ones((steps, 1), np.float32)


def test_the_limit_on_items_leaves_room_for_their_replies(
    server: ForkedServer, small: Api, session: str, frame_way: Way
) -> None:
    assert f"max_frame_items: {ITEMS}, not 100000, so that replies fit into max_message_bytes" in server.output()
    model: pb.ModelInfo = small.call("GetModel", pb.GetModelRequest())
    assert model.max_frame_items == ITEMS
    at = small.open(session)
    message = frame_message("small", [Chunk(f"{session}{item}", inputs(), at) for item in range(ITEMS + 1)])
    with pytest.raises(Refused, match=f"{ITEMS + 1} items, expected 1 to {ITEMS} items in one frame"):
        small.send_frame(frame_way, message)


def test_a_frame_all_of_whose_items_fail_is_answered(small: Api, session: str, frame_way: Way) -> None:
    """Each error quotes the session's id, and would have 500 bytes of text."""
    at = small.open(LONG)
    chunks = [Chunk(LONG, inputs(), at, acked=0)] * ITEMS
    found = small.send_frame(frame_way, frame_message("small", chunks))
    assert [result.reason for result in found] == [""] + ["DUPLICATE_SESSION"] * (ITEMS - 1)
    assert [result.field for result in found[1:]] == [f"sessions[{item}]" for item in range(1, ITEMS)]
    assert all(result.message.startswith(f"sessions[{item}]: got ") for item, result in enumerate(found) if item)
    assert small.position(LONG) == found[0].after


@pytest.mark.parametrize("steps", [3, 6, 7])
def test_outputs_that_nearly_fill_a_message_come_beside_the_errors_of_all_other_items(
    small: Api, session: str, steps: int
) -> None:
    """Outputs of 12, 24 and 28 KiB, in messages of 32 KiB. All items are computed together, and all but one overflow in
    their last time step, so that the outputs are ready when the errors are."""
    names = [f"{session}{item}" for item in range(ITEMS)]
    for name in names:
        small.open(name)
    overflowing = inputs(steps)
    overflowing[-2:] = 3e38
    chunks = [Chunk(names[0], inputs(steps)), *[Chunk(name, overflowing) for name in names[1:]]]
    found = small.send_frame("stream", frame_message("small", chunks, peek=True, outputs=["hidden"]))
    assert found[0].outputs["hidden"][:, WIDTH - 1].tolist() == list(range(1, steps + 1))
    assert {result.reason for result in found[1:]} == {"NON_FINITE_RESULT"}
    assert all(result.message and " ... " not in result.message for result in found[1:])


def test_a_stream_goes_on_after_a_frame_all_of_whose_items_fail(small: Api, session: str) -> None:
    at = small.open(session)
    failing = frame_message("small", [Chunk(LONG, inputs(), at)] * ITEMS)
    good = frame_message("small", [Chunk(session, inputs(), at)])
    good.frame_id = 8
    replies = list(small.stub.StepStream(iter([failing, good]), timeout=30))
    (result,) = from_frames(1, [reply for reply in replies if reply.frame_id == 8])
    assert result.after.step == 1
    assert len(from_frames(ITEMS, [reply for reply in replies if reply.frame_id == 7])) == ITEMS


def test_items_of_one_request_are_answered_though_all_but_one_fail(small: Api) -> None:
    """OpenMany and Reset of one session many times: each applies the first item and quotes the id for the others."""
    opens = [pb.OpenManyRequest.Item(session=LONG, request_id=new_id()) for _ in range(ITEMS)]
    opened: pb.OpenManyResponse = small.call("OpenMany", pb.OpenManyRequest(items=opens))
    assert opened.results[0].HasField("opened")
    at = opened.results[0].opened.position
    resets = [pb.ResetRequest.Item(session=LONG, generation=at.generation, request_id=new_id()) for _ in range(ITEMS)]
    reset: pb.SessionResults = small.call("Reset", pb.ResetRequest(items=resets))
    assert reset.results[0].position == small.info(LONG).position
    for results in (opened.results, reset.results):
        errors = [from_error(one.error) for one in results[1:]]
        assert {error.reason for error in errors} == {"DUPLICATE_SESSION"}
        assert [error.field for error in errors] == [f"items[{item}]" for item in range(1, ITEMS)]


def test_a_page_of_sessions_fits(small: Api) -> None:
    prefix = LONG[:-4]
    names = {prefix + f"{number:04}" for number in range(2 * ITEMS)}
    for name in names:
        small.open(name)
    found, token, first = set(), "", True
    while first or token:
        request = pb.ListSessionsRequest(prefix=prefix, page_size=1000, page_token=token)
        page: pb.ListSessionsResponse = small.call("ListSessions", request)
        found |= {info.session for info in page.sessions}
        token, first = page.next_page_token, False
    assert found >= names
