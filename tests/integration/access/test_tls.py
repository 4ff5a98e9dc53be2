"""TLS, client certificates and tokens in the official client: what is refused, and what is replaced at run time."""

from __future__ import annotations

import os
import ssl
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from cellkeeper import AccessDenied, AsyncClient, Backoff, CellkeeperError, Client, InvalidArgument, Tls, Unavailable
from cellkeeper_service.domain.position import first_position
from cellkeeper_service.errors import StartError
from cellkeeper_service.rpc.tls import Certificates
from cryptography.hazmat.primitives import serialization

from testing.forked_program import Ended, run_forked
from testing.forked_server import ForkedServer
from tests.integration.program.launch import environment

from .certificates import Authority
from .tenants import REQUESTS, RPCS, answer, bearer, entry

QUICK = Backoff(first_seconds=0.01, max_seconds=0.1)


def swap(file: Path, data: bytes) -> None:
    """Replaces a file as an operator should: atomically."""
    other = file.with_suffix(".new")
    other.write_bytes(data)
    os.replace(other, file)


@dataclass
class House:
    """A server that requires client certificates, and tokens from clients whose names it does not know."""

    folder: Path
    ours: Authority
    other: Authority
    cert: Path
    key: Path
    tokens: Path
    token: str
    lines: list[str]
    server: ForkedServer

    def tls(self, name: str = "", authority: Authority | None = None, days: int = 1) -> Tls:
        """Returns a client's TLS settings, with a certificate for that name if one is given."""
        cert, key = (authority or self.ours).issue(name, days=days) if name else ("", "")
        return Tls(self.ours.file, cert, key)

    def client(self, tls: Tls, token: Any = None, timeout: float = 20.0) -> Client:
        return Client(self.server.target, tls=tls, token=token, timeout=timeout, backoff=QUICK)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, counting_model: Path) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("house")
    (folder / "other").mkdir()
    ours, other = Authority(folder), Authority(folder / "other", "other")
    cert, key = ours.issue("server")
    token, line = entry("acme", "step,read")
    lines = [line, "certificate tenant=acme rights=step,read name=pumps"]
    tokens = folder / "tokens"
    tokens.write_text("\n".join(lines))
    options = ["--tls-cert", str(cert), "--tls-key", str(key), "--tls-client-ca", str(ours.file)]
    options += ["--tokens", str(tokens), "--kserve", "on"]
    with ForkedServer([counting_model], "memory:", options) as server:
        yield House(folder, ours, other, cert, key, tokens, token, lines, server)


def test_a_certificate_or_a_token_lets_in(house: House) -> None:
    with house.client(house.tls("pumps")) as client:
        assert client.session("s").step([1.0]).tolist() == [1.0]
    with house.client(house.tls("someone"), house.token) as client:
        assert client.session("s").step([2.0]).tolist() == [3.0]  # the same tenant


async def test_the_asyncio_client_does_the_same(house: House) -> None:
    tls = house.tls("someone")
    async with AsyncClient(house.server.target, tls=tls, token=lambda: house.token, backoff=QUICK) as client:
        session = await client.open("asyncio")
        assert (await session.step([1.0])).tolist() == [1.0]


@pytest.mark.parametrize(
    "tls",
    [
        lambda house: house.tls(),
        lambda house: house.tls("pumps", house.other),
        lambda house: house.tls("late", days=-1),
        lambda house: Tls(house.other.file, *house.ours.issue("x")),
        lambda house: False,
    ],
    ids=["no certificate", "another authority", "expired", "a server not believed", "plain text"],
)
def test_a_bad_certificate_gets_no_connection(house: House, tls: Callable[[House], Any]) -> None:
    with house.client(tls(house), house.token, timeout=1.0) as client, pytest.raises(CellkeeperError) as caught:
        client.session("s")
    assert isinstance(caught.value.__cause__, Unavailable)


def test_a_certificate_for_another_name_is_told_with_what_to_do(house: House) -> None:
    with (
        house.client(replace(house.tls("pumps"), server_name="elsewhere.example")) as client,
        pytest.raises(Unavailable, match=r"certificate is for another name.*Tls\(server_name=\.\.\.\).*--server-name"),
    ):
        client.session("s")
    with house.client(replace(house.tls("pumps"), server_name="server")) as client:
        client.models()


