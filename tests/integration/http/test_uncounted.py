"""A request that cannot be counted is answered like any other, and its connection stays."""

from __future__ import annotations

import sys
from http.client import HTTPConnection
from pathlib import Path

from testing.server_process import ServerProcess

from .front import TIMEOUT_S, Front, where

SPOILED = """
from cellkeeper_service.metrics import PrometheusMeter

def http_request(*arguments):
    raise ZeroDivisionError("spoiled")

PrometheusMeter.http_request = http_request
from cellkeeper_service.program import main
main()
"""


def test_a_request_that_cannot_be_counted(counting_model: Path) -> None:
    program = (sys.executable, "-c", SPOILED)
    with ServerProcess([counting_model], "memory:", ["--http-listen=127.0.0.1:0"], program=program) as server:
        connection = HTTPConnection(Front(where(server), server).place, timeout=TIMEOUT_S)
        statuses = []
        connection.connect()
        first = connection.sock
        for path in ("/v1/models", "/nowhere", "/v1/models/count"):
            connection.request("GET", path)
            answer = connection.getresponse()
            answer.read()
            statuses.append(answer.status)
            assert connection.sock is first, "the connection was closed after an answer that did not say so"
        connection.close()
        assert statuses == [200, 404, 200]
        server.wait_for("internal error: a metric could not be counted")
        assert server.stop() == 0
