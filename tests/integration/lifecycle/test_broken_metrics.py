"""A server whose metrics are broken serves as before."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from testing.server_process import ServerProcess
from tests.integration.http.front import Front, sums
from tests.integration.kserve import calls as kserve
from tests.integration.rpc.calls import WAYS, Api, Chunk, numbers, placed

BROKEN = """
from cellkeeper_service.program import main
from cellkeeper_service.domain.meter import Meter
from cellkeeper_service.metrics import PrometheusMeter

def breaks(self, *given, **more):
    raise ZeroDivisionError("a metric")

for name in vars(Meter):
    if not name.startswith("_"):
        setattr(PrometheusMeter, name, breaks)
main()
"""


def test_everybody_is_answered_as_before(counting_model: Path) -> None:
    program, options = (sys.executable, "-c", BROKEN), ("--kserve", "on")
    with (
        ServerProcess([counting_model], "memory:", options, program=program, http=True) as server,
        server.channel() as channel,
    ):
        api = Api(server.stub(channel))
        for way in WAYS:
            at = api.open(way)
            assert api.send(way, Chunk(way, numbers(1, 2), at)).sums == [1, 3]
            assert api.send(way, Chunk(way, numbers(9), placed(at, numbers(9)))).reason == "HISTORY_CHANGED"
        session = Front(server.http_url, server).session()
        assert sums(session.step([[4]])) == [4]
        assert session.ask("POST", "/step", {}).error["reason"] == "INVALID_FIELD"
        with pytest.raises(kserve.Refused, match="non-zero or non-empty correlation ID"):
            kserve.Api(channel).infer(kserve.numbers(1), 0)
        server.wait_for("a metric could not be counted")
