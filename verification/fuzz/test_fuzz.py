"""Hostile input in miniature; `python -m verification.fuzz` is the long run."""

from __future__ import annotations

import secrets

import grpc
import pytest
from cellkeeper_proto.kserve import inference_pb2
from cellkeeper_proto.v1 import cellkeeper_pb2 as pb
from cellkeeper_service.rpc.status import DETAILS_KEY
from google.rpc import error_details_pb2, status_pb2

from .bundle_cases import fuzz_bundles
from .import_cases import fuzz_imports
from .run import fuzz
from .verdict import wrong_error, wrong_reply, wrong_status


@pytest.fixture
def seed() -> int:
    drawn = secrets.randbits(32)
    print(f"seed {drawn}")
    return drawn


@pytest.mark.fire
async def test_hostile_calls_get_typed_errors_and_a_canary_does_not_notice(seed: int) -> None:
    figures, violations = await fuzz(4000, seed)
    assert violations == [], figures
    assert figures["canary_steps"] > 0
    assert {"ended", "INVALID_ARGUMENT", "NOT_FOUND"} <= set(figures["codes"]), figures
    assert {"http OK", "http INVALID_ARGUMENT", "http NOT_FOUND", "ws 1008"} <= set(figures["codes"]), figures


def test_hostile_bundles_are_refused_in_one_line(seed: int) -> None:
    figures, violations = fuzz_bundles(1500, seed)
    assert violations == [], figures
    assert set(figures["bundle_verdicts"]) == {"accepted", "refused"}


def test_hostile_files_of_an_import_are_refused_in_one_line(seed: int) -> None:
    figures, violations = fuzz_imports(600, seed)
    assert violations == [], figures
    assert set(figures["import_verdicts"]) == {"accepted", "refused"}


def test_a_status_that_the_client_has_replaced_is_not_the_servers() -> None:
    info = error_details_pb2.ErrorInfo(reason="INVALID_FIELD")
    status = status_pb2.Status()
    status.details.add().Pack(info)
    trailing = grpc.aio.Metadata((DETAILS_KEY, status.SerializeToString()))

    def failed(details: str) -> grpc.aio.AioRpcError:
        return grpc.aio.AioRpcError(grpc.StatusCode.DEADLINE_EXCEEDED, grpc.aio.Metadata(), trailing, details, "")

    assert wrong_status(failed("Stream removed (Deadline Exceeded)")) == ""
    assert "with code 4" in wrong_status(failed("inputs: got 1 value"))


def test_wrong_answers_are_seen() -> None:
    untyped = grpc.aio.AioRpcError(grpc.StatusCode.UNKNOWN, grpc.aio.Metadata(), grpc.aio.Metadata(), "oops", "")
    assert "without ErrorInfo" in wrong_status(untyped)
    assert "with code" in wrong_error(pb.Error(code=13, reason="INVALID_FIELD"))
    assert "which does not exist" in wrong_error(pb.Error(code=3))
    assert "INTERNAL_ERROR" in wrong_error(pb.Error(code=13, reason="INTERNAL_ERROR"))
    assert wrong_error(pb.Error(code=3, reason="INVALID_FIELD")) == ""
    assert "INTERNAL_ERROR" in wrong_reply(inference_pb2.ModelStreamInferResponse(error_message="internal error; the"))
    assert wrong_reply(inference_pb2.ModelStreamInferResponse(error_message="step: got 9")) == ""
