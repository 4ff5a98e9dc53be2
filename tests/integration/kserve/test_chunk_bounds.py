"""A chunk must fit into a session's log, in the model's dtype, whatever the message's dtype."""

from __future__ import annotations

import numpy as np
import pytest
from cellkeeper_service.core.limits import Limits
from cellkeeper_service.errors import Rejection
from cellkeeper_service.rpc.catalog import Catalog, WireLimits
from cellkeeper_service.rpc.kserve.inference import Service, read_infer
from cellkeeper_service.rpc.kserve.tensor_names import TensorNames

from tests.unit.core.made import models, version

from .calls import START, request

MODELS = models(version())
SPEC = MODELS.default.spec


def test_bools_are_counted_in_the_models_dtype() -> None:
    catalog = Catalog({"m": MODELS}, WireLimits(session=Limits(max_log_bytes=4 * SPEC.step_bytes)))
    service = Service({"m": TensorNames(SPEC, {})}, end_ttl_ms=0)
    ones = np.ones((1, 5), np.bool_)
    fitting = read_infer(request("m", ones[:, :4], 7, START), catalog, service)
    assert len(fitting.data) == catalog.limits.session.max_log_bytes
    with pytest.raises(Rejection, match=r"inputs\.shape: got T = 5, expected 1 to 4 time steps in one chunk"):
        read_infer(request("m", ones, 7, START), catalog, service)