@pytest.mark.parametrize("rpc", RPCS)
def test_a_good_certificate_of_an_unknown_name_is_not_enough(house: House, rpc: str) -> None:
    request = REQUESTS[rpc]("s", first_position(bytes(16)))
    with grpc.secure_channel(house.server.target, house.tls("nobody").credentials()) as channel:
        assert answer(channel, rpc, request)[0] == "UNAUTHENTICATED"
    with grpc.secure_channel(house.server.target, house.tls("pumps").credentials()) as channel:
        assert answer(channel, rpc, request)[0] != "UNAUTHENTICATED"
        # a given token counts, and the certificate does not make up for a bad one
        assert answer(channel, rpc, request, bearer("bad"))[0] == "UNAUTHENTICATED"


def test_a_replaced_token_costs_no_call(house: House) -> None:
    """A stream is open with the old token, which is withdrawn. By then the client's file has the new one."""
    old, old_line = entry("acme", "step,read")
    new, new_line = entry("acme", "step,read")
    mine = house.folder / "mine"
    swap(mine, old.encode())
    swap(house.tokens, "\n".join([*house.lines, old_line]).encode())
    house.server.wait_for("tokens: reloaded")
    with house.client(house.tls("someone"), mine) as client, house.client(house.tls("someone"), old) as left:
        session, other = client.session("rotated"), left.session("left")
        assert (session.step([1.0]).tolist(), other.step([1.0]).tolist()) == ([1.0], [1.0])
        swap(mine, new.encode())
        swap(house.tokens, "\n".join([*house.lines, new_line]).encode())
        house.server.wait_for("tokens: reloaded")
        for count in range(2, 50):
            assert session.step([1.0]).tolist() == [count]
        with pytest.raises(AccessDenied):
            other.info()
        assert session.info().position.step == 49
    swap(house.tokens, "\n".join(house.lines).encode())


def test_the_command_takes_a_token_from_a_file_or_a_variable(house: House) -> None:
    cert, key = house.ours.issue("cli")
    files = ["--ca-file", str(house.ours.file), "--cert-file", str(cert), "--key-file", str(key)]
    command = ["model", "list", "--endpoint", house.server.target, *files]

    def run(*more: str, **variables: str) -> Ended:
        return run_forked("cellkeeper", [*command, *more], environment(variables), 60)

    file = house.folder / "cli-token"
    file.write_text(house.token + "\n")
    assert run("--token-file", str(file)).out.startswith("count\t")
    assert run(CELLKEEPER_TOKEN=house.token).out.startswith("count\t")
    refused = run()
    assert (refused.status, refused.out) == (1, "")
    assert refused.err.startswith("cellkeeper: AccessDenied: expected a valid, unexpired token")
    assert refused.err.endswith("; --token-file FILE or $CELLKEEPER_TOKEN gives it\n")
    nothing = run("--token-file", "", CELLKEEPER_TOKEN=house.token)
    assert (nothing.status, nothing.out) == (2, "")
    assert "argument --token-file: got nothing, expected a value" in nothing.err
    as_flag = run("--token", house.token)
    assert (as_flag.status, house.token in as_flag.err) == (2, False)  # other users could read it


@pytest.mark.parametrize("flag", ["--ca-file", "--cert-file", "--key-file", "--server-name"])
def test_the_command_does_not_take_an_empty_word_for_no_tls(flag: str, house: House) -> None:
    command = ["model", "list", "--endpoint", house.server.target, flag, ""]
    refused = run_forked("cellkeeper", command, environment({"CELLKEEPER_TOKEN": house.token}), 60)
    assert (refused.status, refused.out) == (2, "")
    assert f"argument {flag}: got nothing, expected a value" in refused.err


def test_a_new_certificate_is_served_without_a_restart(tmp_path: Path, counting_model: Path) -> None:
    (tmp_path / "other").mkdir()
    ours, other = Authority(tmp_path), Authority(tmp_path / "other", "other")
    (cert, key), (new_cert, new_key) = ours.issue("server"), other.issue("renewed")
    old, new = Tls(ours.file), Tls(other.file)
    options = ["--tls-cert", str(cert), "--tls-key", str(key)]
    with (
        ForkedServer([counting_model], "memory:", options) as server,
        Client(server.target, tls=old, backoff=QUICK) as client,
    ):
        client.models()
        until = time.monotonic() + 60
        swap(key, new_key.read_bytes())  # does not match the certificate: the previous pair stays
        while "so the previous certificate stays in force: " not in server.output():
            assert time.monotonic() < until
            assert served(server, old)
        swap(cert, new_cert.read_bytes())
        while not served(server, new):
            assert time.monotonic() < until
        client.models()  # an open connection continues
        with ThreadPoolExecutor(8) as at_once:  # whichever listener accepts it
            assert not any(at_once.map(lambda _: served(server, old), range(8)))


