"""One node as the rules see it: its attributes, its inputs' placements and shapes, and its results' shapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from onnx import helper

from .placement import Axis, Free, Placement, Rows, Shape, axis_of, rows_at


class Couples(Exception):
    """The node makes a session's values depend on another's. The message says how, to follow "node N (op) ..."."""

    def __init__(self, why: str, node: str = "") -> None:
        """node: the node at fault, if it is another one."""
        super().__init__(why)
        self.node = node


class CannotTell(Exception):
    """The rules do not cover this node with these inputs."""


@dataclass(frozen=True)
class Call:
    """One node.

    opset: the version of ONNX's own operators. inputs: each input's placement; Free for one left out. shapes, made: the
    shapes of inputs and outputs, None if unknown. constants: known values of inputs, by name.
    """

    node: Any
    opset: int
    inputs: Sequence[Placement]
    shapes: Sequence[Shape | None]
    made: Sequence[Shape | None]
    constants: Mapping[str, Any]

    @property
    def op(self) -> str:
        return str(self.node.op_type)

    def attribute(self, name: str, default: Any = None) -> Any:
        for attribute in self.node.attribute:
            if attribute.name == name:
                return helper.get_attribute_value(attribute)
        return default

    def has(self, number: int) -> bool:
        """Returns True if the input is given."""
        return number < len(self.node.input) and bool(self.node.input[number])

    def constant(self, number: int) -> list[int] | None:
        """Returns the integers of an input, None if it is left out. Raises CannotTell if they are not known."""
        if not self.has(number):
            return None
        values = self.constants.get(self.node.input[number])
        if values is None:
            raise CannotTell
        return [int(value) for value in np.asarray(values).reshape(-1)]

    def numbers(self, attribute: str, number: int) -> list[int] | None:
        """Returns the integers of an attribute, as in older opsets, or else of an input, as in newer ones."""
        given = self.attribute(attribute)
        return self.constant(number) if given is None else [int(value) for value in given]

    def shape(self, number: int = 0) -> Shape:
        shape = self.shapes[number]
        if shape is None:
            raise CannotTell
        return shape

    def result(self, number: int = 0) -> Shape:
        """Returns the shape of an output. Raises CannotTell if it is not known."""
        shape = self.made[number]
        if shape is None:
            raise CannotTell
        return shape

    def axis(self, number: int = 0) -> Axis | None:
        """Returns the axis of an input that holds its sessions, None if it holds none.

        Raises Couples if the sessions no longer lie along an axis, because an operator that works by axes mixes them.
        Raises CannotTell if nothing is known.
        """
        if number >= len(self.inputs):
            return None
        placement = self.inputs[number]
        if isinstance(placement, Free):
            return None
        if not isinstance(placement, Rows):
            raise CannotTell
        axis = axis_of(placement, self.shape(number))
        if axis is None:
            raise Couples(
                "reshapes the batch axis together with others, so that rows hold several sessions", placement.reshaped
            )
        return axis

    def first_axis(self) -> Axis:
        """Returns the axis of the first input that holds its sessions. Raises CannotTell if only other inputs hold any:
        no rule is asked about inputs of which none does."""
        axis = self.axis()
        if axis is None:
            raise CannotTell
        return axis

    def only_axis(self) -> Axis:
        """Returns `first_axis` of an operator whose other inputs hold no session's values. Raises CannotTell if one
        does."""
        self.expect_free(*range(1, len(self.inputs)))
        return self.first_axis()

    def expect_free(self, *numbers: int) -> None:
        """Raises CannotTell if one of these inputs holds sessions' values."""
        if any(number < len(self.inputs) and not isinstance(self.inputs[number], Free) for number in numbers):
            raise CannotTell

    def placed(self, axis: Axis, output: int = 0) -> Placement:
        """Returns the placement of an output with its sessions along this axis."""
        return rows_at(axis, self.result(output))

    def along(self, axis: Axis, number: int | None = None) -> list[Placement]:
        """Returns the placement of each output with its sessions along this axis. number: of the axis in the outputs,
        if it is another there."""
        place = axis if number is None else replace(axis, number=number)
        return [self.placed(place, output) for output in range(len(self.made))]

    def one_of(self, values: Sequence[int], shape: Shape) -> set[int]:
        """Returns the axes as non-negative numbers. Raises CannotTell for one out of range."""
        if any(not -len(shape) <= value < len(shape) for value in values):
            raise CannotTell
        return {value % len(shape) for value in values}
