"""What a refusal of bad input must look like, and how to make good requests bad."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from cellkeeper_proto.v1 import cellkeeper_pb2 as pb

from .calls import Api, Refused, Result, Way

SAYS_WHAT_CAME_AND_WHAT_WAS_EXPECTED = re.compile(r"^\S+: got .+, expected .+", re.DOTALL)

Edit = Callable[[Any], None]


def check(result: Result, field: str, *words: str, reason: str = "INVALID_FIELD") -> None:
    """Checks that the refusal names `field`, and that its text has all of `words`."""
    assert (result.code, result.reason, result.field) == ("INVALID_ARGUMENT", reason, field), result
    assert SAYS_WHAT_CAME_AND_WHAT_WAS_EXPECTED.match(result.message), result.message
    assert result.message.startswith(field.partition(".")[0].partition("[")[0]), result.message
    for word in words:
        assert word in result.message, result.message


def whole_frame_refusal(api: Api, way: Way, frame: pb.StepFrame) -> Result:
    """Returns why the frame could not be read at all."""
    try:
        results = api.send_frame(way, frame)
    except Refused as refused:
        return refused.result
    raise AssertionError(f"expected the frame to be refused, got {results}")


def put(**fields: Any) -> Edit:
    """Returns an edit that sets these fields of a request."""

    def edit(request: Any) -> None:
        for name, value in fields.items():
            request.ClearField(name)
            if isinstance(value, (list, tuple)):
                getattr(request, name).extend(value)
            else:
                setattr(request, name, value)

    return edit
