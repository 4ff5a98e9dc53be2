"""The program in docs/client.md runs, and prints what its comments say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from testing.bundles import counting_bundle
from testing.forked_server import ForkedServer
from testing.page import python_blocks

PAGE = Path(__file__).parents[3] / "docs" / "client.md"


def test_its_program(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    program = "\n".join(python_blocks(PAGE))
    bundle = counting_bundle(tmp_path / "count", features=2, feature_names=["flow", "pressure"])
    with ForkedServer([bundle], "memory:") as server:
        assert program.count("localhost:50051") == 1
        exec(program.replace("localhost:50051", server.target), {})
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == said(program, "print(session)")
    assert printed[1:4] == ["[ 2.4 10.1]", "[ 2.9 13.1]", "[ 3.4 17.1]"]
    assert re.sub(r"idle [\d.]+", "idle 0.0", printed[4]) == said(program, "print(info)")
    assert printed[5] == said(program, "print(done, done.failures)")
    assert len(printed) == 6


def said(program: str, call: str) -> str:
    """Returns the comment after the call."""
    (comment,) = re.findall(re.escape(call) + r"  # (.*)", program)
    return str(comment)
