"""`make gpu-check`: what it reports and leaves behind, with parts that need no device."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench import gpu_exactness
from bench.gpu_check import (
    BENCH_JSON,
    LINES_SHOWN,
    PYTEST,
    REPORT_JSON,
    REPORT_LOG,
    WHOLE_S,
    Part,
    checked,
    parts,
    run,
    why_not,
)
from bench.latencies import counted

MOST_SECONDS = 360
HOLDS_A_LOCK = (
    "import fcntl, time; file = open({path!r}); fcntl.flock(file, fcntl.LOCK_EX); print(flush=True); time.sleep(600)"
)
LEAVES_A_PROCESS = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", {code!r}], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
child.stdout.readline()
print("it has the lock")
sys.exit(3)
"""
IS_KILLED_AT_ITS_END = """
import os, signal

def pytest_sessionfinish():
    os.kill(os.getpid(), signal.SIGKILL)
"""
THERE = ("torch", "triton", "numpy", "onnxruntime", "grpcio", "hypothesis", "safetensors", "pytest")
BARE = r"""
import importlib, re, sys
from importlib.metadata import PackageNotFoundError, packages_distributions, requires

def plain(name):
    return name.lower().replace("_", "-")

def needed(name):
    try:
        return {{plain(re.match(r"[\w.-]+", one)[0]) for one in requires(name) or () if "extra ==" not in one}}
    except PackageNotFoundError:
        return set()

there, new = set(), set({there!r})
while new:
    there |= new
    new = set().union(*map(needed, new)) - there
for module, owners in packages_distributions().items():
    if not there & set(map(plain, owners)):
        sys.modules[module] = None
for name in {modules!r}:
    importlib.import_module(name)
import pytest
sys.exit(pytest.main(["-c", "tests/gpu.ini", "--rootdir", ".", "-q", "--collect-only", *{tests!r}]))
"""


def part(name: str, code: str, limit_s: int = 60) -> Part:
    return Part(name, (sys.executable, "-c", code), limit_s)


def test_all_parts_together_take_less_than_six_minutes(tmp_path: Path) -> None:
    """Only the last one may be cut short: it measures what the others do not need."""
    assert sum(one.limit_s for one in parts("cuda:0", tmp_path)[:-1]) < WHOLE_S < MOST_SECONDS


