"""The command line that the examples share: python -m examples.NAME [--update] [--out FOLDER]"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import torch

from .report import read_results, spliced, write_results

Job = TypeVar("Job")
Result = TypeVar("Result")

Tables = Callable[[Mapping[str, Any]], Mapping[str, str]]
Experiment = Callable[[Path], Mapping[str, Any]]


def run_example(folder: Path, experiment: Experiment, tables: Tables) -> None:
    """Runs an example and prints its tables.

    folder: the example's own. experiment: writes bundles and pictures to the given folder and returns the results. With
    --update everything goes into the example's own folder, and the tables into its README.
    """
    parser = argparse.ArgumentParser(prog=f"python -m examples.{folder.name}")
    parser.add_argument("--out", type=Path, default=Path("out") / folder.name)
    parser.add_argument("--update", action="store_true", help="writes into the example's own folder, README included")
    arguments = parser.parse_args()
    out = folder if arguments.update else arguments.out
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)  # the same sums on every machine
    started = time.monotonic()
    write_results(out, experiment(out))
    shown = tables(read_results(out))
    for text in shown.values():
        print(f"\n{text}", end="")
    if arguments.update:
        readme = folder / "README.md"
        readme.write_text(spliced(readme.read_text(encoding="utf-8"), shown), encoding="utf-8")
    print(f"\n{out}, after {time.monotonic() - started:.0f} s")


def side_by_side(work: Callable[[Job], Result], jobs: Sequence[Job]) -> list[Result]:
    """Runs work(job) for every job, in two processes of one thread each. Returns the results in the jobs' order."""
    processes = min(2, os.cpu_count() or 1)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context, torch.set_num_threads, (1,)) as pool:
        return list(pool.map(work, jobs))
