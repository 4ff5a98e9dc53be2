"""The OpenAPI document, generated from the routes so that it is complete."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from .asked import TIMEOUT
from .call import JSON_TYPE
from .json_text import write_json
from .replies import HTTP_STATUS
from .routes import DOCUMENT, ROUTES, SOCKETS, Route, Socket
from .schemas import COUNT, SCHEMAS, TEXT, ref

NAMES = {
    "model": "a served model",
    "session": "1 to 256 bytes of UTF-8, percent-encoded; a slash is %2F",
}
DESCRIPTION = (
    "JSON over the same sessions as gRPC, with the same rights, limits and refusals. A step with a position takes "
    "effect exactly once, however often it is sent."
)


def document(version: str) -> bytes:
    """Returns OpenAPI 3.1 as JSON."""
    paths: dict[str, dict[str, Any]] = {}
    for route in ROUTES:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    for socket in SOCKETS:
        paths[socket.path] = {"get": _socket(socket)}
    text = {"description": "This document.", "content": {JSON_TYPE: {"schema": {"type": "object"}}}}
    paths[DOCUMENT] = {"get": {"operationId": "getOpenapi", "security": [], "responses": {"200": text}}}
    return write_json(
        {
            "openapi": "3.1.0",
            "info": {"title": "Cellkeeper", "version": version, "description": DESCRIPTION},
            "paths": paths,
            "components": {
                "schemas": SCHEMAS,
                "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            },
            "security": [{"token": []}, {}],
        }
    )


def _operation(route: Route) -> dict[str, Any]:
    query = {**route.query, TIMEOUT: "how long the caller waits, in ms; default: the server's default_timeout_ms"}
    made: dict[str, Any] = {
        "operationId": _name(route.method, route.path),
        "summary": route.summary,
        "x-rpc": route.rpc,
        "parameters": _parameters(route.path, query),
        "responses": {"200": _answer("Done.", route.reply), "default": _answer(_refusals(), "Refusal")},
    }
    if route.body:
        content = {JSON_TYPE: {"schema": ref(route.body)}}
        made["requestBody"] = {"required": bool(SCHEMAS[route.body]["required"]), "content": content}
    return made


def _socket(socket: Socket) -> dict[str, Any]:
    made: dict[str, Any] = {
        "operationId": _name("GET", socket.path),
        "summary": f"WebSocket. {socket.summary}",
        "description": "A browser sends its token as a subprotocol beside `cellkeeper.v1`: `cellkeeper.bearer.` and "
        "the token in base64url without padding.",
        "x-rpc": socket.rpc,
        "x-server-sends": _message(socket.sends),
        "parameters": _parameters(socket.path, socket.query),
        "responses": {"101": {"description": "Opened; a refusal follows as a message."},
                      "default": _answer(_refusals(), "Refusal")},
    }  # fmt: skip
    if socket.receives:
        made["x-client-sends"] = _message(socket.receives)
    return made


def _message(name: str) -> dict[str, Any]:
    """Describes a WebSocket's messages. name: of a schema, or of a protobuf message that is sent in binary."""
    return ref(name) if name in SCHEMAS else {"description": f"binary: the protobuf message {name}"}


def _parameters(path: str, query: Mapping[str, str]) -> list[dict[str, Any]]:
    in_path = [
        {"name": name, "in": "path", "required": True, "description": NAMES[name], "schema": {**TEXT, "minLength": 1}}
        for name in re.findall(r"\{(\w+)\}", path)
    ]
    in_query = [
        {"name": name, "in": "query", "description": text, "schema": COUNT if name in NUMBERS else TEXT}
        for name, text in query.items()
    ]
    return [*in_path, *in_query]


NUMBERS = frozenset({TIMEOUT, "page_size", "steps", "hz"})


def _answer(description: str, schema: str) -> dict[str, Any]:
    return {"description": description, "content": {JSON_TYPE: {"schema": ref(schema)}}}


def _refusals() -> str:
    by_status: dict[int, list[str]] = {}
    for code, status in HTTP_STATUS.items():
        by_status.setdefault(status, []).append(code)
    return "Refused. " + "; ".join(f"{status}: {', '.join(codes)}" for status, codes in by_status.items()) + "."


def _name(method: str, path: str) -> str:
    words = [word for word in re.split(r"[^a-z]+", re.sub(r"\{\w+\}", "one", path.removeprefix("/v1"))) if word]
    return method.lower() + "".join(word.title() for word in words)
