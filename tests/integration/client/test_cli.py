"""The program, run as a process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from cellkeeper import Client
from cellkeeper.__main__ import main

from testing.forked_program import Ended, run_forked

from .conftest import ServerThread

ROWS = "time,a,b\n" + "".join(f"{row},1,{row}\n" for row in range(10))


def run(target: str, *arguments: str, text: str = "", code: int = 0) -> Ended:
    done = run_forked("cellkeeper", arguments, {**os.environ, "CELLKEEPER_ENDPOINT": target}, 60, text)
    assert done.status == code, done.err
    return done


def test_csv_in_predictions_out(target: str, tmp_path: Path) -> None:
    rows = tmp_path / "rows.csv"
    rows.write_text(ROWS)
    done = run(target, "stream", "count", "--session", "a", "--csv", str(rows), "--columns", "a,b")
    lines = done.out.splitlines()
    assert lines[0] == "step,prediction_0,prediction_1"
    assert lines[1:] == [f"{row},{row + 1}.0,{sum(range(row + 1))}.0" for row in range(10)]
    assert done.err == ""


def test_json_lines_in_and_out(target: str) -> None:
    text = '[1, 1]\n{"a": 1, "b": 2}\n'
    done = run(target, "stream", "--session", "a", "--jsonl", "--chunk-steps", "2", text=text)
    assert [json.loads(line) for line in done.out.splitlines()] == [
        {"step": 0, "prediction": [1.0, 1.0]},
        {"step": 1, "prediction": [2.0, 3.0]},
    ]


def test_a_run_that_broke_off_is_started_again(threaded: ServerThread, tmp_path: Path) -> None:
    rows, out = tmp_path / "rows.csv", tmp_path / "out.csv"
    rows.write_text(ROWS)
    with Client(threaded.target) as client:
        list(client.session("a").stream([[1.0, float(row)] for row in range(4)]))
    arguments = ["stream", "--session", "a", "--csv", str(rows), "--columns", "1,2", "--output", str(out)]
    assert "--from-step" in run(threaded.target, *arguments, "--from-step", "0", code=1).err
    run(threaded.target, *arguments, "--resume")
    assert [line.split(",")[:2] for line in out.read_text().splitlines()[1:]] == [
        [str(row), f"{row + 1}.0"] for row in range(4, 10)
    ]
    run(threaded.target, *arguments, "--resume")
    assert threaded.server.applied_steps == 10
    other = ROWS.replace("2,1,2", "2,1,3")
    failed = run(threaded.target, *arguments[:3], "--csv", "-", "--columns", "a,b", "--resume", text=other, code=1)
    assert "not those that the session consumed" in failed.err
    assert threaded.server.applied_steps == 10


def test_rows_of_a_later_part_are_skipped_unchecked(target: str) -> None:
    """A session's head is made of all of its rows: those from --from-step on do not say what it should be."""
    arguments = ["stream", "--session", "a", "--columns", "1,2", "--header", "yes"]
    run(target, *arguments, text=ROWS)
    run(target, *arguments, "--from-step", "10", text=ROWS)
    again = [*arguments, "--from-step", "10", "--resume"]
    assert "it did not start at --from-step 10" in run(target, *again, text=ROWS, code=1).err
    assert run(target, *again, "--unchecked", text=ROWS + "10,1,10\n").out.splitlines()[1:] == ["20,21.0,100.0"]


def test_predictions_do_not_become_rows(target: str, tmp_path: Path) -> None:
    rows = tmp_path / "rows.csv"
    rows.write_text(ROWS)
    done = run(target, "stream", "--session", "a", "--csv", str(rows), "--output", f"{tmp_path}/./rows.csv", code=1)
    assert "the file that the rows come from" in done.err
    assert rows.read_text() == ROWS


