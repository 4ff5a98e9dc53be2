"""Every error that the client raises itself has the reason that the service gives for the same fault."""

from __future__ import annotations

import ast
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import cellkeeper
import numpy as np
import pytest
from cellkeeper import AsyncClient, InvalidArgument, errors
from cellkeeper._transport.wire import error_of
from cellkeeper_proto.v1 import cellkeeper_pb2 as pb

FOLDER = Path(cellkeeper.__file__).parent
KINDS = {name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, Exception)}
NO_FAULT_OF_A_REQUEST = {"Closed", "ForkedProcess", "GroupError", "WrongEventLoop", "WrongThread"}
"""The service has no reason for these: they are about the caller's process, or hold other errors."""
REFUSED_ON_THE_WAY = {"ResourceExhausted", "AccessDenied"}
"""What gRPC, a WebSocket or a proxy refuses before the service sees it has no reason, as docs/errors.md says: a message
that is too large, and a handshake whose token a proxy does not accept."""


def without_reason(source: str) -> Iterator[tuple[int, str]]:
    """Yields the line and class of each error that the source makes without a reason."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
            continue
        name = node.func.id
        reasons = [keyword.value for keyword in node.keywords if keyword.arg == "reason"]
        lacks = not reasons or (isinstance(reasons[0], ast.Constant) and reasons[0].value not in errors.BY_REASON)
        if lacks and name in KINDS - NO_FAULT_OF_A_REQUEST - REFUSED_ON_THE_WAY:
            yield node.lineno, name


@pytest.mark.parametrize("path", sorted(FOLDER.rglob("*.py")), ids=lambda path: str(path.relative_to(FOLDER)))
def test_every_error_is_made_with_a_reason(path: Path) -> None:
    assert list(without_reason(path.read_text())) == []


def test_errors_without_one_are_found() -> None:
    source = 'raise InvalidArgument("x", field="x")\nraise StepGap("x", reason="GAP")\nraise Closed("x")\n'
    assert list(without_reason(source)) == [(1, "InvalidArgument"), (2, "StepGap")]
    assert list(without_reason('raise InvalidArgument("x", reason="INVALID_FIELD")')) == []


NAN = float("nan")
RAW = np.array([[NAN, 1.0]], "<f4").tobytes()
STATE = pb.Tensor(name="h", dtype=pb.FLOAT32, shape=[1, 2], data=RAW)


def step(session: str) -> Any:
    return pb.StepRequest(model="count", session=session, dtype=pb.FLOAT32, shape=[1, 2], inputs=RAW)


def set_state(session: str) -> Any:
    return pb.SetStateRequest(
        model="count",
        items=[
            pb.SetStateRequest.Item(
                session=session, generation=bytes(range(16)), request_id=bytes(range(16)), state=[STATE]
            )
        ],
    )


def open_twice(session: str) -> Any:
    item = pb.OpenManyRequest.Item(session=session, request_id=bytes(range(16)))
    return pb.OpenManyRequest(model="count", items=[item, item])


def delete(session: str) -> Any:
    return pb.DeleteRequest(model="count", items=[pb.DeleteRequest.Item(session="", generation=bytes(range(16)))])


SAME: list[tuple[str, Callable[[AsyncClient], Awaitable[object]], str, Callable[[str], Any]]] = [
    ("NON_FINITE_INPUT", lambda client: stepped(client, [NAN, 1.0]), "Step", step),
    ("NON_FINITE_INPUT", lambda client: restored(client, [[NAN, 1.0]]), "SetState", set_state),
    ("DUPLICATE_SESSION", lambda client: client.group(["a", "a"], model="count"), "OpenMany", open_twice),
    ("INVALID_FIELD", lambda client: client.delete("", bytes(16)), "Delete", delete),
]


async def stepped(client: AsyncClient, x: Any) -> None:
    await (await client.session("reasons", model="count")).step(x)


async def restored(client: AsyncClient, state: Any) -> None:
    await (await client.session("reasons", model="count")).set_state({"h": state})


@pytest.mark.parametrize(("reason", "call", "method", "request_of"), SAME, ids=[method for _, _, method, _ in SAME])
async def test_client_and_service_give_the_same_reason(
    real_target: str,
    reason: str,
    call: Callable[[AsyncClient], Awaitable[object]],
    method: str,
    request_of: Callable[[str], Any],
) -> None:
    async with AsyncClient(real_target) as client:
        with pytest.raises(InvalidArgument) as here:
            await call(client)

        def read(answer: Any) -> None:
            found = [error_of(result.error) for result in answer.results if result.HasField("error")]
            if found:
                raise found[0]

        with pytest.raises(InvalidArgument) as there:
            await client._call(method, request_of("reasons-raw"), "reasons-raw", 20.0, read)
        assert here.value.reason == there.value.reason == reason
