"""The code uses nothing that the oldest Python lacks; `make check-dist` serves with it, which takes minutes."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.contract.release.__main__ import VERSIONS, interpreter
from tests.contract.release.environment import ROOT
from tests.contract.release.standard_library import lacks

FOLDERS = ("bench", "client", "documentation", "examples", "proto", "service", "testing", "tests", "verification")


def test_the_oldest_python_has_what_the_code_uses() -> None:
    python = interpreter(VERSIONS[0])
    if python is None:
        pytest.skip(f"Python {VERSIONS[0]} is not at hand")
    program = ROOT / "tests" / "contract" / "release" / "standard_library.py"
    files = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
    ran = subprocess.run([python, program, *files], capture_output=True, text=True, check=True)
    assert ran.stdout == ""
    assert len(files) > 1000


def test_what_python_lacks_is_found() -> None:
    assert lacks("import logging, os.path\nfrom concurrent import futures\nlogging.Handler, os.path.join") == []
    assert [line for line, _ in lacks("import tomllib2\nimport asyncio.no_such\nfrom typing import no_such")] == [2, 3]
    assert lacks("import json as j\ndef f():\n    return j.no_such") == [
        (3, "j.no_such: module 'json' has no attribute 'no_such'")
    ]
    assert lacks("x = 1\nf(]") == [(2, "closing parenthesis ']' does not match opening parenthesis '('")]
    assert lacks("import logging\nclass A(logging.Handler[int]): ...") == [
        (2, "logging.Handler[int]: cannot be subscripted")
    ]


def test_what_is_not_evaluated_may_be_lacking() -> None:
    assert lacks("import logging\na: logging.Handler[int]\ndef f(x: logging.no_such) -> logging.no_such: ...") == []
    assert lacks("if TYPE_CHECKING:\n    from typing import no_such") == []
    assert lacks("if sys.version_info >= (3, 99):\n    import asyncio\n    asyncio.no_such") == []
    assert lacks("import enum, queue\nclass A(queue.Queue[int]): ...\nenum.Enum['a']") == []
    if sys.version_info >= (3, 11):
        assert lacks("import logging\nclass A(logging.StreamHandler[int]): ...") == []
