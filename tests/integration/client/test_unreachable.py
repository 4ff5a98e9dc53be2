"""Absent servers, invalid targets, proxies: reported soon, with the target and the cause."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cellkeeper import AsyncClient, Client, DeadlineExceeded, InvalidArgument, Unavailable
from cellkeeper._transport.target import is_loopback
from cellkeeper.doctor.examine import examine

from testing.forked_program import run_forked
from testing.held_port import HeldPort
from testing.refusing_address import refusing_address

from .conftest import QUICK, ServerThread, until
from .counting_server import CountingServer

ONE = [1.0, 1.0]
MALFORMED = [
    "http://host:1",
    "https://host:50051/",
    "localhost",
    "127.0.0.1",
    "host:port",
    "host:0",
    "host:65536",
    ":50051",
    "::1:50051",
    "host:1:2",
    "",
    " host:1",
    "user@host:1",
    "host:1/path",
    "dns:///localhost",
    "host\n:1",
]


def test_a_refused_connection_is_told_within_a_second(nobody: str) -> None:
    with Client(nobody) as client:
        began = time.monotonic()
        with pytest.raises(Unavailable, match="Connection refused") as caught:
            client.session("a")
        assert time.monotonic() - began < 2.0  # a second, with room for a busy machine
        assert nobody in str(caught.value)


def test_a_name_that_does_not_resolve_is_told_soon() -> None:
    with (
        Client("no-such-host.invalid:50051", timeout=20) as client,
        pytest.raises(Unavailable, match=r"no-such-host\.invalid:50051"),
    ):
        client.models()


async def test_one_of_several_that_is_there_is_enough(server: CountingServer) -> None:
    with refusing_address() as one, refusing_address() as other:
        async with AsyncClient([one, f"127.0.0.1:{server.port}", other], backoff=QUICK, connect_timeout=0.0) as client:
            for index in range(6):
                assert (await (await client.open(f"s{index}")).step(ONE)).tolist() == [1, 1]


async def test_a_server_that_starts_later_can_be_waited_for() -> None:
    late = CountingServer()
    with HeldPort() as port:
        async with AsyncClient(f"127.0.0.1:{port}", connect_timeout=20.0, backoff=QUICK) as client:
            opening = asyncio.ensure_future(client.open("a"))
            await until(lambda: client.counters.retries > 3)
            await late.start(port)
            assert (await (await opening).step(ONE)).tolist() == [1, 1]
        await late.stop()


async def test_a_server_that_was_there_is_waited_for(server: CountingServer) -> None:
    """The client rides out a restart, however soon it gives up on a server that was never there."""
    async with AsyncClient(f"127.0.0.1:{server.port}", connect_timeout=0.0, backoff=QUICK) as client:
        session = await client.open("a")
        await server.stop()
        waiting = [asyncio.ensure_future(session.step(ONE)), asyncio.ensure_future(session.info())]
        await until(lambda: client.counters.retries > 3)
        await server.start(server.port)
        await asyncio.gather(*waiting)


async def test_every_timeout_names_target_cause_and_time(server: CountingServer) -> None:
    target = f"127.0.0.1:{server.port}"
    async with AsyncClient(target, backoff=QUICK) as client:
        session = await client.open("a")
        server.gate.clear()
        with pytest.raises(DeadlineExceeded, match=rf"no answer from {target} within 0\.05 s"):
            await session.step(ONE, timeout=0.05)
        with pytest.raises(
            DeadlineExceeded, match=rf"no answer from {target} within 0\.05 s; earlier steps are still unanswered"
        ):
            await session.state(timeout=0.05)
        server.gate.set()
        await session.settle()
        await server.stop()
        for call in (client.models(timeout=0.5), session.step(ONE, timeout=0.5)):
            began = time.monotonic()
            with pytest.raises(DeadlineExceeded, match=rf"{target}.*{target}: UNAVAILABLE") as caught:
                await call
            spent = time.monotonic() - began
            said = re.search(r"within ([0-9.]+) s|in ([0-9.]+) s \(timeout: 0\.5 s\)", str(caught.value))
            assert said is not None
            assert float(said[1] or said[2]) == pytest.approx(spent, abs=0.2)
            assert isinstance(caught.value.__cause__, Unavailable)


@pytest.mark.parametrize("target", MALFORMED)
def test_a_malformed_target_is_refused_at_once(target: str) -> None:
    for kind in (Client, AsyncClient):
        for given in (target, ["localhost:1", target]):
            with pytest.raises(InvalidArgument, match="expected host:port") as caught:
                kind(given)
            assert repr(target) in str(caught.value)
            assert caught.value.field == "target"
    (finding,) = [found for found in examine([target], [], "", None, None, 10.0) if found.level == "fail"]
    assert "expected host:port" in finding.text


@pytest.mark.parametrize("target", [None, 50051, [50051], []])
def test_what_is_no_text_is_no_target(target: object) -> None:
    with pytest.raises(InvalidArgument, match="target: got"):
        Client(target)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "target", ["h:1", "a.b-c_d:65535", "[::1]:1", "dns:///h:1", "dns://8.8.8.8/h:1", "ipv4:127.0.0.1:1", "unix:/x.sock"]
)
async def test_targets_of_grpc_are_taken(target: str) -> None:
    assert AsyncClient(target).targets == (target,)


def test_what_is_this_machine() -> None:
    for target in ("localhost:1", "127.3.2.1:1", "[::1]:1", "dns:///localhost:1", "unix:/x.sock", "ipv4:127.0.0.1:1"):
        assert is_loopback(target), target
    for target in ("localhost.example.org:1", "10.0.0.1:1", "[2001:db8::1]:1", "ipv4:10.0.0.1:1"):
        assert not is_loopback(target), target


@pytest.mark.parametrize("words", [["model", "list"], ["doctor"]])
def test_a_proxy_of_the_environment_is_not_for_this_machine(
    threaded: ServerThread, words: list[str], nobody: str
) -> None:
    proxy = f"http://{nobody}"
    names = ("http_proxy", "https_proxy", "grpc_proxy")
    environment = {name: value for name, value in os.environ.items() if name.lower() != "no_proxy"}
    environment |= dict.fromkeys(names, proxy)
    where = [threaded.target] if words == ["doctor"] else ["--endpoint", threaded.target]
    command = [sys.executable, "-m", "cellkeeper", *words, *where, "--timeout", "5"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, check=False)
    assert "count" in done.stdout, done.stdout + done.stderr


def test_the_program_says_it_too(nobody: str) -> None:
    for endpoint, text in ((nobody, "Connection refused"), ("http://host:1", "expected host:port")):
        began = time.monotonic()
        done = run_forked("cellkeeper", ["sessions", "list", "--endpoint", endpoint], os.environ, 60)
        assert time.monotonic() - began < 10
        assert done.status == 1
        assert text in done.err
        assert done.err.count("\n") == 1
        assert done.out == ""


SCRIPT = "import sys; from cellkeeper.__main__ import main; sys.exit(main())"


@pytest.fixture(params=["module", "script"])
def command(request: pytest.FixtureRequest, tmp_path: Path) -> list[str]:
    """How the command is started: as a module, and as the script that an installer writes."""
    if request.param == "module":
        return [sys.executable, "-X", "utf8", "-m", "cellkeeper"]
    script = tmp_path / "cellkeeper"
    script.write_text(SCRIPT)
    return [sys.executable, str(script)]


def errors_of(command: list[str], target: str, **variables: str) -> str:
    """Returns what the command prints to stderr when it expects TLS of a server that has none."""
    environment = {name: value for name, value in os.environ.items() if name != "GRPC_VERBOSITY"} | variables
    arguments = [*command, "model", "show", "--tls", "--endpoint", target]
    return subprocess.run(arguments, capture_output=True, text=True, env=environment, timeout=60, check=False).stderr


def test_grpc_adds_no_lines_of_its_own(threaded: ServerThread, command: list[str]) -> None:
    assert re.fullmatch(r"cellkeeper: Unavailable: .*requires TLS.*\n", errors_of(command, threaded.target))


def test_the_environment_may_ask_for_them(threaded: ServerThread, command: list[str]) -> None:
    assert "Handshake failed" in errors_of(command, threaded.target, GRPC_VERBOSITY="INFO")


def test_what_programs_want_of_grpc_is_their_choice(threaded: ServerThread, tmp_path: Path) -> None:
    program = tmp_path / "cellkeeper_user.py"
    program.write_text(SCRIPT)
    assert "Handshake failed" in errors_of([sys.executable, str(program)], threaded.target)
