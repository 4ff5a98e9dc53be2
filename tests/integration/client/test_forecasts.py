"""Forecasts of a real server, as the client asks for them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from cellkeeper import Client, InvalidArgument

from testing.bundles import counting_bundle
from testing.forked_server import ForkedServer


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A model with two features, both supplied by the caller of a forecast."""
    bundle = counting_bundle(tmp_path_factory.mktemp("count") / "count", features=2, feedback=["known", "known"])
    with ForkedServer([bundle], "memory:", ["--max-chunk-steps", "32"]) as server:
        yield server.target


def test_a_forecast_that_is_too_long_names_its_steps(target: str) -> None:
    with Client(target) as client:
        session, group = client.session("long"), client.group(["l", "m"])
        most = session.model.max_chunk_steps
        known = np.zeros((most - 2, 2))
        assert len(session.forecast([[0, 0], [0, 0]], steps=most - 2, known=known)) == most
        says = f"^steps: got {most - 1} after inputs of 2 time steps, expected at most {most} in all"
        with pytest.raises(InvalidArgument, match=says) as caught:
            session.forecast([[0, 0], [0, 0]], steps=most - 1, known=np.zeros((most - 1, 2)))
        assert caught.value.field == "steps"
        with pytest.raises(InvalidArgument, match=says):
            group.forecast(np.zeros((2, 2, 2)), steps=most - 1)
