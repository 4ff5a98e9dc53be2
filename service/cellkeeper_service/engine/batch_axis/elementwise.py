"""Rules for element-wise operators with broadcasting."""

from __future__ import annotations

from .call import Call, CannotTell, Couples
from .placement import Axis, Free, Placement

OPERATORS = (
    *("Abs", "Acos", "Acosh", "Add", "And", "Asin", "Asinh", "Atan", "Atanh", "BitShift", "BitwiseAnd", "BitwiseNot"),
    *("BitwiseOr", "BitwiseXor", "Cast", "Ceil", "Celu", "Clip", "Cos", "Cosh", "Div", "Dropout", "Elu", "Equal"),
    *("Erf", "Exp", "Floor", "Gelu", "Greater", "GreaterOrEqual", "HardSigmoid", "HardSwish", "Identity", "IsInf"),
    *("IsNaN", "LeakyRelu", "Less", "LessOrEqual", "Log", "Max", "Mean", "Min", "Mish", "Mod", "Mul", "Neg", "Not"),
    *("Or", "PRelu", "Pow", "Reciprocal", "Relu", "Round", "Selu", "Shrink", "Sigmoid", "Sign", "Sin", "Sinh"),
    *("Softplus", "Softsign", "Sqrt", "Sub", "Sum", "Swish", "Tan", "Tanh", "ThresholdedRelu", "Where", "Xor"),
)


def broadcast(call: Call) -> list[Placement]:
    """For operators that broadcast all inputs to the result's shape."""
    return [_combined(call, number) for number in range(len(call.made))]


def first_alone(call: Call) -> list[Placement]:
    """For operators whose result has the first input's values, or shape; the others must not hold sessions' values."""
    call.expect_free(*range(1, len(call.inputs)))
    return broadcast(call)


def _combined(call: Call, output: int) -> Placement:
    held = [number for number, placement in enumerate(call.inputs) if not isinstance(placement, Free)]
    result = call.result(output)
    if all(call.inputs[number] == call.inputs[held[0]] and call.shapes[number] == result for number in held):
        return call.inputs[held[0]]  # the sessions need not lie along an axis
    found: list[Axis] = []
    for number in held:
        axis = call.axis(number)
        if axis is None:
            raise CannotTell
        lead = len(result) - len(call.shape(number))
        found.append(Axis(axis.number + lead, axis.before, axis.after))
    if any(axis != found[0] for axis in found):
        raise Couples("combines values of different sessions: its inputs have the batch along different axes")
    return call.placed(found[0], output)