def test_files_that_change_while_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The key is replaced after ssl has checked the files, and before they are read for gRPC."""
    authority, now = Authority(tmp_path), [0.0]
    (cert, key), (new_cert, new_key), (_, other_key) = (authority.issue(name) for name in ("old", "new", "other"))
    certificates = Certificates(str(cert), str(key), "", lambda: now[0])
    before = certificates._current, certificates._context
    checked = Certificates._new_context

    def check(self: Certificates) -> ssl.SSLContext:
        context = checked(self)
        swap(key, other_key.read_bytes())
        return context

    swap(cert, new_cert.read_bytes())
    swap(key, new_key.read_bytes())
    monkeypatch.setattr(Certificates, "_new_context", check)
    now[0] += 2
    certificates._look()
    assert (certificates._current, certificates._context) == before
    assert "they changed while they were read" in caplog.text
    monkeypatch.undo()
    swap(key, new_key.read_bytes())
    now[0] += 2
    certificates._look()
    assert before[0] is not certificates._current
    assert before[1] is not certificates._context


def served(server: ForkedServer, tls: Tls) -> bool:
    """Returns True if a new connection succeeds."""
    try:
        with Client(server.target, tls=tls, timeout=1.5, backoff=QUICK) as client:
            return bool(client.models())
    except CellkeeperError:
        return False


def test_files_that_can_be_read_only_once(house: House) -> None:
    """As a shell's <(command) gives them. An empty one is still no reason to trust gRPC's own authorities."""
    names = house.tls("a client")
    with ExitStack() as pipes:

        def piped(data: bytes) -> str:
            reader, writer = os.pipe()
            pipes.callback(os.close, reader)
            with open(writer, "wb") as pipe:
                pipe.write(data)
            return f"/dev/fd/{reader}"

        given = [piped(Path(file).read_bytes()) for file in (names.ca_file, names.cert_file, names.key_file)]
        with house.client(Tls(*given), house.token) as client:
            assert client.models()
        with pytest.raises(InvalidArgument, match="has no certificate that can be read"):
            house.client(Tls(piped(b"")))


def test_files_that_do_not_fit_together(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    (cert, key), (_, other) = authority.issue("a"), authority.issue("b")
    for files in ((cert, other), (key, cert), (authority.file, key)):
        with pytest.raises(StartError, match=f"{files[0]} and {files[1]} are not a certificate and its key"):
            Certificates(str(files[0]), str(files[1]), "")
    with pytest.raises(StartError, match=r"tls: cannot use .*No such file or directory: '.*none'"):
        Certificates(str(cert), str(tmp_path / "none"), "")
    with pytest.raises(StartError, match=f"{key} has no certificate that can be read, expected PEM"):
        Certificates(str(cert), str(key), str(key))
    pipe = tmp_path / "pipe"  # opening one waits for its writer
    os.mkfifo(pipe)
    for paths in ((str(cert), str(pipe), ""), (str(cert), str(key), str(pipe))):
        with pytest.raises(StartError, match="is not a regular file"):
            Certificates(*paths)
    with pytest.raises(InvalidArgument, match="cert_file"):
        Client("localhost:1", tls=Tls(cert_file=cert))
    with pytest.raises(InvalidArgument, match="cannot read"):
        Client("localhost:1", tls=Tls(ca_file=tmp_path / "none"))
    empty, text = tmp_path / "empty", tmp_path / "text"
    empty.touch()
    text.write_text("no certificate")
    for file in (empty, text, key):
        with pytest.raises(InvalidArgument, match=f"tls: a file cannot be used: {file} has no certificate"):
            Client("localhost:1", tls=Tls(ca_file=file))
    locked = tmp_path / "locked"
    loaded = serialization.load_pem_private_key(key.read_bytes(), None)
    password = serialization.BestAvailableEncryption(b"secret")
    form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    locked.write_bytes(loaded.private_bytes(*form, password))
    for pair in ((cert, other), (text, key), (cert, text), (cert, empty), (cert, locked)):
        with pytest.raises(InvalidArgument, match=f"{pair[0]} and {pair[1]} are not a certificate and its key"):
            Client("localhost:1", tls=Tls(cert_file=pair[0], key_file=pair[1]))
