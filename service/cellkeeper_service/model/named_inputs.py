"""`inputs` in config.json: a graph's time step that has several inputs, each with a name.

    "inputs": [
        {"name": "audio", "shape": [160], "dtype": "float32"},
        {"name": "speaker", "shape": [], "dtype": "int64", "vocabulary": 100}
    ]

Floats are finite, and integers are 0..vocabulary - 1: what is sent is checked before a batch is formed, so that no
value can make the call of a graph fail for all of its sessions.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

from cellkeeper_service.domain.spec import InputSpec

from .fields import Fields

DTYPES = ("float32", "float64", "float16", "int32", "int64")
MAX_INPUTS = 64
MAX_VALUES = 65_536  # of one time step, all inputs together
MAX_IDS = 2**31 - 1


@dataclass(frozen=True, slots=True)
class NamedInput:
    """name: what clients call it. input: what the graph calls it. shape: of one time step of one session, in the
    graph's own dtype. vocabulary: integers are below it; 0 for floats."""

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


def parse_named_inputs(fields: Fields) -> NamedInputs:
    """What the key "inputs" holds. Raises StartError."""
    items = fields.items("inputs", MAX_INPUTS)
    inputs = tuple(_input(Fields(item, fields.place(f"inputs[{i}]"))) for i, item in enumerate(items))
    names, graph_names = [one.name for one in inputs], [one.input for one in inputs]
    if len(inputs) < 2 or len(set(names)) < len(names) or len(set(graph_names)) < len(names):
        raise fields.refuse("inputs", names, "at least two, names distinct; a single input is given as `input`")
    values = sum(prod(one.shape) for one in inputs)
    if values > MAX_VALUES:
        raise fields.refuse("inputs", f"{values} values in a time step", f"at most {MAX_VALUES}")
    return NamedInputs(inputs)


def named_inputs_json(named: NamedInputs) -> list[dict[str, Any]]:
    """What the key "inputs" holds."""
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


def _input(fields: Fields) -> NamedInput:
    name = fields.text("name")
    dtype = fields.choice("dtype", DTYPES)
    one = NamedInput(
        name,
        fields.text("input", default=name),
        fields.shape("shape", MAX_VALUES),
        dtype,
        fields.integer("vocabulary", 1, MAX_IDS) if dtype.startswith("int") else 0,
    )
    fields.done()
    return one
