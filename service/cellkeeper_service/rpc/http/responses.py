"""HTTP responses: JSON, refusals, and the headers that each has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiohttp import web

from . import replies
from .call import JSON_TYPE
from .guard import HEADERS
from .json_text import write_json


def json_response(status: int, body: bytes, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.Response(status=status, body=body, headers={"Content-Type": JSON_TYPE, **(headers or {})})


def refusal(error: dict[str, Any]) -> web.Response:
    """error: as replies.error writes it."""
    headers = {}
    if error["code"] == "UNAUTHENTICATED":
        headers["WWW-Authenticate"] = "Bearer"
    if "retry_delay_ms" in error["details"]:
        headers["Retry-After"] = str(-(-error["details"]["retry_delay_ms"] // 1000))
    return json_response(replies.HTTP_STATUS[error["code"]], write_json({"error": error}), headers)


def plain_refusal(plain: web.HTTPException) -> web.Response:
    """Converts an error of aiohttp's own: no such route, or another method."""
    known = {
        404: ("NOT_FOUND", "there is no such path; /v1/openapi.json lists them"),
        405: ("UNIMPLEMENTED", "the path does not accept this method; see the Allow header"),
    }
    code, message = known.get(plain.status, ("INVALID_ARGUMENT", plain.reason))
    error = {"code": code, "reason": "REASON_UNSPECIFIED", "message": message, "details": {}}
    headers = {"Allow": plain.headers["Allow"]} if "Allow" in plain.headers else {}
    return json_response(plain.status, write_json({"error": error}), headers)


async def add_headers(request: web.Request, response: web.StreamResponse) -> None:
    """Prepares a response of the application to be sent."""
    set_headers(response)
    response.headers.popall("Server", None)


def set_headers(response: web.StreamResponse) -> None:
    """Adds the headers that every response has."""
    response.headers.update(HEADERS)
    response.headers.setdefault("Cache-Control", "no-store")
