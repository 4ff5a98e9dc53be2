"""Where the front may listen, what it needs, and that several workers share it."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import ssl
from http.client import HTTPConnection, HTTPSConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest
from cellkeeper_service.errors import StartError
from cellkeeper_service.server.config import Settings
from cellkeeper_service.server.listening import check_access

from testing.server_process import ServerProcess
from tests.integration.access.certificates import Authority
from tests.integration.access.tenants import entry
from tests.integration.program.launch import serve

from .front import Front, closing, serving


def settings(*words: str) -> Settings:
    return Settings.read(["model", *words], {})


def test_it_is_off_by_default() -> None:
    assert settings().http_listen == ""


@pytest.mark.parametrize(
    "words",
    [
        ["--http-listen=127.0.0.1:0"],
        ["--http-listen=[::1]:0"],
        ["--http-listen=0.0.0.0:0", "--tokens=t"],
        ["--http-listen=0.0.0.0:0", "--tls-cert=c", "--tls-key=k", "--tls-client-ca=a"],
    ],
)
def test_where_it_may_listen(words: list[str]) -> None:
    check_access(settings(*words))


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--http-listen=0.0.0.0:0"], "--http-listen: 0.0.0.0:0 can be reached from other machines"),
        (["--http-listen=:0", "--insecure-listen"], "give --tokens FILE"),  # that applies to gRPC only
        (["--http-listen=0.0.0.0:0", "--tls-cert=c", "--tls-key=k"], "give --tokens FILE"),
        (["--http-listen=8080"], "--http-listen: got '8080', expected host:port"),
        (["--http-listen=127.0.0.1:0", "--max-http-body-bytes=99999999"], "expected at most max_message_bytes"),
    ],
)
def test_where_it_may_not(words: list[str], text: str) -> None:
    with pytest.raises(StartError) as caught:
        check_access(settings(*words))
    assert text in str(caught.value)


def test_without_the_extra(counting_model: Path, tmp_path: Path) -> None:
    """As if it were not installed: the package of that name cannot be imported."""
    (tmp_path / "aiohttp").mkdir()
    (tmp_path / "aiohttp" / "__init__.py").write_text('raise ImportError("not here")\n')
    variables = {"PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
    ended = serve("--http-listen=127.0.0.1:0", counting_model, variables=variables)
    assert ended.line == "http_listen: the HTTP front needs aiohttp (not here); pip install 'cellkeeper[http]'"


def test_a_port_that_is_taken(counting_model: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = serve(f"--http-listen=127.0.0.1:{port}", "--store=memory:", counting_model)
    assert ended.status == 1
    assert f"cannot listen on 127.0.0.1:{port} " in ended.err
    assert "choose another with --http-listen" in ended.err


def test_workers_share_the_port(counting_model: Path, tmp_path: Path) -> None:
    words = ["--http-listen=127.0.0.1:0", "--workers=2"]
    with ServerProcess([counting_model], f"sqlite:{tmp_path / 'db'}", words) as server:
        urls = re.findall(r"http on (\S+)", server.output())
        while len(urls) < 2:
            urls.append(server.wait_for(r"http on (\S+)"))
        assert urls[0] == urls[1]
        front = Front(urls[0].rstrip("/"), server)
        session = front.session()
        at = session.open()
        for number in range(20):  # one connection each: the kernel spreads them
            at = session.step([number], position=at)["position"]
        assert session.position() == at
        assert server.stop() == 0


def get(front: Front, path: str, tls: ssl.SSLContext, token: str = "") -> tuple[int, bytes]:
    place = urlsplit(front.url)
    connection = HTTPSConnection(place.hostname or "", place.port, timeout=20, context=tls)
    try:
        connection.request("GET", path, headers={"Authorization": f"Bearer {token}"} if token else {})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def certificate(front: Front, tls: ssl.SSLContext) -> bytes | None:
    """Returns the server's certificate on a new connection."""
    place = urlsplit(front.url)
    with (
        socket.create_connection((place.hostname, place.port), 20) as plain,
        tls.wrap_socket(plain, server_hostname="localhost") as secured,
    ):
        return secured.getpeercert(binary_form=True)


async def test_tls_client_certificates_and_tokens_that_are_withdrawn(counting_model: Path, tmp_path: Path) -> None:
    """The same files as for gRPC."""
    ours, others = Authority(tmp_path, "ours"), Authority(tmp_path, "others")
    cert, key = ours.issue("localhost")
    token, line = entry("a", "read,step")
    file = tmp_path / "tokens"
    known = "certificate tenant=a rights=read,step name=pumps.example"
    file.write_text(f"{line}\n{known}\n")
    words = [f"--tls-cert={cert}", f"--tls-key={key}", f"--tls-client-ca={ours.file}", f"--tokens={file}"]
    with serving([counting_model], options=words, listen="localhost:0") as front:
        assert front.url.startswith("https://localhost:")

        def client(name: str, authority: Authority) -> ssl.SSLContext:
            made = ssl.create_default_context(cafile=ours.file)
            made.load_cert_chain(*authority.issue(name))
            return made

        assert get(front, "/v1/server", client("pumps.example", ours))[0] == 200
        assert get(front, "/v1/server", client("stranger.example", ours))[0] == 401
        assert get(front, "/v1/server", client("stranger.example", ours), token)[0] == 200
        with pytest.raises((ssl.SSLError, ConnectionError)):
            get(front, "/v1/server", client("pumps.example", others))
        with pytest.raises((ssl.SSLError, ConnectionError)):
            get(front, "/v1/server", ssl.create_default_context(cafile=ours.file))
        before = certificate(front, client("pumps.example", ours))
        for old, new in zip((cert, key), ours.issue("renewed.example"), strict=True):
            os.replace(new, old)
        while certificate(front, client("pumps.example", ours)) == before:  # noqa: ASYNC110 - it checks once a second
            await asyncio.sleep(0.05)
        plain = HTTPConnection(front.place, timeout=20)
        plain.request("GET", "/v1/server")
        with pytest.raises(OSError):
            plain.getresponse()
        plain.close()

        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=client("stranger.example", ours))) as http:
            url = f"{front.url}/v1/models/count/sessions/s/watch"
            async with http.ws_connect(url, headers={"Authorization": f"Bearer {token}"}) as watch:
                assert (await watch.receive_json(timeout=20))["error"]["reason"] == "SESSION_NOT_FOUND"
                file.write_text(f"{known}\n")
                error: Any = await watch.receive_json(timeout=20)
                assert error["error"]["reason"] == "UNAUTHENTICATED"
                assert await closing(watch) == (1008, "UNAUTHENTICATED")
