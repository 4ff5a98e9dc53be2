"""python -m examples.steady_state [--update] [--out FOLDER]"""

from __future__ import annotations

from examples.command import run_example

from . import FOLDER
from .experiment import experiment
from .tables import tables

if __name__ == "__main__":
    run_example(FOLDER, experiment, tables)
