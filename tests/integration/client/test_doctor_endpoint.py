"""The doctor at an endpoint with TLS and authentication: a real gRPC server that knows one token."""

from __future__ import annotations

import datetime
import ipaddress
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import grpc
import pytest
from cellkeeper import Tls
from cellkeeper._transport.channel import HEALTH
from cellkeeper._transport.readiness import SERVING
from cellkeeper.doctor.endpoint import EndpointCheck
from cellkeeper_proto.v1 import cellkeeper_pb2 as pb
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

TOKEN = "the right one"
SERVICE = "cellkeeper.v1.Cellkeeper"
newer = Event()


def certificate(days: int) -> tuple[bytes, bytes]:
    """Returns a key and a self-signed certificate for 127.0.0.1, as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.timezone.utc)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=days, hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private, made.public_bytes(serialization.Encoding.PEM)


def list_models(request: bytes, context: grpc.ServicerContext) -> bytes:
    if dict(context.invocation_metadata()).get("authorization") != f"Bearer {TOKEN}":
        context.abort(grpc.StatusCode.UNAUTHENTICATED, "who is it?")
    dtype: Any = pb.FLOAT32
    if newer.is_set():
        dtype = 99  # one that this client does not know
    info = pb.ModelInfo(name="m", fingerprint=bytes(32), exact=True, input=pb.TensorSpec(dtype=dtype))
    return pb.ListModelsResponse(models=[info]).SerializeToString()


class Guarded:
    """target: the server's address. ca_file: what to trust."""

    def __init__(self, folder: Path, days: int) -> None:
        key, cert = certificate(days)
        self.ca_file = str(folder / "ca.pem")
        Path(self.ca_file).write_bytes(cert)
        self._server = grpc.server(ThreadPoolExecutor(2))
        handlers: dict[str, Any] = {"ListModels": grpc.unary_unary_rpc_method_handler(list_models)}
        health = {"Check": grpc.unary_unary_rpc_method_handler(lambda request, context: SERVING)}
        self._server.add_generic_rpc_handlers(
            (
                grpc.method_handlers_generic_handler(SERVICE, handlers),
                grpc.method_handlers_generic_handler(HEALTH.split("/")[1], health),
            )
        )
        port = self._server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(key, cert)]))
        self.target = f"127.0.0.1:{port}"
        self._server.start()

    def run(self, ca_file: str | None, token: str | None) -> list[str]:
        with EndpointCheck(self.target, None if ca_file is None else Tls(ca_file), token, 5.0) as check:
            return [str(finding).replace(f"{self.target} ", "") for finding in check.run()]

    def stop(self) -> None:
        self._server.stop(None).wait()


@pytest.fixture
def guarded(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Guarded]:
    server = Guarded(tmp_path, getattr(request, "param", 90))
    yield server
    server.stop()


def test_the_right_token(guarded: Guarded) -> None:
    reach, *lines = guarded.run(guarded.ca_file, TOKEN)
    assert reach.startswith("ok    reach: ")
    assert lines == [
        "ok    TLS: encrypted; its certificate is valid for 90 days",
        "ok    health: SERVING",
        "ok    auth: refuses calls without a token",
        f"ok    model: m {'0' * 12} ()",
    ]


def test_no_token_and_another(guarded: Guarded) -> None:
    assert guarded.run(guarded.ca_file, None)[-1] == "fail  auth: no token was given; give one with --token-file"
    wrong = guarded.run(guarded.ca_file, "another")[-1]
    assert wrong == "fail  model: its models cannot be listed: UNAUTHENTICATED: who is it?; use another token"


@pytest.mark.parametrize("guarded", [10], indirect=True)
def test_a_certificate_that_ends_soon(guarded: Guarded) -> None:
    assert "warn  TLS: its certificate expires in 10 days; renew it" in guarded.run(guarded.ca_file, TOKEN)


def test_plain_text_where_tls_is(guarded: Guarded) -> None:
    (line,) = guarded.run(None, TOKEN)
    assert re.match(r"fail  reach: not reached in 0\.\d+ s: UNAVAILABLE: .*; check that it runs, .* expects TLS", line)


def test_a_server_that_is_newer(guarded: Guarded) -> None:
    newer.set()
    try:
        line = guarded.run(guarded.ca_file, TOKEN)[-1]
    finally:
        newer.clear()
    assert line.startswith("fail  model: the server sent dtype 99, which this version of the client does not know; ")
