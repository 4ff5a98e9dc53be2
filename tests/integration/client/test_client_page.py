"""docs/client.md: its program runs, and prints what its comments say; its table has every argument of a client."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

import pytest
from cellkeeper import AsyncClient, Client

from testing.bundles import counting_bundle
from testing.page import python_blocks
from testing.server_process import ServerProcess

PAGE = Path(__file__).parents[3] / "docs" / "client.md"


def test_its_program(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    program = "\n".join(python_blocks(PAGE))
    bundle = counting_bundle(tmp_path / "count", features=2, feature_names=["flow", "pressure"])
    with ServerProcess([bundle], "memory:") as server:
        assert program.count("localhost:50051") == 1
        exec(program.replace("localhost:50051", server.target), {})
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == said(program, "print(session)")
    assert printed[1:4] == ["[ 2.4 10.1]", "[ 2.9 13.1]", "[ 3.4 17.1]"]
    assert re.sub(r"idle [\d.]+", "idle 0.0", printed[4]) == said(program, "print(info)")
    assert printed[5] == said(program, "print(done, done.failures)")
    assert len(printed) == 6


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_its_table_has_every_argument_with_its_default(kind: type) -> None:
    section = PAGE.read_text().partition("## Arguments of `Client` and `AsyncClient`\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| `([^`]+)` \| [^|]+ \|$", section, re.MULTILINE)
    written = [(name, ast.literal_eval(default)) for name, default in rows]
    parameters = inspect.signature(kind).parameters.values()
    assert written == [(parameter.name, parameter.default) for parameter in parameters]


def said(program: str, call: str) -> str:
    """The comment behind the call."""
    (comment,) = re.findall(re.escape(call) + r"  # (.*)", program)
    return str(comment)
