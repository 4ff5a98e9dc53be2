"""Writes outputs as rows."""

from __future__ import annotations

import json
from typing import TextIO

from ..types import Array


class Writer:
    """Writes one line for each time step: its number, then the output's values."""

    def __init__(self, out: TextIO, form: str, name: str, headed: bool) -> None:
        self._out = out
        self._form = form
        self._name = name
        self._headed = headed

    def write(self, step: int, output: Array) -> None:
        """Writes one time step. step: how many time steps the session had consumed before it."""
        values = output.reshape(-1).tolist() if self._form == "jsonl" else [str(value) for value in output.reshape(-1)]
        if self._form == "jsonl":
            self._out.write(json.dumps({"step": step, self._name: values}) + "\n")
        else:
            if not self._headed:
                names = [f"{self._name}_{index}" for index in range(len(values))]
                self._out.write(",".join(["step", *names]) + "\n")
                self._headed = True
            self._out.write(",".join([str(step), *values]) + "\n")
        self._out.flush()
