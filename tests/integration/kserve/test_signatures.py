"""What is cached of a request's tensors: never its values or permissions, and only up to a limit."""

from __future__ import annotations

import numpy as np
import pytest
from cellkeeper_service.errors import Reason, Rejection
from cellkeeper_service.rpc.catalog import Catalog, WireLimits
from cellkeeper_service.rpc.kserve import signature
from cellkeeper_service.rpc.kserve.inference import Service, read_infer
from cellkeeper_service.rpc.kserve.tensor_names import TensorNames

from tests.unit.core.made import models, version

from .calls import Array, request

MODELS = models(version())
SPEC = MODELS.default.spec
STATE = f"state.{SPEC.states[0].name}"


def ids(*values: int) -> Array:
    """Returns a chunk of token ids: [1, T]."""
    return np.array([values], np.int32)


@pytest.fixture
def catalog() -> Catalog:
    return Catalog({"m": MODELS}, WireLimits())


@pytest.fixture
def service() -> Service:
    return Service({"m": TensorNames(SPEC, {})}, end_ttl_ms=0)


def test_requests_with_the_same_tensors_share_a_signature_and_nothing_else(catalog: Catalog, service: Service) -> None:
    first = read_infer(request("m", ids(1, 2), 7), catalog, service)
    second = read_infer(request("m", ids(3, 4), "seven", {"step": 2}, identifier="again"), catalog, service)
    assert second.signature is first.signature
    assert np.frombuffer(first.data, np.int32).tolist() == [1, 2]
    assert np.frombuffer(second.data, np.int32).tolist() == [3, 4]
    assert (first.key.session, second.key.session) == ("int64:7", "seven")
    assert (second.identifier, second.sequence.at, first.sequence.at) == ("again", 2, None)


def test_another_shape_datatype_or_output_is_another_signature(catalog: Catalog, service: Service) -> None:
    requests = [
        request("m", ids(1, 2), 7),
        request("m", ids(1), 7),
        request("m", ids(1)[0], 7),
        request("m", ids(1).astype(np.int64), 7),
        request("m", ids(1), 7, outputs=[STATE]),
        request("m", ids(1), 7, outputs=["prediction", STATE]),
        request("m", ids(1), 7, outputs=[STATE, "prediction"]),
    ]
    found = [read_infer(one, catalog, service).signature for one in requests]
    assert len(set(map(id, found))) == len(service.signatures) == len(requests)
    assert [one.steps for one in found[:2]] == [2, 1]
    assert [[output.name for output in one.reply.outputs] for one in found[-2:]] == [
        ["prediction", STATE],
        [STATE, "prediction"],
    ]


def test_who_may_not_read_states_does_not_get_one_that_another_has_asked_for(
    catalog: Catalog, service: Service
) -> None:
    asking = request("m", ids(1), 7, outputs=[STATE])
    read_infer(asking, catalog, service)
    with pytest.raises(Rejection) as refused:
        read_infer(asking, catalog.of("other", shows_state=False), service)
    assert refused.value.reason is Reason.PERMISSION_DENIED


def test_values_are_looked_at_in_every_request(catalog: Catalog, service: Service) -> None:
    read_infer(request("m", ids(1), 7), catalog, service)
    with pytest.raises(Rejection, match=r"inputs: got token id -1 at time step 0"):
        read_infer(request("m", ids(-1), 7), catalog, service)
    short = request("m", ids(1), 7)
    short.raw_input_contents[0] = b"123"
    with pytest.raises(Rejection, match=r"input byte size mismatch for input 'input' .* Expected 4, got 3"):
        read_infer(short, catalog, service)
    twice = request("m", ids(1), 7)
    twice.raw_input_contents.append(b"1234")
    with pytest.raises(Rejection, match=r"raw_input_contents: got 2 entries, expected one for each input: 1"):
        read_infer(twice, catalog, service)


def test_a_model_that_was_replaced_is_asked_anew(catalog: Catalog, service: Service) -> None:
    before = read_infer(request("m", ids(1), 7), catalog, service).signature
    others = models(version())
    after = read_infer(request("m", ids(1), 7), Catalog({"m": others}, catalog.limits), service).signature
    assert before.spec is SPEC
    assert after.spec is others.default.spec
    assert len(service.signatures) == 1


def test_few_are_kept(catalog: Catalog, service: Service) -> None:
    for steps in range(1, signature.MOST_KEPT + 3):
        read_infer(request("m", np.ones((1, steps), np.int32), 7), catalog, service)
    assert len(service.signatures) == signature.MOST_KEPT
    first = read_infer(request("m", ids(1), 7), catalog, service).signature  # it was evicted for the last ones
    assert read_infer(request("m", ids(1), 7), catalog, service).signature is first


def test_what_would_take_much_room_or_never_comes_again_is_not_kept(catalog: Catalog, service: Service) -> None:
    long = request("m", ids(1), 7)
    long.inputs[0].parameters["note"].string_param = "x" * signature.MAX_KEY_BYTES
    typed = request("m", ids(1), 7)
    typed.ClearField("raw_input_contents")
    typed.inputs[0].contents.int_contents.append(5)
    for one in (long, typed):
        assert read_infer(one, catalog, service).signature.steps == 1
    assert len(service.signatures) == 0
