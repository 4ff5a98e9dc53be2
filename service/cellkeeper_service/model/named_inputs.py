"""`inputs` in config.json: the several, named inputs of a graph's time step.

    "inputs": [
        {"name": "audio", "shape": [160], "dtype": "float32"},
        {"name": "speaker", "shape": [], "dtype": "int64", "vocabulary": 100}
    ]

Floats must be finite, and integers must be in 0..vocabulary - 1. Both are checked before a batch is formed, so that no
value can make a graph's call fail for all sessions in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cellkeeper_service.domain.spec import InputSpec

DTYPES = ("float32", "float64", "float16", "int32", "int64")  # of a graph's several inputs, and of its states
MAX_INPUTS = 64
MAX_VALUES = 65_536  # in one time step, over all inputs
MAX_IDS = 2**31 - 1


@dataclass(frozen=True, slots=True)
class NamedInput:
    """One of several inputs.

    name: what clients call it. input: what the graph calls it. shape: that of one time step of one session. dtype: the
    graph's own. vocabulary: integers must be below it; 0 for floats.
    """

    name: str
    input: str
    shape: tuple[int, ...]
    dtype: str
    vocabulary: int = 0

    @property
    def spec(self) -> InputSpec:
        return InputSpec(self.name, self.dtype, self.shape, self.vocabulary)


@dataclass(frozen=True, slots=True)
class NamedInputs:
    """Time steps of several inputs, in the order in which their bytes are logged."""

    inputs: tuple[NamedInput, ...]


def named_inputs_json(named: NamedInputs) -> list[dict[str, Any]]:
    """Returns the value of the key "inputs"."""
    return [
        {
            "name": one.name,
            **({} if one.input == one.name else {"input": one.input}),
            "shape": list(one.shape),
            "dtype": one.dtype,
            **({"vocabulary": one.vocabulary} if one.vocabulary else {}),
        }
        for one in named.inputs
    ]