def test_a_part_gets_the_time_that_the_others_leave(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What it printed by then is kept, and nothing has failed."""
    endless = Part("endless", ("bash", "-c", "echo begun; exec sleep 600"), 60)
    assert not checked([endless, endless], tmp_path, "A GPU", time.monotonic() + 1)
    first, second = json.loads((tmp_path / REPORT_JSON).read_text())["parts"]
    assert (first["outcome"], first["lines"], second["outcome"]) == ("cut short", ["begun"], "cut short")
    assert "== endless (at most 0 s)" in capsys.readouterr().out


def test_a_part_leaves_no_process_on_the_device(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.touch()
    result = run(part("leaves", LEAVES_A_PROCESS.format(code=HOLDS_A_LOCK.format(path=str(path)))), tmp_path)
    assert (result["outcome"], result["lines"]) == ("failed (3)", ["it has the lock"])
    with path.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # waits as long as that process lives


def test_a_part_that_takes_too_long_is_ended_and_what_it_printed_is_kept(tmp_path: Path) -> None:
    result = run(Part("endless", ("bash", "-c", "echo begun; exec sleep 600"), 1), tmp_path)
    assert (result["outcome"], result["lines"]) == ("out of time", ["begun"])


def test_the_whole_output_of_a_part_is_written(tmp_path: Path) -> None:
    for _ in range(2):
        assert checked([part("long", "print(*range(1000), sep='\\n')"), part("bad", "exit('why')")], tmp_path, "A GPU")
    results = json.loads((tmp_path / REPORT_JSON).read_text())["parts"]
    assert results[0]["lines"] == [str(number) for number in range(1000 - LINES_SHOWN, 1000)]
    numbers = "\n".join(str(number) for number in range(1000))
    assert (tmp_path / REPORT_LOG).read_text() == (
        f"== long\n{numbers}\n== long: passed\n\n== bad\nwhy\n== bad: failed (1)\n\n"
    )


def test_the_log_has_what_a_part_printed_before_it_ends(tmp_path: Path) -> None:
    """A machine may be taken away while a part runs."""
    log = tmp_path / REPORT_LOG
    reads = f"print('begun', flush=True); print(open({str(log)!r}).read().splitlines())"
    assert run(part("reads", reads), tmp_path)["lines"] == ["begun", "['== reads', 'begun']"]


def test_a_test_that_failed_before_its_run_was_ended_says_why(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text("def test_it():\n    assert 1 == 2, 'the reason'\n")
    (tmp_path / "conftest.py").write_text(IS_KILLED_AT_ITS_END)
    result = run(Part("killed", (*PYTEST, str(tmp_path)), 60), tmp_path)
    assert result["outcome"] == f"failed ({-signal.SIGKILL})"
    assert any(line.endswith("AssertionError: the reason") for line in result["lines"])


def test_the_report_is_there_before_the_next_part_begins(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reads = f"import json; print([one['part'] for one in json.load(open({str(tmp_path / REPORT_JSON)!r}))['parts']])"
    assert not checked([part("first", "print(1)"), part("second", reads)], tmp_path, "cuda:0 A GPU")
    report = json.loads((tmp_path / REPORT_JSON).read_text())
    assert [(one["part"], one["outcome"], one["lines"]) for one in report["parts"]] == [
        ("first", "passed", ["1"]),
        ("second", "passed", ["['first']"]),
    ]
    assert "| second | passed |" in capsys.readouterr().out


def test_the_table_has_the_figures_of_a_bench_that_ran_out_of_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = {"contender": "cellkeeper", "precision": "fp32", "layers": 2, "hidden": 128, "batch": 64}
    figures |= {"steps_per_second": 1e6, "p50_ms": 0.064, "latencies": counted([1e-4] * 1000), "device_us": 31.5}
    figures |= {"bytes_per_second": 4e12, "operations_per_second": 5e13}
    text = json.dumps({"rounds": [figures]})
    bench = f"from pathlib import Path; Path({str(tmp_path / BENCH_JSON)!r}).write_text({text!r}); raise SystemExit(1)"
    assert checked([part("bench", bench)], tmp_path, "cuda:0 A GPU")
    printed = capsys.readouterr().out
    assert "| bench | failed (1) |" in printed
    assert "| 2x128 | 64 | fp32 | cellkeeper | 1,000,000 | 0.064 | 0.100 | 31.5 |" in printed
    assert not checked([part("another run", "")], tmp_path, "cuda:0 A GPU")
    assert "2x128" not in capsys.readouterr().out


def test_a_device_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cellkeeper_service.engine.cuda.device.cuda_devices", lambda: 2)
    assert why_not("cuda:1") == ""
    assert why_not("cuda:9") == "device: got cuda:9, expected one of cuda:0, cuda:1"
    monkeypatch.setattr("cellkeeper_service.engine.cuda.device.cuda_devices", lambda: 0)
    assert why_not("cuda:0") == "torch finds no CUDA device on this machine"


@pytest.mark.parametrize(("min_batch", "exact"), [(1, True), (16, False)])
def test_a_model_whose_batches_must_be_filled_up_is_not_exact_by_construction(
    monkeypatch: pytest.MonkeyPatch, min_batch: int, exact: bool
) -> None:
    engine = SimpleNamespace(exact=True, tolerance=1e-7, numerics=f"cuda fp32 A GPU min_batch={min_batch}")
    monkeypatch.setattr(gpu_exactness, "load_engine", lambda *_, **__: engine)
    assert gpu_exactness.loaded("1x64", "fp32", "cuda:0", 4)["exact"] is exact


@pytest.mark.parametrize(
    ("exact", "tolerance", "captured", "passes"),
    [(True, 1e-6, True, True), (False, 1e-6, True, False), (True, 0.5, True, False), (True, 1e-6, False, False)],
)
def test_a_model_passes_if_it_is_exact_and_accurate_and_its_graphs_were_captured(
    monkeypatch: pytest.MonkeyPatch, exact: bool, tolerance: float, captured: bool, passes: bool
) -> None:
    """It is served otherwise, too: with a tolerance, or slowly. Nothing else would tell."""
    engine = SimpleNamespace(exact=exact, tolerance=tolerance, captured=captured, numerics="A GPU min_batch=1")
    monkeypatch.setattr(gpu_exactness, "load_engine", lambda *_, **__: engine)
    monkeypatch.setattr(gpu_exactness, "apart", lambda load, *arguments: load(*arguments))
    monkeypatch.setattr(sys, "argv", ["gpu_exactness", "--jobs=1"])
    with pytest.raises(SystemExit) as ended:
        gpu_exactness.main()
    assert ended.value.code is not passes


def test_a_model_whose_process_dies_is_reported_as_the_others_are() -> None:
    """As torch ends one that frees pinned memory of a device that has failed."""
    died = gpu_exactness.apart(dies, "2x128", "tf32")
    error = f"its process ended with status {-signal.SIGABRT}"
    assert died == {"model": "2x128", "precision": "tf32", "error": error} | dict.fromkeys(gpu_exactness.PASSES, False)
    well = gpu_exactness.apart(gpu_exactness.loaded, "1x64", "fp32", "cpu", 4)
    assert (well["model"], well["precision"], well["exact"]) == ("1x64", "fp32", True), well


def dies(*arguments: str) -> dict[str, Any]:
    os.abort()


def imported_where(there: Sequence[str], modules: Sequence[str], tests: Sequence[str]) -> None:
    """Imports the modules, and collects the tests, in a process that has only these packages and what they need."""
    code = BARE.format(there=there, modules=modules, tests=tests)
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[3],
        env=os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": "", "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_it_needs_no_more_than_a_machine_has_where_nothing_can_be_installed(tmp_path: Path) -> None:
    """One module that imports something else would end its whole part there."""
    tests = [word for one in parts("cuda:0", tmp_path) for word in one.command if word.endswith(".py")]
    imported_where(THERE, ("bench.gpu", "bench.gpu_exactness", "bench.gpu_tiles"), tests)


def test_a_server_and_its_clients_need_no_more_than_gpu_packages_brings() -> None:
    text = (Path(__file__).parents[3] / "scripts" / "gpu-packages").read_text()
    brought = text.partition("names=(")[2].partition(")")[0].split()
    modules = ("bench.gpu_served", "bench.gpu_frames", "bench.clients.cellkeeper", "cellkeeper_service.server.app")
    imported_where((*THERE, *brought), modules, ["tests/unit/cuda/test_loading_on_a_device.py"])
