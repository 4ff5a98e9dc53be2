"""An HTTP request as handlers see it: in place of gRPC's call context."""

from __future__ import annotations

import asyncio
import base64
import binascii
import time
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from ipaddress import IPv6Address, ip_address
from typing import Any, NoReturn

from aiohttp import web

from cellkeeper_service.errors import Rejection, invalid
from cellkeeper_service.rpc.authenticator import HEADER, SCHEME
from cellkeeper_service.rpc.call_context import EOF
from cellkeeper_service.rpc.call_log import REQUEST_ID
from cellkeeper_service.rpc.catalog import Catalog
from cellkeeper_service.rpc.model_changed import Unfit

from . import fields, replies
from .asked import TIMEOUT, Asked, read_body, read_path, read_query
from .field_names import COMMON, FieldNames
from .routes import Route

BY_VERSION = frozenset({"Open", "Step"})
"""RPCs whose request may be refused only because its session belongs to another version of the model."""
JSON_TYPE, UTF_8, CHUNKED = "application/json", "utf-8", "chunked"
PROTOCOL = "cellkeeper.v1"
BEARER_PROTOCOL = "cellkeeper.bearer."
"""A browser cannot set the headers of a WebSocket, so its token is a second subprotocol, in base64url."""


class Ended(Exception):
    """Ends the call with a rejection that was counted and logged. error: as replies.error writes it."""

    def __init__(self, why: Rejection, names: FieldNames) -> None:
        """names: of the fields in the request."""
        super().__init__(why.message)
        self.error = replies.rejection(why, names)


class HttpCall:
    """Implements CallContext. On its own it is a call without a message, such as one that is refused early."""

    field_names = COMMON

    def __init__(self, request: web.Request, template: str, names: Sequence[str]) -> None:
        """template: of the path. names: permitted in the query."""
        self.request = request
        self.came = time.monotonic()
        self._template = template
        self._names = names

    @cached_property
    def query(self) -> dict[str, str]:
        """The query by name. Raises a Rejection."""
        return read_query(self.request.rel_url.raw_query_string, self._names)

    @cached_property
    def path(self) -> dict[str, str]:
        """The path's values by the names in the template. Raises a Rejection."""
        if "#" in self.request.raw_path:  # the rest would be dropped, as a fragment
            raise invalid("path", "a #", "%23 for a # within an id")
        return read_path(self._template, self.request.rel_url.raw_path)

    def invocation_metadata(self) -> Sequence[tuple[str, str | bytes]]:
        headers = self.request.headers
        sent = [*headers.getall("Authorization", ()), *_tokens(headers.getall("Sec-WebSocket-Protocol", ()))]
        found: list[tuple[str, str | bytes]] = [(HEADER, value) for value in sent]
        return [*found, *((REQUEST_ID, value) for value in headers.getall(REQUEST_ID, ()))]

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        transport = self.request.transport
        made = None if transport is None else transport.get_extra_info("peercert")
        if not made:
            return {}
        names = [value for kind, value in made.get("subjectAltName", ()) if kind in ("DNS", "URI")]
        common = [value for part in made.get("subject", ()) for kind, value in part if kind == "commonName"]
        return {
            "x509_subject_alternative_name": [name.encode() for name in names],
            "x509_common_name": [name.encode() for name in common],
        }

    def time_remaining(self) -> float | None:
        """Returns the seconds left, or None without `timeout_ms`. Raises a Rejection if it is not a valid time."""
        if TIMEOUT not in self._names or TIMEOUT not in self.query:
            return None
        timeout_ms = fields.query(self.query, TIMEOUT)
        if timeout_ms == 0:
            raise invalid(TIMEOUT, 0, "1 or more")
        return self.came + timeout_ms / 1000 - time.monotonic()

    def peer(self) -> str:
        transport = self.request.transport
        place = None if transport is None else transport.get_extra_info("peername")
        if not place:
            return "gone"
        address, port = ip_address(str(place[0]).partition("%")[0]), place[1]
        if isinstance(address, IPv6Address):
            if address.ipv4_mapped is None:
                return f"ipv6:[{address}]:{port}"
            address = address.ipv4_mapped
        return f"ipv4:{address}:{port}"

    async def read(self) -> Any:
        """Returns the next message, or EOF."""
        return EOF

    async def sent(self) -> None:
        """Returns at once: a reply is written only when it has left."""

    def cancel(self) -> None:
        """Closes the connection, which this call has for itself."""
        if self.request.transport is not None:
            self.request.transport.abort()

    async def refuse(self, why: Rejection) -> NoReturn:
        raise Ended(why, self.field_names)


class JsonCall(HttpCall):
    """A request with one reply."""

    def __init__(
        self,
        request: web.Request,
        route: Route,
        catalog: Catalog,
        most_bytes: int,
    ) -> None:
        """catalog: with the limits for JSON replies. most_bytes: of the body."""
        super().__init__(request, route.path, [*route.query, TIMEOUT])
        self._route = route
        self.field_names = route.names
        self._catalog = catalog
        self._most = most_bytes

    async def read(self) -> Any:
        try:
            data = await self._body()
        except ConnectionError:  # the client has gone
            return EOF
        query = {name: value for name, value in self.query.items() if name != TIMEOUT}
        asked = Asked(self._catalog, self.path, query, read_body(data))
        try:
            message = self._route.read(asked)
            asked.body.end()
        except Rejection as why:
            if self._route.rpc in BY_VERSION:
                return Unfit(asked.model, asked.session, why)
            raise
        return message

    async def _body(self) -> bytes:
        request = self.request
        if not request.can_read_body:
            return b""
        if request.method in ("GET", "HEAD", "DELETE"):
            raise invalid("body", "one", f"none: {request.method} takes only its path and query")
        headers = request.headers
        if request.content_type != JSON_TYPE or (request.charset or UTF_8).lower() != UTF_8:
            raise invalid("Content-Type", repr(headers.get("Content-Type", "")), f"{JSON_TYPE}, in UTF-8")
        if "Content-Encoding" in headers:
            raise invalid("Content-Encoding", repr(headers["Content-Encoding"]), "an unencoded body")
        if headers.get("Transfer-Encoding", CHUNKED).lower() != CHUNKED:
            raise invalid("Transfer-Encoding", repr(headers["Transfer-Encoding"]), CHUNKED)
        body = bytearray()
        try:
            while chunk := await request.content.readany():
                body += chunk
                if len(body) > self._most:
                    raise invalid("body", f"more than {self._most} bytes", f"at most {self._most}")
        except web.RequestPayloadError:
            raise invalid("body", "invalid chunked encoding", "a valid HTTP body") from None
        except (ConnectionError, asyncio.CancelledError):
            body.clear()  # the client has gone, and aiohttp keeps this error, whose traceback has the body
            raise
        return bytes(body)


def _tokens(protocols: Sequence[str]) -> list[str]:
    """Returns the tokens among a WebSocket's subprotocols, in the header's form.

    One that is not base64url becomes an empty token, which no server knows.
    """
    found = []
    for name in ",".join(protocols).split(","):
        if (name := name.strip()).startswith(BEARER_PROTOCOL):
            text = name.removeprefix(BEARER_PROTOCOL)
            try:
                found.append(SCHEME + base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True).decode())
            except (binascii.Error, ValueError):
                found.append(SCHEME)
    return found
