"""Rules for operators that reduce, normalize, sum up or sort values along axes."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from .call import Call, CannotTell, Couples
from .placement import Placement

Axes = Callable[[Call], Iterable[int]]
"""Tells along which axes of its first input a node combines values; negative numbers count from the last."""


def over(verb: str, axes: Axes) -> Callable[[Call], list[Placement]]:
    """Returns the rule for operators that combine the values of their first input along axes. verb: what they do."""

    def rule(call: Call) -> list[Placement]:
        axis = call.only_axis()
        combined = call.one_of([*axes(call)], call.shape())
        if axis.number in combined:
            raise Couples(f"{verb} over axis {axis.number}, which is the batch")
        lost = 0 if call.attribute("keepdims", 1) else sum(number < axis.number for number in combined)
        return call.along(axis, axis.number - lost)

    return rule


def one_axis(default: int) -> Axes:
    """Returns what tells the axis of the attribute."""
    return lambda call: [call.attribute("axis", default)]


def from_axis(default: int) -> Axes:
    """Returns what tells all axes from that of the attribute on."""

    def axes(call: Call) -> Iterable[int]:
        (first,) = call.one_of([call.attribute("axis", default)], call.shape())
        return range(first, len(call.shape()))

    return axes


def reduced(call: Call) -> Iterable[int]:
    """For the family Reduce*."""
    none_is_all = not call.attribute("noop_with_empty_axes", 0)
    return call.numbers("axes", 1) or (range(len(call.shape())) if none_is_all else [])


def softmax(call: Call) -> Iterable[int]:
    """For Softmax and its like, which in older opsets normalize over all axes from one on."""
    return one_axis(-1)(call) if call.opset >= 13 else from_axis(1)(call)


def summed_up(call: Call) -> Iterable[int]:
    return call.constant(1) or [0]


def after_two(call: Call) -> Iterable[int]:
    """For what treats each channel of [N, C, ...] by itself."""
    return range(2, len(call.shape()))


def mean_variance(call: Call) -> Iterable[int]:
    axes: list[int] = call.attribute("axes", [0, 2, 3])
    return axes


def batch_norm(call: Call) -> list[Placement]:
    """For BatchNormalization with fixed statistics. onnx_checks.py refuses it with those of the batch."""
    axis = call.only_axis()
    if call.attribute("training_mode", 0) or len(call.made) > 1:
        raise CannotTell
    return call.along(axis)


def whole_tensor(call: Call) -> list[Placement]:
    """For operators that use one scale for all values of a tensor."""
    call.first_axis()
    raise Couples("uses one scale for all rows of its input, which hold different sessions")
