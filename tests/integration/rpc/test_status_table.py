"""Reasons and codes: the table is total, and the same on both sides of the wire."""

from __future__ import annotations

import grpc
import pytest
from cellkeeper_proto.v1 import cellkeeper_pb2 as pb
from cellkeeper_service.domain.position import first_position
from cellkeeper_service.errors import Reason, Rejection
from cellkeeper_service.rpc.status import CODES, to_error, to_status
from google.rpc import code_pb2, error_details_pb2

EXPECTED = {
    "INVALID_ARGUMENT": {"INVALID_FIELD", "NON_FINITE_INPUT", "NON_FINITE_RESULT", "DUPLICATE_SESSION"},
    "NOT_FOUND": {"SESSION_NOT_FOUND", "MODEL_NOT_FOUND"},
    "ALREADY_EXISTS": {"SESSION_EXISTS"},
    "FAILED_PRECONDITION": {"GENERATION_CHANGED", "MODEL_CHANGED", "NUMERICS_CHANGED", "STEP_GAP"},
    "ABORTED": {"OUTCOME_UNKNOWN", "HISTORY_CHANGED", "STEP_CONFLICT", "COMMIT_CONFLICT"},
    "OUT_OF_RANGE": {"STEP_COMPACTED"},
    "RESOURCE_EXHAUSTED": {"QUEUE_FULL", "REPLY_TOO_LARGE", "ACK_BEHIND", "QUOTA_EXCEEDED"},
    "UNAVAILABLE": {"STORE_UNAVAILABLE", "DRAINING"},
    "DEADLINE_EXCEEDED": {"DEADLINE_PASSED"},
    "CANCELLED": {"CALLER_GONE"},
    "UNAUTHENTICATED": {"UNAUTHENTICATED"},
    "PERMISSION_DENIED": {"PERMISSION_DENIED"},
    "INTERNAL": {"INTERNAL_ERROR"},
    "DATA_LOSS": {"DATA_LOSS"},
}


def test_every_reason_has_the_code_that_the_contract_says() -> None:
    assert {code: {reason.name for reason in CODES if CODES[reason].name == code} for code in EXPECTED} == EXPECTED
    assert set(CODES) == set(Reason)


def test_the_wires_reasons_are_the_services_reasons() -> None:
    assert set(pb.Reason.keys()) - {"REASON_UNSPECIFIED"} == {reason.name for reason in Reason}


def test_a_reasons_value_is_its_name_in_lower_case() -> None:
    assert all(reason.value == reason.name.lower() for reason in Reason)


@pytest.mark.parametrize("reason", Reason, ids=lambda reason: reason.name)
def test_both_forms_on_the_wire_say_the_same(reason: Reason) -> None:
    position = first_position(bytes(range(16)), 5)
    rejection = Rejection(reason, "text", field="some.field", position=position, retry_delay_ms=1500)
    error, status = to_error(rejection), to_status(rejection)
    assert error.code == status.code == getattr(grpc.StatusCode, code_pb2.Code.Name(error.code)).value[0]
    assert error.message == status.message == "text"
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    assert status.details[0].Unpack(info)
    assert status.details[1].Unpack(retry)
    assert (info.reason, info.domain) == (pb.Reason.Name(error.reason), "cellkeeper") == (reason.name, "cellkeeper")
    assert info.metadata == {
        "field": error.field,
        "generation": error.position.generation.hex(),
        "step": str(error.position.step),
        "head": error.position.head.hex(),
    }
    assert retry.retry_delay.ToMilliseconds() == error.retry_delay_ms == 1500


def test_what_is_not_known_is_not_there() -> None:
    rejection = Rejection(Reason.INTERNAL_ERROR, "text")
    error, status = to_error(rejection), to_status(rejection)
    assert not error.HasField("position")
    assert len(status.details) == 1
    info = error_details_pb2.ErrorInfo()
    status.details[0].Unpack(info)
    assert not info.metadata


@pytest.mark.parametrize("delay_ms", [2**32 - 1, 2**32, 10**13])
def test_a_delay_is_at_most_what_the_field_can_hold(delay_ms: int) -> None:
    """A tenant may owe so many time steps that its quota allows them in years only."""
    rejection = Rejection(Reason.QUOTA_EXCEEDED, "text", retry_delay_ms=delay_ms)
    retry = error_details_pb2.RetryInfo()
    assert to_status(rejection).details[1].Unpack(retry)
    assert to_error(rejection).retry_delay_ms == retry.retry_delay.ToMilliseconds() == 2**32 - 1
