"""The kernels compile for a GPU, in the way that equal bits require. This needs no GPU."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.timeout(900)  # the first compilation takes fifteen seconds of CPU time, which may be shared

LEAST_SHARED_BYTES = 99 * 1024  # what every device with bfloat16 gives a program: compute capability 8.6


@pytest.fixture(scope="module")
def report(compiling: dict[str, str]) -> Any:
    """What the compilation printed."""
    command = [sys.executable, "-m", "tests.unit.kernels.compiled", "90"]
    done = subprocess.run(
        command, env=compiling, cwd=Path(__file__).parents[3], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_one_binary_serves_every_batch_and_chunk(report: Any) -> None:
    assert report["varying"] == []


def test_torch_does_nothing_between_the_launches(report: Any) -> None:
    """A capture rejects a synchronization or a copy of pageable memory, and memory allocated there would be freed."""
    assert report["operations"] == []


def test_every_kernel_compiles_and_fits(report: Any) -> None:
    kernels = {binary["kernel"] for binary in report["binaries"]}
    cells = {"lstm", "gru", "gru_gates", "gru_candidate", "rnn"}
    assert kernels == cells | {"dense", "transform", "finish", "take_features", "take_tokens", "apply"}
    assert [binary for binary in report["binaries"] if binary["shared_bytes"] > LEAST_SHARED_BYTES] == []


def test_products_run_where_their_precision_says(report: Any) -> None:
    """fp32 uses fused multiply-adds in the order of k; the others use tensor cores."""
    for binary in report["binaries"]:
        assert bool(binary["mma.sync"]) == (binary["precision"] in ("tf32", "bf16")), binary


def test_no_product_is_asynchronous(report: Any) -> None:
    """Triton 3.6 overwrites the registers of an asynchronous product's operand before it is read (triton#9433), and so
    does the ptxas of all its releases so far (triton#11781): results would be wrong, and depend on the time."""
    for binary in report["binaries"]:
        assert (binary["wgmma.mma_async"], binary["tcgen05.mma"]) == (0, 0), binary


def test_no_binary_keeps_registers_in_memory(report: Any) -> None:
    assert [binary for binary in report["binaries"] if binary["stack_bytes"]] == []


def test_no_binary_adds_in_an_order_of_its_own(report: Any) -> None:
    for binary in report["binaries"]:
        assert (binary["atom"], binary["red"]) == (0, 0), binary


def test_no_binary_approximates_or_flushes_denormals(report: Any) -> None:
    """The documented error bounds assume IEEE operations, as the interpreter has them."""
    approximate = ("ex2", "rcp", "div.full.f32", "add.ftz.f32", "mul.ftz.f32", "fma.rn.ftz.f32")
    for binary in report["binaries"]:
        assert {word: binary[word] for word in approximate} == dict.fromkeys(approximate, 0), binary
    divide = {binary["kernel"] for binary in report["binaries"] if binary["div.rn.f32"]}
    assert {"lstm", "gru", "gru_gates", "gru_candidate", "rnn", "transform"} <= divide


def test_normalisation_divides(report: Any) -> None:
    divisions = [binary["div.rn.f32"] for binary in report["binaries"] if "NORMALIZED=True" in binary["constants"]]
    assert divisions
    assert all(divisions)
