"""`cellkeeper sessions state` and `set-state`, and forks with a TTL."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cellkeeper import AccessDenied, Client, InvalidArgument, SessionNotFound

from testing.bundles import make_bundle
from testing.forked_server import ForkedServer
from tests.integration.access.tenants import entry
from tests.unit.engine.test_one_session_a_call import counted, counted_bundle

from .conftest import ServerThread
from .test_cli import run

BIG = 2**53


def test_a_state_goes_to_another_server_bit_for_bit(tmp_path: Path) -> None:
    bundle, file = make_bundle(tmp_path / "lstm", name="lstm", input_size=3, num_layers=2), tmp_path / "state.json"
    steps = np.random.default_rng(0).normal(size=(12, 3))
    with ForkedServer([bundle], "memory:", []) as server, Client(server.target) as client:
        session = client.session("pump 17\n")
        session.step(steps[:8])
        text = run(server.target, "sessions", "state", "pump 17\n").out
        given = json.loads(text)
        assert (given["session"], given["model"], given["step"]) == ("pump 17\n", "lstm", 8)
        assert (given["position"], given["fingerprint"]) == (str(session.position), session.model.fingerprint.hex())
        assert session.state_reply().position == session.position
        expected = session.step(steps[8:])
    file.write_text(text)
    with ForkedServer([bundle], "memory:", []) as server, Client(server.target) as client:
        position = run(server.target, "sessions", "set-state", "pump 17\n", str(file)).out.strip()
        session = client.session("pump 17\n")
        assert (str(session.position), session.position.step) == (position, 8)
        assert np.array_equal(session.step(steps[8:]), expected)
        run(server.target, "sessions", "set-state", "pump 17\n", "--step", "3", text=text)  # from stdin
        again = client.session("pump 17\n")
        assert (again.position.step, again.generation == session.generation) == (3, False)
        assert np.array_equal(again.step(steps[8:]), expected)


def test_a_fork_with_a_ttl(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "lstm", name="lstm", input_size=3)
    with ForkedServer([bundle], "memory:", []) as server, Client(server.target) as client:
        session = client.session("a", ttl=90)
        for name, ttl, expected in (("b", None, 90), ("c", 0, 0), ("d", timedelta(seconds=30), 30)):
            assert session.fork(name, ttl=ttl).info().ttl_seconds == expected
        run(server.target, "sessions", "fork", "a", "e", "--ttl", "2.5")
        assert client.session_info("e").ttl_seconds == 2.5
        assert session.info().ttl_seconds == 90
        with pytest.raises(InvalidArgument, match="ttl: got -1"):
            session.fork("f", ttl=-1)
        assert "ttl: got nan" in run(server.target, "sessions", "fork", "a", "f", "--ttl", "nan", code=1).err


def test_states_of_every_dtype(tmp_path: Path) -> None:
    counted_bundle(tmp_path / "m", counted())
    with ForkedServer([tmp_path / "m"], "memory:", []) as server, Client(server.target) as client:
        session = client.session("a")
        session.step([0.1, 2])
        for value in (BIG, BIG + 1, -BIG - 1, 2**63 - 1, -(2**63)):
            session.set_state({**session.state(), "count": value})
            text = run(server.target, "sessions", "state", "a").out
            assert json.loads(text)["states"]["count"]["data"] == (value if abs(value) <= BIG else str(value))
            run(server.target, "sessions", "set-state", "b", text=text)
            state = client.session("b").state()
            assert {name: values.tobytes() for name, values in state.items()} == {
                name: values.tobytes() for name, values in session.state().items()
            }
        given = json.loads(text)
        given["states"]["count"]["data"] = "1e3"
        refused = run(server.target, "sessions", "set-state", "b", text=json.dumps(given), code=1).err
        assert 'states: got "1e3", expected a whole number or its digits' in refused


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"fingerprint": "00" * 32}, "--other-version sets it even so"),
        ({"fingerprint": None}, "fingerprint: got null, expected "),
        ({"step": None}, "step: got null, expected the number of time steps; --step gives it"),
        ({"step": True}, "step: got true, expected"),
        ({"step": -1}, "step: got -1"),
        ({"states": None}, "states: expected tensors by name"),
        ({"states": {"h": [1, 2]}}, "states: expected tensors by name"),
        ({"states": {}}, "state: got tensors [], expected ['h']"),
        ({"states": {"h": {"data": [[1]]}}}, "state: got h of shape [1, 1], expected [1, 2]"),
        ({"states": {"h": {"data": [[1, None]]}}}, "state: got h: nan at [0, 1], expected finite values"),
        ({"states": {"h": {"data": [[1, "2"]]}}}, "state: got h"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_is_no_state_is_refused(threaded: ServerThread, change: dict[str, Any], says: str) -> None:
    with Client(threaded.target) as client:
        session = client.session("a")
        session.step([1.0, 2.0])
        given = json.loads(run(threaded.target, "sessions", "state", "a").out)
        done = run(threaded.target, "sessions", "set-state", "a", text=json.dumps({**given, **change}), code=1)
        assert says in done.err
        assert len(done.err.splitlines()) == 1
        assert session.info().position == session.position
        run(threaded.target, "sessions", "set-state", "nobody", text=json.dumps({**given, **change}), code=1)
    assert "nobody" not in run(threaded.target, "sessions", "list").out


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "stdin: expected one JSON object, as `cellkeeper sessions state` prints it: Expecting value"),
        ("[1]", "stdin: got a list, expected one JSON object"),
        ("{}{}", "stdin: expected one JSON object, as `cellkeeper sessions state` prints it: Extra data"),
        ("[" * 100_000, "stdin: expected one JSON object"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_is_no_json_is_refused(threaded: ServerThread, text: str, says: str) -> None:
    assert says in run(threaded.target, "sessions", "set-state", "a", text=text, code=1).err


def test_a_state_of_another_version(threaded: ServerThread) -> None:
    with Client(threaded.target) as client:
        client.session("a").step([1.0, 2.0])
    given = json.loads(run(threaded.target, "sessions", "state", "a").out)
    del given["fingerprint"]
    run(threaded.target, "sessions", "set-state", "b", "--other-version", text=json.dumps(given))
    assert json.loads(run(threaded.target, "sessions", "state", "b").out)["states"] == given["states"]


def test_a_state_is_read_with_the_right_to_read(tmp_path: Path) -> None:
    (stepping, step), (reading, read) = entry("a", "step"), entry("a", "read")
    (tmp_path / "tokens").write_text(f"{step}\n{read}\n")
    (tmp_path / "token").write_text(reading)
    bundle = make_bundle(tmp_path / "lstm", name="lstm", input_size=3)
    with ForkedServer([bundle], "memory:", ["--tokens", str(tmp_path / "tokens")]) as server:
        with Client(server.target, token=stepping) as client:
            client.session("a").step([1.0, 2.0, 3.0])
        words = ["sessions", "state", "a", "--token-file", str(tmp_path / "token")]
        printed = json.loads(run(server.target, *words).out)
        with Client(server.target, token=reading) as client:
            reply = client.session_state("a")
            assert str(reply.position) == printed["position"]
            assert {name: values.tolist() for name, values in reply.state.items()} == {
                name: state["data"] for name, state in printed["states"].items()
            }
            with pytest.raises(AccessDenied):
                client.session("a")
            with pytest.raises(SessionNotFound):
                client.session_state("nobody")


def test_the_state_of_a_session_that_does_not_exist_creates_none(threaded: ServerThread) -> None:
    assert "SessionNotFound" in run(threaded.target, "sessions", "state", "nobody", code=1).err
    assert "No such file" in run(threaded.target, "sessions", "set-state", "nobody", "nofile.json", code=1).err
    assert run(threaded.target, "sessions", "list").out.count("\n") == 1
