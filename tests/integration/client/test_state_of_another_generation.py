"""A state is that of the handle's own generation: what another client has started anew is not taken for it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from cellkeeper import Client, GenerationChanged, GroupError, Session

from .conftest import empty

X = [1.0, 2.0]

RESTARTS: dict[str, Callable[[Session], object]] = {
    "reset": lambda session: session.reset(),
    "set_state": lambda session: session.set_state(session.state(), step=7),
    "deleted and opened again": lambda session: session.delete(),
}


@pytest.fixture
def target(real_target: str) -> str:
    empty(real_target)
    return real_target


@pytest.fixture(params=list(RESTARTS))
def restart(request: pytest.FixtureRequest) -> Callable[[Session], object]:
    return RESTARTS[request.param]


def test_of_a_session(target: str, restart: Callable[[Session], object]) -> None:
    with Client(target) as client, Client(target) as other:
        session = client.session("a")
        session.step(X)
        assert session.state_reply().position == session.position
        restart(other.session("a"))
        position = other.session("a").position
        for read in (session.state, session.state_reply):
            with pytest.raises(GenerationChanged, match=r"another generation now, at step .*; open it again") as raised:
                read()
            assert (raised.value.reason, raised.value.position) == ("GENERATION_CHANGED", position)
        assert client.session("a").state_reply().position == position


def test_of_members(target: str, restart: Callable[[Session], object]) -> None:
    with Client(target) as client, Client(target) as other:
        group = client.group(["a", "b", "c"])
        group.step([X, X, X])
        restart(other.session("b"))
        other.session("b")  # which a delete has ended
        with pytest.raises(GroupError) as raised:
            group.state()
        assert {name: type(error) for name, error in raised.value.errors.items()} == {"b": GenerationChanged}
        assert group.state(["a", "c"])["h"][:, 0, 0].tolist() == [1, 1]
