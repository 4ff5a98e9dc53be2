"""A group's requests and frames have no more items, and no more bytes, than a server takes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest
from cellkeeper import AsyncClient
from cellkeeper._transport import frame_codec

from .counting_server import CountingServer

IDS = [f"s{number}" for number in range(8)]
ONES = np.ones((8, 2), np.float32)


class SmallServer(CountingServer):
    """Takes `most` items in a request. sizes: how many the requests had, by method."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most
        self.sizes: dict[str, list[int]] = {"OpenMany": [], "Delete": [], "StepBatch": []}

    def _model(self, *fingerprint: bytes) -> Any:
        model = super()._model(*fingerprint)
        model.max_frame_items = self.most
        return model

    async def OpenMany(self, request: Any, context: Any) -> Any:
        self.sizes["OpenMany"].append(len(request.items))
        return await super().OpenMany(request, context)

    async def Delete(self, request: Any, context: Any) -> Any:
        self.sizes["Delete"].append(len(request.items))
        return await super().Delete(request, context)

    async def StepBatch(self, request: Any, context: Any) -> Any:
        """Answers a peek, but keeps its states: no step may follow."""
        self.sizes["StepBatch"].append(len(request.sessions))
        return self.answer(request)


@pytest.fixture
async def server(request: pytest.FixtureRequest) -> AsyncIterator[SmallServer]:
    made = SmallServer(request.param)
    await made.start()
    yield made
    await made.stop()


@pytest.mark.parametrize("server", [3], indirect=True)
async def test_no_request_of_a_group_has_more_items_than_the_server_takes(
    server: SmallServer, client: AsyncClient
) -> None:
    group = await client.group(IDS)
    assert (await group.step(ONES)).tolist() == [[1, 1]] * 8
    assert (await group.peek(ONES)).tolist() == [[2, 2]] * 8
    await group.delete()
    assert server.sizes == {"OpenMany": [3, 3, 2], "Delete": [3, 3, 2], "StepBatch": [3, 3, 2]}
    assert server.frame_sizes == [3, 3, 2]


@pytest.mark.parametrize("server", [256], indirect=True)
async def test_no_frame_of_a_group_has_more_bytes_than_it_should(
    server: SmallServer, client: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = await client.group(IDS)
    monkeypatch.setattr(frame_codec, "MAX_FRAME_BYTES", 1)  # less than one item
    assert (await group.step({"s0": ONES[0]}))["s0"].tolist() == [1, 1]
    monkeypatch.setattr(frame_codec, "MAX_FRAME_BYTES", 4 * (frame_codec.ITEM_BYTES + ONES[0].nbytes))
    assert (await group.step(ONES)).tolist() == [[2, 2], *[[1, 1]] * 7]
    assert (await group.peek(ONES)).tolist() == [[3, 3], *[[2, 2]] * 7]
    assert (server.frame_sizes, server.sizes["StepBatch"]) == ([1, 4, 4], [4, 4])
