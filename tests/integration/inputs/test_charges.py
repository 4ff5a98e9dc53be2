"""A chunk of several inputs is charged for its time steps, however its message states their number."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from cellkeeper_proto.kserve import inference_pb2 as kserve
from cellkeeper_proto.v1 import cellkeeper_pb2 as pb
from cellkeeper_service.core.models import Models, Version
from cellkeeper_service.engine.load import load_engine
from cellkeeper_service.rpc.catalog import Catalog, WireLimits
from cellkeeper_service.rpc.charges import charge_of

from testing.two_inputs import random_steps

from .test_kserve import request
from .test_wire import tensors

STEPS = 5


@pytest.fixture(scope="module")
def catalog(two_inputs: Path) -> Catalog:
    version = Version(load_engine(two_inputs, max_batch=1), 1, 1)
    return Catalog({"two": Models([version])}, WireLimits(max_chunk_steps=64))


def test_named_inputs_are_charged_by_their_time_steps(catalog: Catalog) -> None:
    inputs = tensors(random_steps(STEPS))
    chunk = pb.StepRequest(model="two", session="a", named_inputs=inputs, rollout_steps=2)
    assert charge_of(chunk, catalog).steps == STEPS + 2
    window = pb.CarryOverRequest.Item(session="a", named_inputs=inputs)
    assert charge_of(pb.CarryOverRequest(model="two", items=[window, window]), catalog).steps == 2 * STEPS
    chunk.named_inputs[1].shape[0] = 10**6  # refused when it is read
    assert charge_of(chunk, catalog).steps == 64 + 2


@pytest.mark.parametrize("shortest", [False, True])
def test_tensors_by_name_are_charged_by_their_time_steps(catalog: Catalog, shortest: bool) -> None:
    inputs = {name: values[None] for name, values in random_steps(STEPS).items()}
    message: kserve.ModelInferRequest = request("a", dict(sorted(inputs.items(), reverse=shortest)), {})
    assert charge_of(message, catalog).steps == STEPS
    single = {name: np.ascontiguousarray(values[:, 0]) for name, values in inputs.items()}
    assert charge_of(request("a", single, {}), catalog).steps == 1
