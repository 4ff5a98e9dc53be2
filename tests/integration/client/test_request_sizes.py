"""A group's requests and frames have no more items, and no more bytes, than a server takes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cellkeeper import AsyncClient, InvalidArgument
from cellkeeper._transport.frame_codec import item_bytes

from testing.bundles import counting_bundle
from testing.forked_server import ForkedServer

from .conftest import QUICK
from .counting_server import CountingServer

IDS = [f"s{number}" for number in range(8)]
ONES = np.ones((8, 2), np.float32)


LEAST = 4096  # bytes of a message for everything but the items


class SmallServer(CountingServer):
    """Takes `most` items in a request, and messages of `most_bytes` (0: does not say).

    sizes: how many items the requests had, by method.
    """

    def __init__(self, most: int, most_bytes: int = 0) -> None:
        super().__init__()
        self.most = most
        self.most_bytes = most_bytes
        self.sizes: dict[str, list[int]] = {"OpenMany": [], "Delete": [], "StepBatch": []}

    def _model(self, *fingerprint: bytes) -> Any:
        model = super()._model(*fingerprint)
        model.max_frame_items, model.max_message_bytes = self.most, self.most_bytes
        return model

    async def OpenMany(self, request: Any, context: Any) -> Any:
        self.sizes["OpenMany"].append(len(request.items))
        return await super().OpenMany(request, context)

    async def Delete(self, request: Any, context: Any) -> Any:
        self.sizes["Delete"].append(len(request.items))
        return await super().Delete(request, context)

    async def StepBatch(self, request: Any, context: Any) -> Any:
        self.sizes["StepBatch"].append(len(request.sessions))
        return await super().StepBatch(request, context)


@pytest.fixture
async def server(request: pytest.FixtureRequest) -> AsyncIterator[SmallServer]:
    made = SmallServer(*request.param)
    await made.start()
    yield made
    await made.stop()


@pytest.mark.parametrize("server", [(3,)], indirect=True)
async def test_no_request_of_a_group_has_more_items_than_the_server_takes(
    server: SmallServer, client: AsyncClient
) -> None:
    group = await client.group(IDS)
    assert (await group.step(ONES)).tolist() == [[1, 1]] * 8
    assert (await group.peek(ONES)).tolist() == [[2, 2]] * 8
    await group.delete()
    assert server.sizes == {"OpenMany": [3, 3, 2], "Delete": [3, 3, 2], "StepBatch": [3, 3, 2]}
    assert server.frame_sizes == [3, 3, 2]


@pytest.mark.parametrize("server", [(256, LEAST + 4 * item_bytes(ONES[0].nbytes, IDS[0]))], indirect=True)
async def test_no_frame_has_more_bytes_than_the_server_takes(server: SmallServer, client: AsyncClient) -> None:
    group = await client.group(IDS)
    assert (await group.step(ONES)).tolist() == [[1, 1]] * 8
    assert (await group.peek(ONES)).tolist() == [[2, 2]] * 8
    assert (server.frame_sizes, server.sizes["StepBatch"]) == ([4, 4], [4, 4])
    singles = [await client.session(name) for name in IDS]
    await asyncio.gather(*(session.step(ONES[0]) for session in singles))
    assert max(server.frame_sizes) <= 4


@pytest.mark.parametrize("server", [(256, LEAST)], indirect=True)
async def test_an_item_that_has_more_by_itself_is_sent_alone(server: SmallServer, client: AsyncClient) -> None:
    group = await client.group(IDS[:2])
    assert (await group.step(ONES[:2])).tolist() == [[1, 1]] * 2
    assert (await (await client.session("s2")).step(ONES[0])).tolist() == [1, 1]
    assert server.frame_sizes == [1, 1, 1]


@pytest.mark.parametrize("websocket", [False, True], ids=["grpc", "websocket"])
async def test_large_chunks_of_many_sessions_do_not_add_up_to_a_message_that_is_refused(
    tmp_path: Path, websocket: bool
) -> None:
    options = ["--max-message-bytes", "8192", "--max-http-body-bytes", "8192"]
    with ForkedServer([counting_bundle(tmp_path / "count", features=4)], "memory:", options, http=True) as server:
        address = server.websocket if websocket else None
        async with AsyncClient(server.target, timeout=20, backoff=QUICK, websocket=address) as client:
            sessions = [await client.session(name) for name in IDS]
            with pytest.raises(InvalidArgument, match="got 257 time steps, expected at most 256 at once"):
                await sessions[0].step(np.ones((257, 4), np.float32))
            chunk = np.ones((200, 4), np.float32)
            answers = await asyncio.gather(*(session.step(chunk) for session in sessions))
            assert [answer[-1].tolist() for answer in answers] == [[200] * 4] * len(IDS)