@pytest.mark.parametrize(("ending", "option"), [("csv", "--csv"), ("JSONL", "--jsonl"), ("txt", "--csv")])
@pytest.mark.parametrize("model", [["count"], []], ids=["model", "no model"])
def test_a_file_without_its_option(
    real_target: str, tmp_path: Path, ending: str, option: str, model: list[str]
) -> None:
    file = tmp_path / f"rows.{ending}"
    words = ["stream", *model, "--session", "forgotten", str(file)]
    code = 2 if model else 1
    assert option not in run(real_target, *words, code=code).err  # it may be meant as something else
    file.write_text(ROWS)
    done = run(real_target, *words, code=code)
    assert done.err.splitlines()[-1].endswith(f"; {option} {file} sends the rows of this file")
    run(real_target, "sessions", "show", "forgotten", code=1)


def test_sessions(threaded: ServerThread) -> None:
    with Client(threaded.target) as client:
        client.session("a").step([1.0, 0.0])
        client.session("b")
    listed = [line.split("\t") for line in run(threaded.target, "sessions", "list").out.splitlines()]
    assert listed[0] == ["SESSION", "STEP", "IDLE", "TTL", "STATE", "VERSION"]
    assert [row[:2] for row in listed[1:]] == [["a", "1"], ["b", "0"]]
    shown = json.loads(run(threaded.target, "sessions", "show", "a", "--json").out)
    assert [row[5:] for row in listed[1:]] == [[shown["fingerprint"][:12]]] * 2
    assert run(threaded.target, "model", "list").out.split("\t")[1] == shown["fingerprint"][:12]
    assert shown["step"] == 1
    assert shown["position"] in run(threaded.target, "sessions", "show", "a").out
    run(threaded.target, "sessions", "fork", "a", "c", "--at", shown["position"])
    run(threaded.target, "sessions", "reset", "a")
    assert threaded.server.records["c"].position.step == 1
    assert threaded.server.records["a"].position.step == 0
    run(threaded.target, "sessions", "delete", "a")
    assert "a" not in threaded.server.records


def test_version() -> None:
    assert run("localhost:1", "--version").out == f"cellkeeper {version('cellkeeper')}\n"


def test_models(target: str) -> None:
    assert run(target, "model", "list").out.startswith("count\t")
    assert "input float32 [2]" in run(target, "model", "show").out
    assert json.loads(run(target, "model", "show", "count", "--json").out)["exact"] is True


