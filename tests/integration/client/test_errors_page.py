"""docs/errors.md lists every error, and its program works."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import cellkeeper
from cellkeeper import CellkeeperError, Client, LateStep

from .conftest import ServerThread

PAGE = (Path(__file__).parents[3] / "docs" / "errors.md").read_text()


def test_every_public_error_has_a_row() -> None:
    rows = re.findall(r"^\| `(\w+)` \| [^|]+ \| [^|]+ \| [^|]+ \|$", PAGE.partition("## Every error")[2], re.MULTILINE)
    public = {name for name in cellkeeper.__all__ if _is_error(getattr(cellkeeper, name))}
    assert len(public) > 20
    assert sorted(rows) == sorted(public)


def test_every_attribute_of_an_error_has_a_row() -> None:
    rows = re.findall(r"^\| `(\w+)` \| [^|]+ \|$", PAGE.partition("## A step")[0], re.MULTILINE)
    assert set(rows) == set(vars(CellkeeperError("")))


def test_the_loop_of_the_page(threaded: ServerThread) -> None:
    """Runs against a server that stalls for its second and third sample."""

    async def gate(opened: bool) -> None:
        (threaded.server.gate.set if opened else threaded.server.gate.clear)()

    program = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert program is not None
    pending: list[LateStep] = []
    skipped: list[list[float]] = []
    used: list[list[float]] = []

    def every_tenth_of_a_second() -> Iterator[list[float]]:
        for number in range(6):
            if number in (1, 3):
                threaded.do(gate(number == 3))
            yield [float(1 << number), 0.0]

    names = {
        "every_tenth_of_a_second": every_tenth_of_a_second,
        "skipped": skipped.append,
        "pending": lambda sample, late: pending.append(late),
        "use": lambda output: used.append(output.tolist()),
    }
    exec(program[1].replace("localhost:50051", threaded.target).replace("timeout=0.08", "timeout=0.5"), names)
    assert [late.applied for late in pending] == [True]
    assert skipped == [[4.0, 0.0]]
    assert used == [[1, 0], [11, 0], [27, 0], [59, 0]]
    with Client(threaded.target) as client:
        assert client.session("pump-17").state()["h"].tolist() == [[59, 0]]


def _is_error(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, CellkeeperError)
