"""Rules for operators that reduce, normalize, sum up or sort values along axes."""

from __future__ import annotations

from collections.abc import Collection

from .call import Call, CannotTell, Couples
from .placement import Axis, Placement


def reduce(call: Call) -> list[Placement]:
    """For the family Reduce*."""
    axis = call.first_axis()
    axes = call.numbers("axes", 1)
    every = range(len(call.shape()))
    if not axes:
        axes = [] if call.attribute("noop_with_empty_axes", 0) else list(every)
    return [_reduced(call, axis, call.one_of(axes, call.shape()))]


def arg_reduce(call: Call) -> list[Placement]:
    """For ArgMax and ArgMin."""
    axis = call.first_axis()
    return [_reduced(call, axis, call.one_of([call.attribute("axis", 0)], call.shape()))]


def _reduced(call: Call, axis: Axis, axes: Collection[int]) -> Placement:
    _keep_out(axis, axes, "reduces")
    lost = 0 if call.attribute("keepdims", 1) else sum(number < axis.number for number in axes)
    return call.placed(Axis(axis.number - lost, axis.before, axis.after))


def softmax(call: Call) -> list[Placement]:
    axis = call.first_axis()
    if call.opset >= 13:
        axes = call.one_of([call.attribute("axis", -1)], call.shape())
    else:  # older opsets: over all axes from this one on
        (first,) = call.one_of([call.attribute("axis", 1)], call.shape())
        axes = set(range(first, len(call.shape())))
    _keep_out(axis, axes, "normalises")
    return [call.placed(axis)]


def along_one(call: Call) -> list[Placement]:
    """For TopK and LpNormalization, which combine values along one axis only."""
    call.expect_free(*range(1, len(call.inputs)))
    axis = call.first_axis()
    verb = {"TopK": "sorts", "LpNormalization": "normalises"}[call.op]
    _keep_out(axis, call.one_of([call.attribute("axis", -1)], call.shape()), verb)
    return [call.placed(axis, number) for number in range(len(call.made))]


def cumulative(call: Call) -> list[Placement]:
    axis = call.first_axis()
    _keep_out(axis, call.one_of(call.constant(1) or [0], call.shape()), "accumulates")
    return [call.placed(axis)]


def triangle(call: Call) -> list[Placement]:
    """For Trilu, which sets values to zero by their position."""
    call.expect_free(1)
    return [call.placed(call.first_axis())]


def layer_norm(call: Call) -> list[Placement]:
    """For LayerNormalization and RMSNormalization, over all axes from a given one on."""
    call.expect_free(*range(1, len(call.inputs)))
    axis = call.first_axis()
    (first,) = call.one_of([call.attribute("axis", -1)], call.shape())
    _keep_out(axis, range(first, len(call.shape())), "normalises")
    return [call.placed(axis, number) for number in range(len(call.made))]


def batch_norm(call: Call) -> list[Placement]:
    """For BatchNormalization with fixed statistics. onnx_checks.py refuses it with those of the batch."""
    call.expect_free(*range(1, len(call.inputs)))
    if call.attribute("training_mode", 0) or len(call.made) > 1:
        raise CannotTell
    return [call.placed(call.first_axis())]


def over_the_rest(call: Call) -> list[Placement]:
    """For InstanceNormalization and global pooling, over all axes after the first two."""
    call.expect_free(*range(1, len(call.inputs)))
    axis = call.first_axis()
    verb = "normalises" if call.op == "InstanceNormalization" else "reduces"
    _keep_out(axis, range(2, len(call.shape())), verb)
    return [call.placed(axis)]


def mean_variance(call: Call) -> list[Placement]:
    axis = call.first_axis()
    _keep_out(axis, call.one_of(call.attribute("axes", [0, 2, 3]), call.shape()), "normalises")
    return [call.placed(axis)]


def whole_tensor(call: Call) -> list[Placement]:
    """For operators that use one scale for all values of a tensor."""
    call.first_axis()
    raise Couples("uses one scale for all rows of its input, which hold different sessions")


def _keep_out(axis: Axis, axes: Collection[int], verb: str) -> None:
    """Raises Couples if the axes include the batch."""
    if axis.number in axes:
        raise Couples(f"{verb} over axis {axis.number}, which is the batch")
