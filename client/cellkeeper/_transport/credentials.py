"""How a client proves its identity: TLS and a bearer token."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import grpc

from .._session.arguments import invalid
from ..errors import AccessDenied, CellkeeperError, InvalidArgument

Metadata = tuple[tuple[str, str], ...]
TokenSource = str | os.PathLike[str] | Callable[[], str]
NO_PASSWORD = ""
"""For a key that has one, loading then fails; otherwise OpenSSL would ask for it on the terminal."""


@dataclass(frozen=True, slots=True)
class Tls:
    """Paths of PEM files for TLS.

    ca_file: the authorities to verify the server's certificate with; empty: gRPC's own. cert_file, key_file: the
    client's own certificate, if the server asks for one. server_name: a name in the server's certificate, for a client
    that reaches the server under another name.
    """

    ca_file: str | os.PathLike[str] = ""
    cert_file: str | os.PathLike[str] = ""
    key_file: str | os.PathLike[str] = ""
    server_name: str = ""

    def credentials(self) -> grpc.ChannelCredentials:
        """Returns gRPC credentials. Raises InvalidArgument if the files do not match or cannot be read."""
        if bool(self.cert_file) != bool(self.key_file):
            raise invalid("tls", "one of cert_file and key_file", "both or neither")
        ca, key, cert = [_bytes(file, "tls") for file in (self.ca_file, self.key_file, self.cert_file)]
        self._check_contents()
        if ca == b"":
            raise _unusable(
                f"{os.fspath(self.ca_file)} has no certificate that can be read, expected PEM (it is empty)"
            )
        made: grpc.ChannelCredentials = grpc.ssl_channel_credentials(ca, key, cert)
        return made

    def context(self) -> ssl.SSLContext:
        """Returns a context for a WebSocket, with the system's authorities if there is no `ca_file`.

        Raises InvalidArgument.
        """
        try:
            made = ssl.create_default_context(cafile=os.fspath(self.ca_file) or None)
            if self.cert_file:
                made.load_cert_chain(self.cert_file, self.key_file, NO_PASSWORD)
        except OSError as error:  # ssl.SSLError is a subclass
            raise _unusable(str(error)) from error
        return made

    def _check_contents(self) -> None:
        """Raises InvalidArgument for files that gRPC would report only as a handshake that fails.

        It would even take an empty `ca_file` for none, and trust its own authorities. What can be read only once, such
        as a pipe, is not looked at.
        """
        trial = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        trial.set_ciphers("ALL:@SECLEVEL=0")  # gRPC decides by itself which keys are too short
        try:
            if self.ca_file and Path(self.ca_file).is_file():
                trial.load_verify_locations(self.ca_file)
        except OSError as error:
            why = f"{os.fspath(self.ca_file)} has no certificate that can be read, expected PEM ({error})"
            raise _unusable(why) from error
        try:
            if self.cert_file and Path(self.cert_file).is_file() and Path(self.key_file).is_file():
                trial.load_cert_chain(self.cert_file, self.key_file, NO_PASSWORD)
        except OSError as error:
            pair = f"{os.fspath(self.cert_file)} and {os.fspath(self.key_file)}"
            why = f"{pair} are not a certificate and its key, expected PEM without a password ({error})"
            raise _unusable(why) from error

    def options(self) -> tuple[tuple[str, str], ...]:
        """Returns gRPC channel options."""
        return (("grpc.ssl_target_name_override", self.server_name),) if self.server_name else ()


class Token:
    """The token that every call and stream sends. source: a token, the path of its file, or a callable that returns it.

    The file is read, or the callable called, for every call and every new stream, so a token can be replaced while the
    client runs.
    """

    def __init__(self, source: TokenSource | None) -> None:
        """Raises InvalidArgument."""
        if source is not None and not isinstance(source, str | os.PathLike) and not callable(source):
            raise invalid("token", type(source).__name__, "a str, the path of a file, or a callable that returns a str")
        self._source = source

    def metadata(self) -> Metadata:
        """Returns the header to send. Raises InvalidArgument if there is no usable token."""
        token = self.text()
        return () if token is None else (("authorization", f"Bearer {token}"),)

    def text(self) -> str | None:
        """Returns the token; None if none is given. Raises InvalidArgument if it cannot be used."""
        source = self._source
        if source is None:
            return None
        if isinstance(source, str):
            token = source
        elif isinstance(source, os.PathLike):
            token = (_bytes(source, "token") or b"").decode(errors="replace")
        else:
            token = _called(source)
        token = token.strip()
        if not token or not token.isascii() or not token.isprintable():
            raise invalid("token", "an empty token or one that cannot be sent", "printable ASCII")
        return token

    def replaced(self, sent: Metadata, error: CellkeeperError) -> bool:
        """Returns True if `error` says that the sent token is not accepted, and there is another token by now."""
        if not isinstance(error, AccessDenied) or error.reason == "PERMISSION_DENIED":
            return False
        try:
            return self._source is not None and self.metadata() != sent
        except CellkeeperError:
            return False  # there is none at present


def _called(source: Callable[[], object]) -> str:
    """Returns what the callable returns. Raises InvalidArgument for what it raises, and for anything but a str."""
    try:
        token = source()
    except CellkeeperError:
        raise
    except Exception as error:
        text = f"token: the callable raised {error!r}"
        raise InvalidArgument(text, reason="INVALID_FIELD", field="token") from error
    if not isinstance(token, str):
        raise invalid("token", f"{type(token).__name__} from the callable", "a str")
    return token


def _unusable(why: str) -> InvalidArgument:
    return InvalidArgument(f"tls: a file cannot be used: {why}", reason="INVALID_FIELD", field="tls")


def _bytes(path: str | os.PathLike[str], field: str) -> bytes | None:
    if not path:
        return None
    try:
        return Path(path).read_bytes()
    except OSError as error:
        text = f"{field}: cannot read {os.fspath(path)}: {error.strerror}"
        raise InvalidArgument(text, reason="INVALID_FIELD", field=field) from error
