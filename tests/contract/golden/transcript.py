"""Records a server's calls as bytes: each request, its replies, and what has changed in the store since."""

from __future__ import annotations

from typing import Any

import grpc
from cellkeeper_proto.v1 import cellkeeper_pb2 as pb
from google.protobuf import message_factory
from google.rpc import error_details_pb2, status_pb2

from .names import Names
from .stored import Records, Stored

SERVICE = pb.DESCRIPTOR.services_by_name["Cellkeeper"]
DETAILS = "grpc-status-details-bin"
TIMEOUT_S = 30.0
SECONDS = ("queued_seconds", "computed_seconds")  # durations, present if a step was computed
SINCE = ("age_ms", "idle_ms")  # may be 0, which is not sent
ENGINE = ("numerics", "engine", "device")  # of a version and a machine


class Transcript:
    """Keeps everything raw until `wire` or `records` is asked for, when every name is known."""

    def __init__(self, channel: grpc.Channel, names: Names, stored: Stored) -> None:
        self._channel, self._names, self._stored = channel, names, stored
        self._exchanges: list[tuple[str, str, bytes, list[Any]]] = []
        self._changes: list[tuple[str, Records, list[str]]] = []
        self._before = stored.read()
        self.metadata: tuple[tuple[str, str], ...] = ()  # of the calls to come
        self.numerics = ""  # the server's text, once known

    def call(self, title: str, method: str, request: Any) -> list[Any]:
        """Returns the parsed replies: one, several for a stream, or none if the call fails."""
        sent = request.SerializeToString()
        path, form = f"/{SERVICE.full_name}/{method}", SERVICE.methods_by_name[method]
        raw: list[Any] = []
        options: Any = {"timeout": TIMEOUT_S, "metadata": self.metadata}
        try:
            if method == "StepStream":
                raw += self._channel.stream_stream(path, None, None)(iter([sent]), **options)
            else:
                raw.append(self._channel.unary_unary(path, None, None)(sent, **options))
        except grpc.RpcError as error:
            raw.append(error)
        self._exchanges.append((title, method, sent, raw))
        self._look(title)
        kind = message_factory.GetMessageClass(form.output_type)
        return [kind.FromString(one) for one in raw if isinstance(one, bytes)]

    def wire(self) -> str:
        lines = []
        for number, (title, method, sent, replies) in enumerate(self._exchanges, 1):
            lines += [f"## {number} {title}", f"> {method} {self._names.fix(sent).hex()}"]
            for reply in replies:
                lines.append(f"< {self._reply(method, reply) if isinstance(reply, bytes) else self._failure(reply)}")
            lines.append("")
        return "\n".join(lines)

    def records(self) -> str:
        """Returns the changes that each call made."""
        lines = []
        for title, records, gone in self._changes:
            lines.append(f"## {title}")
            for key, rows in records.items():
                lines.append(f"{key}")
                lines += [f"  {what} {self._stored.fixed(what, data, self._names).hex()}" for what, data in rows]
            lines += [f"{key}\n  gone" for key in gone]
            lines.append("")
        return "\n".join(lines)

    def _look(self, title: str) -> None:
        after = self._stored.read()
        changed = {key: rows for key, rows in sorted(after.items()) if self._before.get(key) != rows}
        gone = sorted(self._before.keys() - after.keys())
        if changed or gone:
            self._changes.append((f"{len(self._exchanges)} {title}", changed, gone))
        self._before = after

    def _reply(self, method: str, raw: bytes) -> str:
        message = message_factory.GetMessageClass(SERVICE.methods_by_name[method].output_type).FromString(raw)
        if message.SerializeToString(deterministic=True) != raw:
            raise AssertionError(
                f"{method}: the reply's fields are not in their order, or some are unknown: {raw.hex()}"
            )
        for name in SECONDS:
            if getattr(message, name, 0):
                setattr(message, name, 0.5)
        for part in (message, *getattr(message, "sessions", ()), *getattr(message, "models", ())):
            for name in SINCE:
                if hasattr(part, name):
                    part.ClearField(name)
            for name in ENGINE:
                if getattr(part, name, ""):
                    setattr(part, name, f"<{name}>")
        return f"OK {self._names.fix(message.SerializeToString(deterministic=True)).hex()}"

    def _failure(self, error: Any) -> str:
        details = dict(error.trailing_metadata() or ()).get(DETAILS, b"")
        status = status_pb2.Status.FromString(details)
        info = error_details_pb2.ErrorInfo()
        for detail in status.details:
            if detail.Unpack(info):  # a map's entries have no order on the wire
                detail.value = info.SerializeToString(deterministic=True)
        if len(status.SerializeToString(deterministic=True)) != len(details):
            raise AssertionError(f"the status has unknown fields: {details.hex()}")
        text = error.details() or ""
        if self.numerics:
            text = text.replace(self.numerics, "<numerics>")
            status.message = status.message.replace(self.numerics, "<numerics>")
        fixed = self._names.fix(status.SerializeToString(deterministic=True))
        return f"{error.code().name} {fixed.hex()} {self._names.fix(text.encode()).decode()}"