@pytest.mark.parametrize(
    ("arguments", "text", "says"),
    [
        (["sessions", "show", "nobody"], "", "SessionNotFound"),
        (["sessions", "reset", "nobody"], "", "SessionNotFound"),
        (["model", "show", "other"], "", "InvalidArgument: model"),
        (["stream", "--session", "a", "--csv", "absent.csv"], "", "absent.csv"),
        (["stream", "--session", "a"], "1,2\n3,x\n", "line 2"),
        (["stream", "--session", "a"], "1,2,3\n", "inputs: got shape [3]"),
        (["stream", "--session", "a", "--columns", "c"], "a,b\n1,2\n", "--columns: got 'c'"),
        (["stream", "--session", "a", "--jsonl"], "{\n", "line 1"),
        (["doctor", "localhost:1", "--token-file", "/dev/null"], "", "token: got an empty token"),
        (["doctor", "localhost:1", "--token-file", "absent"], "", "token: cannot read absent"),
        (["doctor", "localhost:1", "--timeout", "nan"], "", "timeout: got nan, expected seconds above 0"),
        (["stream", "--session", "a", "--resume", "--unchecked", "--from-step", "-1"], "1,2\n", "--from-step: got -1"),
    ],
)
def test_failures_are_one_line(target: str, arguments: list[str], text: str, says: str) -> None:
    done = run(target, *arguments, text=text, code=1)
    assert says in done.err
    assert done.err.startswith("cellkeeper: ")
    assert len(done.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("closed", "arguments", "ends"),
    [
        ("<&-", "stream --session a", (1, "", "cellkeeper: [Errno 9] Bad file descriptor\n")),
        (
            "<&-",
            "sessions delete --prefix ''",
            (1, "", "cellkeeper: --yes is required: there is no terminal to ask on\n"),
        ),
        (">&-", "sessions list", (1, "", "cellkeeper: [Errno 9] Bad file descriptor\n")),
        (">&-", "stream --session a --output /dev/null < /dev/null", (0, "", "")),
        (">/dev/full", "sessions list", (1, "", "cellkeeper: [Errno 28] No space left on device\n")),
        (">/dev/full", "--version", (1, "", "cellkeeper: [Errno 28] No space left on device\n")),
        (">/dev/full", "sessions list --help", (1, "", "cellkeeper: [Errno 28] No space left on device\n")),
        ("2>/dev/full", "sessions list --bad", (2, "", "")),
        ("2>&-", "sessions show nobody", (1, "", "")),
        ("<&- >&- 2>&-", "sessions show mine", (1, "", "")),
        ("2>&-", "sessions list", (0, "SESSION\tSTEP\tIDLE\tTTL\tSTATE\tVERSION\n", "")),
    ],
)
@pytest.mark.parametrize("target", ["real"], indirect=True)
def test_streams_that_are_closed(target: str, closed: str, arguments: str, ends: tuple[int, str, str]) -> None:
    """Python has no object for a closed stream, and the next connection would get its number."""
    if "delete" in arguments:
        run(target, "stream", "--session", "a", text="")
    words = f"{sys.executable} -m cellkeeper {arguments} {closed}"
    environment = {**os.environ, "CELLKEEPER_ENDPOINT": target}
    done = subprocess.run(["sh", "-c", words], capture_output=True, text=True, env=environment, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == ends


def test_an_id_ends_no_line_and_commands_no_terminal(threaded: ServerThread) -> None:
    name = "a\nb\t\x1b[31m\u2603"
    with Client(threaded.target) as client:
        client.session(name)
    listed = run(threaded.target, "sessions", "list").out.splitlines()
    assert [line.split("\t")[0] for line in listed[1:]] == ["a\\nb\\t\\x1b[31m\u2603"]
    assert r"a\nb\t\x1b[31m" in run(threaded.target, "sessions", "show", name).out
    assert "\x1b" not in run(threaded.target, "model", "show", "\x1b[31m", code=1).err
    assert json.loads(run(threaded.target, "sessions", "list", "--json").out)["session"] == name


def test_a_terminal_that_lacks_a_character(threaded: ServerThread) -> None:
    with Client(threaded.target) as client:
        client.session("\u2603")
    environment = {**os.environ, "CELLKEEPER_ENDPOINT": threaded.target, "PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-m", "cellkeeper", "sessions", "list"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, check=True)
    assert r"\u2603" in done.stdout


def test_a_position_that_is_none() -> None:
    done = run("localhost:1", "sessions", "fork", "a", "b", "--at", "x", code=2)
    assert "--at: got 'x', expected 32 hexadecimal digits, a step and 16 hexadecimal digits" in done.err


@pytest.mark.parametrize("option", ["--endpoint", "--timeout", "--ca-file", "--session", "--output"])
def test_an_option_whose_value_is_what_ends_options(option: str) -> None:
    """argparse makes an empty list of it, up to Python 3.12."""
    done = run("localhost:1", "stream", "--session", "s", f"{option}=--", code=2)
    assert f"argument {option}: got '--', expected a value" in done.err


@pytest.mark.parametrize("arguments", [[], ["stream"], ["sessions"], ["sessions", "fork", "a", "b", "--at", "x"]])
def test_wrong_usage(arguments: list[str]) -> None:
    assert "usage" in run("localhost:1", *arguments, code=2).err


@pytest.mark.parametrize("option", [["--endpoint", "a:1"], ["--endpoint=a:1"], ["--tls"]])
def test_an_option_before_the_command(option: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """argparse would take its value for the command."""
    with pytest.raises(SystemExit, match="2"):
        main([*option, "sessions", "list"])
    said = capsys.readouterr().err
    name = option[0].partition("=")[0]
    assert f"{name}: options follow the command, as in: cellkeeper sessions list {name}" in said
    with pytest.raises(SystemExit, match="0"):
        main(["--vers"])
