"""`python -m verification.parity`: imports every architecture and writes the table of docs/models.md.

--check writes nothing, and fails if the rows of the table are not those of the cases.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
import textwrap
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "torch")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import torch
from cellkeeper_service.converters import Imported
from cellkeeper_service.engine.numerics import instruction_set, vendor
from cellkeeper_service.model.config import RecurrentConfig

from .case import Case
from .keras_cases import keras_cases
from .onnx_cases import onnx_cases
from .torch_cases import torch_cases

PAGE = Path(__file__).parents[2] / "docs" / "models.md"
BEGIN, END = "<!-- parity: written by `make parity` -->", "<!-- parity: end -->"
PAGE_WIDTH = 120
MOST_RELATIVE = 1e-5
HEADER = """| | architecture | served as | largest difference | relative | served stream |
|---|---|---|---|---|---|"""


def every_case() -> list[Case]:
    torch.manual_seed(20)
    return [*torch_cases(), *keras_cases(), *onnx_cases()]


def row(case: Case, imported: Imported) -> str:
    parity = imported.parity
    kind = "layers" if isinstance(imported.bundle.config, RecurrentConfig) else "ONNX graph"
    filled = re.search(r"min_batch=(\d+)", parity.numerics)
    served = "exact" if parity.exact else f"differs by up to {parity.spread:.0e}"
    if filled is None:
        served += ", one session a call"
    elif filled.group(1) != "1":
        served += f", calls of at least {filled.group(1)} sessions"
    numbers = f"{parity.difference:.1e} | {parity.relative:.1e}" if parity.difference else "none | none"
    return f"| {case.framework} | {case.title} | {kind}, {parity.engine} | {numbers} | {served} |"


def write(rows: list[str], versions: str) -> None:
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    table = "\n".join([BEGIN, "", versions, "", HEADER, *rows, "", END])
    PAGE.write_text(before + table + after, encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m verification.parity", description=__doc__)
    parser.add_argument("--max-batch", type=int, default=256)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows, bad, sources = [], [], set()
    with tempfile.TemporaryDirectory(prefix="cellkeeper-parity-") as name:
        for number, case in enumerate(every_case()):
            imported = case.run(Path(name) / f"m{number}", arguments.max_batch)
            rows.append(row(case, imported))
            sources.add(imported.parity.source.partition(" (exported")[0])
            print(rows[-1], flush=True)
            if not imported.parity.relative <= MOST_RELATIVE or not imported.parity.exact:
                bad.append(case.title)
    versions = (
        f"Compared with {', '.join(sorted(sources))}, on {' '.join(filter(None, (instruction_set(), vendor())))}. "
        "Random sequences of 1 to 200 time steps, whole, step by step and in chunks; batches of up to "
        f"{arguments.max_batch} sessions."
    )
    write(rows, textwrap.fill(versions, PAGE_WIDTH, break_on_hyphens=False))
    if bad:
        print(f"more than {MOST_RELATIVE} apart, or not exact: {', '.join(bad)}", file=sys.stderr)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
