"""The server's certificate and the client CAs it trusts. The files are read again when they change."""

from __future__ import annotations

import logging
import ssl
import time
from collections.abc import Callable
from datetime import datetime, timezone
from threading import Lock

import grpc

from cellkeeper_service.errors import StartError
from cellkeeper_service.file_stamp import Stamp, stamp_of

from .certificate_dates import Dates, dates_of

log = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
DAY_SECONDS = 86_400.0
SOON_DAYS = 14  # as in the alert CellkeeperCertificateExpires


class Certificates:
    """Certificates from PEM files, which each handshake checks for changes. Open connections keep what they began with.

    cert: path of the server's chain. key: of its unencrypted key. client_ca: of the client CAs; empty if clients need
    no certificate.
    """

    def __init__(
        self,
        cert: str,
        key: str,
        client_ca: str,
        now: Callable[[], float] = time.monotonic,
        unix_time: Callable[[], float] = time.time,
    ) -> None:
        """Raises StartError if the files cannot be used. Logs a warning for a certificate that clients refuse, or soon
        will."""
        self._paths = (cert, key, client_ca) if client_ca else (cert, key)
        self._now = now
        self._unix_time = unix_time
        self._lock = Lock()  # gRPC makes handshakes on its own threads
        self._looked_at = now()
        self._wrong = ""
        self._version = 0
        try:
            self._seen, self._current, self._context, self._dates = self._read()
        except (OSError, ValueError) as error:
            raise StartError(f"tls: cannot use {', '.join(self._paths)}: {error}") from error
        self._warn()

    def expiry(self) -> float | None:
        """Returns the Unix time at which the current certificate expires; None if its dates cannot be read."""
        with self._lock:
            self._look()
            return self._dates.not_after if self._dates else None

    def reload_failed(self) -> bool:
        """Returns True if the files have changed, but cannot be used, so that the previous certificate is in force."""
        with self._lock:
            self._look()
            return bool(self._wrong)

    def credentials(self) -> grpc.ServerCredentials:
        """Returns credentials for one listener. Each must see every change once, so it remembers the version it has."""
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
        """Returns a context for listeners that use Python's ssl. Each handshake uses the current files."""

        def look(handshake: ssl.SSLObject | ssl.SSLSocket, name: str | None, began_with: ssl.SSLContext) -> None:
            with self._lock:
                self._look()
                handshake.context = self._context

        began = self._new_context()
        began.sni_callback = look
        return began

    def _look(self) -> None:
        """Reads the files if they have changed. Unusable files change nothing, and are logged once."""
        now = self._now()
        if now - self._looked_at < LOOK_SECONDS:
            return
        self._looked_at = now
        try:
            if self._stamps() == self._seen:
                self._wrong = ""  # the previous files may be back
                return
            self._seen, self._current, self._context, self._dates = self._read()
        except (OSError, ValueError) as error:
            if str(error) != self._wrong:
                log.error(
                    "tls: cannot use %s, so the previous certificate stays in force: %s", ", ".join(self._paths), error
                )
            self._wrong = str(error)
            return
        self._wrong = ""
        self._version += 1
        log.info("tls: reloaded the certificate")
        self._warn()

    def _warn(self) -> None:
        """Logs a certificate that clients refuse, or soon will. It is served all the same: the clock may be wrong."""
        path, dates, now = self._paths[0], self._dates, self._unix_time()
        if dates is None:
            log.warning("tls: cannot read when the certificate in %s expires", path)
        elif now < dates.not_before:
            log.warning("tls: the certificate in %s is not valid before %s; clients refuse it", path, _day(dates[0]))
        elif now >= dates.not_after:
            log.warning("tls: the certificate in %s expired on %s; clients refuse it", path, _day(dates[1]))
        elif (left := dates.not_after - now) < SOON_DAYS * DAY_SECONDS:
            days = left / DAY_SECONDS
            log.warning("tls: the certificate in %s expires on %s, in %.1f days", path, _day(dates[1]), days)

    def _stamps(self) -> list[Stamp]:
        return [stamp_of(path) for path in self._paths]

    def _read(self) -> tuple[list[Stamp], grpc.ServerCertificateConfiguration, ssl.SSLContext, Dates | None]:
        """Reads the files. Raises OSError (which ssl's errors are) or ValueError; gRPC would not report bad files.

        They are read twice: by ssl, which checks that they fit together, and for gRPC.
        """
        stamps, context = self._stamps(), self._new_context()
        texts = []
        for path in self._paths:
            with open(path, "rb") as file:
                texts.append(file.read())
        roots = texts[2] if len(texts) == 3 else None
        made: grpc.ServerCertificateConfiguration = grpc.ssl_server_certificate_configuration(
            [(texts[1], texts[0])], root_certificates=roots
        )
        if self._stamps() != stamps:
            raise ValueError("they changed while they were read; wait until they are complete")
        return stamps, made, context, _dates(texts[0])

    def _new_context(self) -> ssl.SSLContext:
        cert, key, *client_ca = self._paths
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            context.load_cert_chain(cert, key, password=_no_password)
        except ssl.SSLError as error:
            raise ValueError(
                f"{cert} and {key} are not a certificate and its key, expected PEM without a password ({error})"
            ) from error
        if client_ca:
            try:
                context.load_verify_locations(client_ca[0])
            except ssl.SSLError as error:
                raise ValueError(
                    f"{client_ca[0]} has no certificate that can be read, expected PEM ({error})"
                ) from error
            context.verify_mode = ssl.CERT_REQUIRED
        return context


def _dates(cert: bytes) -> Dates | None:
    try:
        return dates_of(cert.decode(errors="replace"))
    except ValueError:  # ssl has read it, so it is served
        return None


def _day(unix_time: float) -> str:
    return datetime.fromtimestamp(unix_time, timezone.utc).strftime("%Y-%m-%d %H:%M UTC")


def _no_password() -> bytes:
    raise ValueError("the key is encrypted, expected an unencrypted one")
