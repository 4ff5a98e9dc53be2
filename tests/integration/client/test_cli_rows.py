"""Rows of files as time steps: accepted if their meaning is certain, otherwise refused with line and column."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from cellkeeper import Client
from cellkeeper.__main__ import main

from testing.bundles import counting_bundle, token_bundle
from testing.forked_server import ForkedServer

FILLED = 1000.0  # replaces a missing value in the model "gaps"


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of several models.

    one, two, three: so many features, none missing. named: flow and heat. gaps: two features, NaN is 1000. words: ids
    below 10.
    """
    folder = tmp_path_factory.mktemp("rows")
    filling = {"kind": "features", "missing": {"policy": "constant", "value": FILLED}}
    bundles = [
        counting_bundle(folder / "one", name="one", features=1),
        counting_bundle(folder / "two", name="two", features=2),
        counting_bundle(folder / "three", name="three", features=3),
        counting_bundle(folder / "named", name="named", features=2, feature_names=["flow", "heat"]),
        counting_bundle(folder / "gaps", name="gaps", features=2, input=filling),
        token_bundle(folder, "words"),
    ]
    with ForkedServer(bundles, "memory:") as server:
        yield server.target


class Stream:
    """Runs `cellkeeper stream` on a file, and reads what the session consumed."""

    def __init__(self, target: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.target = target
        self.session = uuid.uuid4().hex
        self._path = folder / "rows"
        self._capsys = capsys

    def run(self, model: str, kind: str, data: str | bytes, *options: str) -> tuple[int, str, str]:
        self._path.write_bytes(data if isinstance(data, bytes) else data.encode())
        arguments = ["stream", model, "--session", self.session, f"--{kind}", str(self._path), "--format", "jsonl"]
        code = main([*arguments, "--endpoint", self.target, *options])
        said = self._capsys.readouterr()
        return code, said.out, said.err

    def consumed(self, model: str, kind: str, data: str | bytes, *options: str) -> list[list[float]]:
        """Returns the consumed rows: the differences of the counting model's sums."""
        code, out, err = self.run(model, kind, data, *options)
        assert (code, err) == (0, "")
        sums = [json.loads(line)["prediction"] for line in out.splitlines()]
        before = [[0.0] * len(sums[0]), *sums] if sums else []
        return [[b - a for a, b in zip(*pair, strict=True)] for pair in zip(before, sums, strict=False)]

    def refused(self, model: str, kind: str, data: str | bytes, *options: str) -> tuple[str, int]:
        """Returns the error message and how many predictions preceded it, which is the session's number of steps."""
        code, out, err = self.run(model, kind, data, *options)
        assert code == 1
        assert err.startswith("cellkeeper: ")
        assert len(err.splitlines()) == 1
        with Client(self.target) as client:
            assert client.session(self.session, model=model).position.step == len(out.splitlines())
        return err, len(out.splitlines())


@pytest.fixture
def stream(target: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Stream:
    return Stream(target, tmp_path, capsys)


TWO: list[list[float]] = [[1, 2.5], [3, 4]]

CSV_TAKEN: dict[str, tuple[str, str | bytes, list[str], list[list[float]]]] = {
    "numbers with a point": ("two", "1.0,2.5\n3,4\n", [], TWO),
    "an exponent": ("two", "1e0,2.5e0\n3.,4\n", [], TWO),
    "a sign": ("two", "+1,2.5\n3,4\n", [], TWO),
    "whole numbers, two of them equal": ("three", "1,1,2\n3,4,5\n", [], [[1, 1, 2], [3, 4, 5]]),
    "numbers in no order": ("three", "1.5,1,2\n3,4,5\n", [], [[1.5, 1, 2], [3, 4, 5]]),
    "whole numbers that are said to be no header": ("three", "0,1,2\n3,4,5\n", ["no"], [[0, 1, 2], [3, 4, 5]]),
    "whole numbers that are said to be a header": ("three", "0,1,2\n3,4,5\n", ["yes"], [[3, 4, 5]]),
    "names": ("two", "a,b\n1,2.5\n3,4\n", [], TWO),
    "names of the features, in another order": ("named", "heat,flow\n2.5,1\n4,3\n", [], TWO),
    "columns are chosen, whatever the features are called": ("named", "a,b\n1,2.5\n3,4\n", ["--columns", "a,b"], TWO),
    "no names, for features that have some": ("named", "1.0,2.5\n3,4\n", [], TWO),
    "names of all kinds": ("two", "_x,Überdruck (bar)\n1,2.5\n3,4\n", [], TWO),
    "names that look like numbers, and are said to be names": ("two", "1e5,2024\n1,2.5\n3,4\n", ["yes"], TWO),
    "names that are no words, and are said to be names": ("two", "-,%\n1,2.5\n3,4\n", ["yes"], TWO),
    "an index of pandas": ("two", ",a,b\n0,1,2.5\n1,3,4\n", ["--columns", "a,b"], TWO),
    "columns by number, of a header": ("two", "t,a,b\n0,1,2.5\n1,3,4\n", ["--columns", "1,2"], TWO),
    "columns by number, of none": ("two", "0.,1,2.5\n1,3,4\n", ["--columns", "1,2"], TWO),
    "columns by name, in another order": ("two", "b,t,a\n2.5,0,1\n4,1,3\n", ["--columns", "a,b"], TWO),
    "columns by name say that there is a header": ("two", "t,1,a,2\nx,9,1,2.5\ny,9,3,4\n", ["--columns", "a,3"], TWO),
    "columns that are numbered": ("two", "0,1\n1,2.5\n3,4\n", ["yes", "--columns", "0,1"], TWO),
    "a byte order mark before numbers": ("two", b"\xef\xbb\xbf1.0,2.5\n3,4\n", [], TWO),
    "a byte order mark before names": ("two", b"\xef\xbb\xbfa,b\n1,2.5\n3,4\n", ["--columns", "a,b"], TWO),
    "a byte order mark before quotes": ("two", b'\xef\xbb\xbf"1.0","2.5"\n3,4\n', [], TWO),
    "line ends of Windows": ("two", "1.0,2.5\r\n3,4\r\n", [], TWO),
    "line ends of old": ("two", "1.0,2.5\r3,4\r", [], TWO),
    "no last line end": ("two", "1.0,2.5\n3,4", [], TWO),
    "spaces": ("two", " 1.0 ,\t2.5\n3 , 4\n", [], TWO),
    "quoted numbers": ("two", '"1.0","2.5"\n"3",4\n', [], TWO),
    "quoted names": ("two", '"a, b","c"\n1,2.5\n3,4\n', [], TWO),
    "empty lines at the end": ("two", "1.0,2.5\n3,4\n\n  \n\r\n", [], TWO),
    "nothing": ("two", "", [], []),
    "only names": ("two", "a,b\n", [], []),
    "a single column": ("one", "316.00\n316.02\n", [], [[316], [316.02]]),
    "missing values": (
        "gaps",
        "1.5,2\n,NA\nnan,3\n4,null\n N/A ,None\n",
        [],
        [[1.5, 2], [FILLED, FILLED], [FILLED, 3], [4, FILLED], [FILLED, FILLED]],
    ),
    "missing values in the first row": ("gaps", "1.5,NA\n3,4\n", [], [[1.5, FILLED], [3, 4]]),
    "only missing values, that are said to be a time step": ("gaps", "NA,\n", ["no"], [[FILLED, FILLED]]),
}

CSV_REFUSED: dict[str, tuple[str, str | bytes, list[str], int, list[str]]] = {
    "columns that are no features": (
        "named",
        "flow,head\n1,2\n",
        [],
        0,
        [
            "line 1: got other columns (missing: 'heat'; unknown: 'head'), expected 'flow', 'heat' in any order",
            "select columns with --columns",
        ],
    ),
    "numbers from 0": ("three", "0,1,2\n3,4,5\n", [], 0, ["line 1: got '0,1,2'", "--header yes", "--header no"]),
    "years": ("three", "2019,2020,2021\n3,4,5\n", [], 0, ["line 1: got '2019,2020,2021'", "--header"]),
    "an axis": ("three", "400.0,400.5,401.0\n3,4,5\n", [], 0, ["line 1: got '400.0,400.5,401.0'", "--header"]),
    "one whole number": ("one", "5\n6\n", [], 0, ["line 1: got '5'", "--header"]),
    "only NA": ("gaps", "NA,NA\n1,2\n", [], 0, ["line 1: got 'NA,NA'", "--header"]),
    "only empty fields": ("gaps", ",\n1,2\n", [], 0, ["line 1: got ','", "--header"]),
    "one quoted nothing": ("one", '""\n1\n', [], 0, ["line 1: got ''", "--header"]),
    "whole numbers and NA": ("gaps", "1,NA\n1,2\n", [], 0, ["line 1: got '1,NA'", "--header"]),
    "a name and a number": ("two", "pump,1.5\n1,2\n", [], 0, ["line 1, column 1: got 'pump'", "--header"]),
    "a name and NA": ("gaps", "pump,NA\n1,2\n", [], 0, ["line 1, column 1: got 'pump'", "--header"]),
    "a time and a number": ("two", "2024-01-01,1.5\n1,2\n", [], 0, ["line 1, column 1: got '2024-01-01'", "--header"]),
    "a dash in the first row": ("two", "1.5,-\n1,2\n", [], 0, ["line 1, column 2: got '-'", "--header"]),
    "a dash in a time step": ("two", "1.5,-\n1,2\n", ["no"], 0, ["line 1, column 2: got '-'", "expected a finite"]),
    "a dash later": ("two", "1.5,2\n1,-\n", [], 1, ["line 2, column 2: got '-'"]),
    "a quoted decimal comma": ("two", '"1,5","2,5"\n', [], 0, ["line 1, column 1: got '1,5'", "decimal point"]),
    "a decimal comma": ("two", "1,5,2,5\n", [], 0, ["line 1: inputs: got shape [4] (1, 5, 2, 5), expected [2]"]),
    "semicolons and decimal commas": (
        "three",
        "1,5;2,5\n",
        [],
        0,
        ["line 1, column 2: got '5;2'", "separated by commas"],
    ),
    "semicolons": (
        "two",
        "1.5;2\n",
        [],
        0,
        ["line 1: inputs: got shape [1] (1.5;2)", "separate the fields of CSV with commas"],
    ),
    "semicolons, of a header": ("one", "a;b\n1.5;2\n", [], 0, ["line 2, column 1 ('a;b'): got '1.5;2'"]),
    "tabs": ("two", "1.5\t2\n", [], 0, ["line 1: inputs: got shape [1]", "separate the fields of CSV with commas"]),
    "tabs, with one feature": ("one", "1.5\t2\n", [], 0, ["line 1, column 1: got '1.5\\t2'"]),
    "an underscore": ("two", "1_5,2.5\n", [], 0, ["line 1, column 1: got '1_5'"]),
    "an underscore later": ("two", "a,b\n1.5,2\n1,1_5\n", [], 1, ["line 3, column 2 ('b'): got '1_5'"]),
    "digits of other scripts": ("two", "1.5,2\n1,２\n", [], 1, ["line 2, column 2: got '２'"]),
    "hexadecimal": ("two", "1.5,2\n1,0x10\n", [], 1, ["line 2, column 2: got '0x10'"]),
    "a unit": ("two", "1.5V,2\n", [], 0, ["line 1, column 1: got '1.5V'"]),
    "thousands": ("two", '1.5,2\n1,"1,000"\n', [], 1, ["line 2, column 2: got '1,000'"]),
    "a space within": ("two", "1.5,2\n1,1 000\n", [], 1, ["line 2, column 2: got '1 000'"]),
    "infinity": ("gaps", "1.5,2\n1,inf\n", [], 1, ["line 2, column 2: got 'inf', expected a finite number"]),
    "infinity in the first row": ("two", "-inf,2.5\n", [], 0, ["line 1, column 1: got '-inf'"]),
    "infinity as a name": ("two", "inf,infinity\n1,2\n", [], 0, ["line 1, column 1: got 'inf'", "--header"]),
    "beyond float32": (
        "gaps",
        "1.5,2\n1e39,2\n",
        [],
        1,
        ["line 2, column 1: got 1e+39, expected a finite float32 number"],
    ),
    "beyond float64": ("gaps", "1.5,2\n1e400,2\n", [], 1, ["line 2, column 1: got inf"]),
    "NaN where none is missing": ("two", "a,b\n1,2\n3,nan\n", [], 1, ["line 3, column 2 ('b'): got a missing value"]),
    "nothing where none is missing": ("two", "a,b\n1,2\n,3\n", [], 1, ["line 3, column 1 ('a'): got a missing value"]),
    "too few fields": ("two", "1.5,2\n3\n", [], 1, ["line 2: got 1 fields, expected 2 as in line 1"]),
    "too many fields": ("two", "a,b\n1.5,2\n3,4,5\n", [], 1, ["line 3: got 3 fields, expected 2 as in line 1"]),
    "fields beyond those taken": ("one", "1.5,2\n3,4,5\n", ["--columns", "0"], 1, ["line 2: got 3 fields"]),
    "an empty line within": ("two", "1.5,2\n\n3,4\n", [], 1, ["line 2: empty, but rows follow"]),
    "an empty line within a single column": ("one", "1.5\n \n3\n", [], 1, ["line 2: empty, but rows follow"]),
    "an empty line before": ("two", "\n1.5,2\n", [], 0, ["line 1: empty, but rows follow"]),
    "a quote that does not end": ("two", '1.5,2\n"3,4\n5,6\n', [], 1, ["line 3: unexpected end of data"]),
    "text behind a quote": ("two", '1.5,2\n"3"x,4\n', [], 1, ["line 2: ',' expected after '\"'"]),
    "a field that is too long": ("two", "1.5," + "1" * 140_000 + "\n", [], 0, ["line 1: field larger than"]),
    "another encoding": ("two", "a,b\n1,2\n".encode("utf-16"), [], 0, ["after line 0: not UTF-8"]),
    "latin 1": ("two", b"a,b\n1,2\n3,4\xb0\n", [], 0, ["not UTF-8"]),
    "too many columns": ("two", "t,a,b\n0,1,2\n", [], 0, ["line 1: inputs: got shape [3] (t, a, b), expected [2]"]),
    "too few columns": ("two", "t,a,b\n0,1,2\n", ["--columns", "a"], 0, ["line 1: inputs: got shape [1]"]),
    "a name that is not there": ("one", "a,b\n1,2\n", ["--columns", "c"], 0, ["--columns: got 'c'", "['a', 'b']"]),
    "a name that is there twice": ("one", "a,a\n1,2\n", ["--columns", "a"], 0, ["--columns: got 'a'", "1 and 2"]),
    "a name that is another's number": ("one", "1,0\n1,2\n", ["yes", "--columns", "0"], 0, ["--columns: got '0'"]),
    "names without a header": ("one", "a,b\n1,2\n", ["no", "--columns", "a"], 0, ["--columns: got a", "no header"]),
    "a number too high": ("one", "1.5,2\n", ["--columns", "2"], 0, ["--columns: got '2', expected one of [0, 1]"]),
    "an id out of range": ("words", "id\n9\n10\n", [], 1, ["line 3, column 1 ('id'): got 10.0, expected a token id"]),
    "an id below 0": ("words", "id\n9\n-1\n", [], 1, ["line 3, column 1 ('id'): got -1.0, expected a token id"]),
    "an id that is none": ("words", "id\n9\n1.5\n", [], 1, ["line 3, column 1 ('id'): got 1.5, expected a token id"]),
    "an id that is missing": ("words", "id\n9\nnan\n", [], 1, ["line 3, column 1 ('id'): got a missing value"]),
    "an infinite id": ("words", "id\n9\n1e400\n", [], 1, ["line 3, column 1 ('id'): got inf"]),
    "two ids": ("words", "1,2\n", ["no"], 0, ["line 1: inputs: got shape [2] (1, 2), expected one token id"]),
}

JSON_TAKEN: dict[str, tuple[str, str | bytes, list[str], list[list[float]]]] = {
    "keys that are the features, in another order": ("named", '{"heat": 2.5, "flow": 1}\n[3, 4]\n', [], TWO),
    "lists": ("two", "[1, 2.5]\n[3, 4]\n", [], TWO),
    "numbers": ("one", "1\n2.5\n[3]\n", [], [[1], [2.5], [3]]),
    "objects": ("two", '{"a": 1, "b": 2.5}\n{"a": 3, "b": 4}\n', [], TWO),
    "keys in another order": ("two", '{"a": 1, "b": 2.5}\n{"b": 4, "a": 3}\n', [], TWO),
    "keys in the order of --columns": ("two", '{"b": 2.5, "t": 0, "a": 1}\n{"a": 3, "b": 4}\n', ["a,b"], TWO),
    "columns of lists": ("two", "[0, 2.5, 1]\n[0, 4, 3]\n", ["2,1"], TWO),
    "a byte order mark": ("two", b"\xef\xbb\xbf[1, 2.5]\r\n[3, 4]\r\n\r\n", [], TWO),
    "missing values": ("gaps", '{"a": 1, "b": null}\n{"b": NaN, "a": 3}\n', [], [[1, FILLED], [3, FILLED]]),
    "booleans": ("two", "[true, false]\n", [], [[1, 0]]),
    "a whole number of many digits": ("two", "[1, 12345678901234567890]\n", [], [[1, 12345678901234567890]]),
}

JSON_REFUSED: dict[str, tuple[str, str, list[str], int, list[str]]] = {
    "another key": ("two", '{"a": 1, "b": 2}\n{"a": 1, "c": 2}\n', [], 1, ["line 2: no column 'b', expected a, b"]),
    "keys that are no features": (
        "named",
        '{"flow": 1, "head": 2}\n',
        [],
        0,
        [
            "line 1: got other columns (missing: 'heat'; unknown: 'head'), expected 'flow', 'heat' in any order",
            "select columns with --columns",
        ],
    ),
    "a further key": (
        "two",
        '{"a": 1, "b": 2}\n{"c": 0, "a": 1, "b": 2}\n',
        [],
        1,
        ["line 2: column 'c' is not in line 1, which has a, b"],
    ),
    "a key too few": ("two", '{"a": 1, "b": 2}\n{"a": 1}\n', [], 1, ["line 2: no column 'b'"]),
    "a key twice": ("two", '{"a": 1, "b": 2, "a": 3}\n', [], 0, ["line 1: duplicate key 'a'"]),
    "a key that --columns wants": ("one", '{"a": 1}\n{"b": 1}\n', ["a"], 1, ["line 2: no column 'a'"]),
    "names of columns for a list": ("two", "[1, 2]\n", ["a,b"], 0, ["line 1: --columns: got 'a'", "numbers 0..1"]),
    "a text": ("two", '[1, 2]\n[1, "2"]\n', [], 1, ['line 2, column 2: got "2", expected a number, or null']),
    "a text in an object": ("two", '{"a": 1, "b": "nan"}\n', [], 0, ["line 1, column 'b': got \"nan\""]),
    "a list in a list": ("two", "[1, [2]]\n", [], 0, ["line 1, column 2: got a list"]),
    "an object in an object": ("two", '{"a": 1, "b": {}}\n', [], 0, ["line 1, column 'b': got an object"]),
    "too many values": ("two", "[1, 2]\n[1, 2, 3]\n", [], 1, ["line 2: inputs: got shape [3]"]),
    "a missing value": ("two", '{"a": 1, "b": null}\n', [], 0, ["line 1, column 'b': got a missing value"]),
    "infinity": ("gaps", "[1, 2]\n[1, -Infinity]\n", [], 1, ["line 2, column 2: got -inf"]),
    "beyond float64": ("gaps", "[1, 2]\n[1, 1" + "0" * 400 + "]\n", [], 1, ["line 2, column 2: got inf"]),
    "of very many digits": ("gaps", "[1, 2]\n[1, -1" + "0" * 5000 + "]\n", [], 1, ["line 2, column 2: got -inf"]),
    "no JSON": ("two", "[1, 2]\n[1, 2\n", [], 1, ["line 2, character"]),
    "nested too deeply": ("two", "[" * 100_000 + "\n", [], 0, ["line 1:"]),
    "an empty line within": ("two", "[1, 2]\n\n[1, 2]\n", [], 1, ["line 2: empty, but others follow"]),
    "an id that is a boolean": ("words", "1\ntrue\n", [], 1, ["line 2, column 1: got True, expected a token id"]),
}


def with_header(options: list[str]) -> list[str]:
    return ["--header", *options] if options and options[0] in ("yes", "no") else options


@pytest.mark.parametrize("name", CSV_TAKEN)
def test_csv_that_is_certain(stream: Stream, name: str) -> None:
    model, data, options, expected = CSV_TAKEN[name]
    consumed = stream.consumed(model, "csv", data, *with_header(options))
    assert consumed == [pytest.approx(row, rel=1e-5) for row in expected]


@pytest.mark.parametrize("name", CSV_REFUSED)
def test_csv_that_is_not(stream: Stream, name: str) -> None:
    model, data, options, written, words = CSV_REFUSED[name]
    said, predictions = stream.refused(model, "csv", data, *with_header(options))
    for word in words:
        assert word in said
    assert predictions == written


@pytest.mark.parametrize("name", JSON_TAKEN)
def test_json_lines_that_are_certain(stream: Stream, name: str) -> None:
    model, data, columns, expected = JSON_TAKEN[name]
    consumed = stream.consumed(model, "jsonl", data, *(["--columns", *columns] if columns else []))
    assert consumed == [pytest.approx(row, rel=1e-5) for row in expected]


@pytest.mark.parametrize("name", JSON_REFUSED)
def test_json_lines_that_are_not(stream: Stream, name: str) -> None:
    model, data, columns, written, words = JSON_REFUSED[name]
    said, predictions = stream.refused(model, "jsonl", data, *(["--columns", *columns] if columns else []))
    for word in words:
        assert word in said
    assert predictions == written


def test_ids(stream: Stream) -> None:
    code, out, _ = stream.run("words", "csv", "id\n3\n9\n0.0\n")
    assert (code, len(out.splitlines())) == (0, 3)


def test_json_lines_have_no_header(stream: Stream) -> None:
    assert (
        "--header: applies to CSV only; JSON lines have no header"
        in stream.refused("two", "jsonl", "[1, 2]\n", "--header", "no")[0]
    )


def test_predictions_of_the_rows_before_are_written_and_a_resumed_run_says_the_same(stream: Stream) -> None:
    rows = "a,b\n" + "1,1\n" * 40 + "1,x\n"
    for written in (40, 0):
        code, out, err = stream.run("two", "csv", rows, "--window", "8", "--resume")
        assert (code, len(out.splitlines())) == (1, written)
        assert "line 42, column 2 ('b'): got 'x'" in err


def test_a_pipe_of_another_locale(target: str) -> None:
    """Bytes are UTF-8, with or without a byte order mark, whatever the locale."""
    arguments = ["stream", "two", "--session", uuid.uuid4().hex, "--columns", "a,b", "--endpoint", target]
    done = subprocess.run(
        [sys.executable, "-m", "cellkeeper", *arguments],
        input="\ufeffa,b,é\r\n1,2,3\r\n".encode(),
        capture_output=True,
        env={**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "latin-1"},
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.splitlines()[1:] == [b"0,1.0,2.0"]
