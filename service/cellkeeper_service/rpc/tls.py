"""The server's certificate, and the authorities whose clients it takes: from files, read again when they change."""

from __future__ import annotations

import logging
import os
import ssl
import time
from collections.abc import Callable
from threading import Lock

import grpc

from cellkeeper_service.errors import StartError

log = logging.getLogger(__name__)

LOOK_SECONDS = 1.0


class Certificates:
    """cert: the server's chain. key: its key, not encrypted. client_ca: empty where clients need no certificate. All
    are paths of PEM files. gRPC asks at every handshake; connections that stand go on with what they began with.
    """

    def __init__(self, cert: str, key: str, client_ca: str, now: Callable[[], float] = time.monotonic) -> None:
        """Raises StartError where the files cannot be taken."""
        self._paths = (cert, key, client_ca) if client_ca else (cert, key)
        self._now = now
        self._lock = Lock()  # handshakes are made on gRPC's threads
        self._looked_at = now()
        self._wrong = ""
        self._version = 0
        try:
            self._seen = self._stamps()
            self._current = self._read()
        except (OSError, ValueError) as error:
            raise StartError(f"tls: cannot take {', '.join(self._paths)}: {error}") from error

    def credentials(self) -> grpc.ServerCredentials:
        """For one listener: gRPC takes "unchanged" for an answer only where it has been told what is."""
        told = self._version

        def changed() -> grpc.ServerCertificateConfiguration | None:
            nonlocal told
            with self._lock:
                self._look()
                if told == self._version:
                    return None
                told = self._version
                return self._current

        made: grpc.ServerCredentials = grpc.dynamic_ssl_server_credentials(
            self._current,
            changed,  # type: ignore[arg-type]  # the stubs lack None: nothing has changed
            require_client_authentication=len(self._paths) == 3,
        )
        return made

    def context(self) -> ssl.SSLContext:
        """For listeners that take one of Python's. Each handshake is made with what the files hold then."""

        def look(handshake: ssl.SSLObject | ssl.SSLSocket, name: str | None, began_with: ssl.SSLContext) -> None:
            with self._lock:
                self._look()
                handshake.context = self._context

        began = self._new_context()
        began.sni_callback = look
        return began

    def _look(self) -> None:
        """Reads the files if they have changed. What cannot be taken changes nothing, and is logged once."""
        now = self._now()
        if now - self._looked_at < LOOK_SECONDS:
            return
        self._looked_at = now
        try:
            stamps = self._stamps()
            if stamps == self._seen:
                return
            self._current = self._read()
        except (OSError, ValueError) as error:
            if str(error) != self._wrong:
                log.error("tls: keeping the certificate of before: cannot take %s: %s", ", ".join(self._paths), error)
            self._wrong = str(error)
            return
        self._seen, self._wrong = stamps, ""
        self._version += 1
        log.info("tls: the certificate was read again")

    def _stamps(self) -> list[tuple[int, int, int]]:
        statuses = [os.stat(path) for path in self._paths]
        return [(status.st_ino, status.st_mtime_ns, status.st_size) for status in statuses]

    def _read(self) -> grpc.ServerCertificateConfiguration:
        """Raises OSError (ssl's errors are some) and ValueError: gRPC itself would say nothing of bad files."""
        self._context = self._new_context()
        texts = []
        for path in self._paths:
            with open(path, "rb") as file:
                texts.append(file.read())
        roots = texts[2] if len(texts) == 3 else None
        made: grpc.ServerCertificateConfiguration = grpc.ssl_server_certificate_configuration(
            [(texts[1], texts[0])], root_certificates=roots
        )
        return made

    def _new_context(self) -> ssl.SSLContext:
        cert, key, *client_ca = self._paths
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(cert, key, password=_no_password)
        if client_ca:
            context.load_verify_locations(client_ca[0])
            context.verify_mode = ssl.CERT_REQUIRED
        return context


def _no_password() -> bytes:
    raise ValueError("the key is encrypted, expected one that is not")
