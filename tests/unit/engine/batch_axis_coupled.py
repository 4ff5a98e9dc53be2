"""Small graphs that couple the sessions of a batch, and some for which no rule decides this."""

from __future__ import annotations

import numpy as np
from onnx import numpy_helper

from .batch_axis_cases import BOOL, FLOAT, INT, Case, body, node

COUPLED: dict[str, tuple[Case, str]] = {
    "a sum over the batch": (((4,), 0, [node("ReduceSum", "h [0]", "a"), node("Add", "h a")]), "reduces over axis 0"),
    "a sum over everything": (((4,), 0, [node("ReduceSum", "h", "a"), node("Add", "h a")]), "reduces over axis 0"),
    "an older sum over the batch": (
        ((4,), 0, [node("ReduceMean", "h [0]", "a", keepdims=0), node("Sub", "h a")]),
        "reduces",
    ),
    "which session has the most": (
        ((4,), 0, [node("ArgMax", "h", "a"), node("Cast", "a", "b", to=FLOAT), node("Add", "h b")]),
        "reduces",
    ),
    "a softmax over heads and sessions": (
        (
            (2, 4),
            0,
            [node("Reshape", "h [-1,4]", "a"), node("Softmax", "a", "b", axis=0), node("Reshape", "b [-1,2,4]")],
        ),
        "normalises over axis 0",
    ),
    "summed up over the batch": (((4,), 0, [node("CumSum", "h zero")]), "accumulates over axis 0"),
    "sorted over the batch": (((4,), 0, [node("TopK", "h [3]", "out places", axis=0)]), "sorts over axis 0"),
    "layer normalisation of all": (
        ((4,), 0, [node("LayerNormalization", "h one_float", axis=0)]),
        "normalises over axis 0",
    ),
    "a norm over the batch": (((4,), 0, [node("LpNormalization", "h", axis=0)]), "normalises"),
    "instance normalisation of the turned": (
        ((2, 4), 2, [node("InstanceNormalization", "h scale4_of2 bias4_of2")]),
        "normalises over axis 2",
    ),
    "mean and variance of the batch": (
        ((4, 5, 2), 0, [node("MeanVarianceNormalization", "h")]),
        "normalises over axis 0",
    ),
    "turned around": (((4,), 0, [node("Slice", "h [-1] [-99] [0] [-1]")]), "reverses axis 0"),
    "turned around as if in time": (
        ((4,), 0, [node("ReverseSequence", "h [2,2,2,2]", batch_axis=1, time_axis=0)]),
        "reverses axis 0",
    ),
    "the first session's": (
        ((4,), 0, [node("Slice", "h [0] [1] [0]", "a"), node("Add", "h a")]),
        "selects certain sessions of the batch",
    ),
    "the last session's": (
        ((4,), 0, [node("Gather", "h [-1]", "a", axis=0), node("Add", "h a")]),
        "selects certain sessions",
    ),
    "shifted": (
        ((4,), 0, [node("Slice", "h [0] [-1] [0]", "a"), node("Pad", "a [1,0,0,0]")]),
        "selects certain sessions",
    ),
    "padded and cut": (((4,), 0, [node("Pad", "h [1,0,-1,0]")]), "shifts axis 0"),
    "a row before the others": (
        ((4,), 0, [node("Concat", "table1 h", "a", axis=0), node("Slice", "a [0] [-1] [0]")]),
        "adds other rows to the sessions",
    ),
    "sessions as neighbours in time": (
        (
            (4,),
            0,
            [node("Unsqueeze", "h [1]", "a"), node("LSTM", "a w r", "b", hidden_size=2), node("Squeeze", "b [1,2]")],
        ),
        "iterates over axis 0",
    ),
    "every session with every other": (
        ((4,), 0, [node("Transpose", "h", "a"), node("MatMul", "h a", "b"), node("ReduceSum", "b [1]")]),
        "multiplies values of one session with those of another",
    ),
    "attention between sessions": (
        (
            (4,),
            0,
            [
                node("Transpose", "h", "a"),
                node("MatMul", "h a", "b"),
                node("Softmax", "b", "c", axis=1),
                node("MatMul", "c h"),
            ],
        ),
        "multiplies values of one session with those of another",
    ),
    "weights over sessions": (((4,), 1, [node("Gemm", "h table3")]), "sums over its inputs' batch axis"),
    "Einsum over sessions": (
        ((4,), 0, [node("Einsum", "h h", "a", equation="bf,bg->fg"), node("MatMul", "h a")]),
        "sums over its inputs' batch axis",
    ),
    "a difference of all pairs": (
        (
            (4,),
            0,
            [
                node("Unsqueeze", "h [0]", "a"),
                node("Unsqueeze", "h [1]", "b"),
                node("Sub", "a b", "c"),
                node("ReduceSum", "c [1]", keepdims=0),
            ],
        ),
        "combines values of different sessions",
    ),
    "a window over sessions": (
        (
            (4,),
            0,
            [
                node("Transpose", "h", "a"),
                node("Unsqueeze", "a [0]", "b"),
                node("Conv", "b kernel4", "c", pads=[1, 1]),
                node("Squeeze", "c [0]", "d"),
                node("Transpose", "d"),
            ],
        ),
        "moves a window over axis 2",
    ),
    "channels that are sessions": (
        ((9,), 0, [node("Unsqueeze", "h [0]", "a"), node("Conv", "a kernel3", "b"), node("Squeeze", "b [0]")]),
        "sums over its input's channels",
    ),
    "one scale for all": (
        ((4,), 0, [node("DynamicQuantizeLinear", "h", "a s z"), node("DequantizeLinear", "a s z")]),
        "uses one scale for all rows",
    ),
    "rows cut in another place": (
        (
            (2, 4),
            0,
            [node("Reshape", "h [2,-1,4]", "a"), node("Softmax", "a", "b", axis=1), node("Reshape", "b [-1,2,4]")],
        ),
        "reshapes the batch axis together with others",
    ),
    "in a branch": (
        (
            (4,),
            0,
            [
                node(
                    "If",
                    "yes",
                    then_branch=body([], [("t", FLOAT)], node("ReduceMax", "h", "m"), node("Mul", "h m", "t")),
                    else_branch=body([], [("e", FLOAT)], node("Exp", "h", "e")),
                )
            ],
        ),
        "reduces over axis 0",
    ),
    "in a loop, from its second turn on": (
        (
            (4,),
            0,
            [
                node(
                    "Loop",
                    "few - h h",
                    "out seen",
                    body=body(
                        [("i", INT), ("go", BOOL), ("v", FLOAT), ("w", FLOAT)],
                        [("go", BOOL), ("w", FLOAT), ("u", FLOAT)],
                        node("ReduceMax", "v", "m"),
                        node("Mul", "v m", "u"),
                    ),
                )
            ],
        ),
        "reduces over axis 0",
    ),
    "in a scan, from its second turn on": (
        (
            (2, 4),
            1,
            [
                node("ReduceSum", "h [0]", "s", keepdims=0),
                node(
                    "Scan",
                    "s s h",
                    "last seen out",
                    num_scan_inputs=1,
                    body=body(
                        [("v", FLOAT), ("w", FLOAT), ("x", FLOAT)],
                        [("w", FLOAT), ("u", FLOAT), ("y", FLOAT)],
                        node("ReduceMax", "v", "m"),
                        node("Mul", "x m", "u"),
                        node("Add", "u v", "y"),
                    ),
                ),
            ],
        ),
        "reduces over axis 0",
    ),
    "in a branch whose condition has the name of a constant around the loop": (
        (
            (4,),
            0,
            [
                node(
                    "Loop",
                    "few - yes h",
                    "changed out",
                    body=body(
                        [("i", INT), ("go", BOOL), ("yes", BOOL), ("v", FLOAT)],
                        [("go", BOOL), ("no", BOOL), ("u", FLOAT)],
                        node("Not", "yes", "no"),
                        node(
                            "If",
                            "yes",
                            "u",
                            then_branch=body([], [("t", FLOAT)], node("Neg", "v", "t")),
                            else_branch=body([], [("e", FLOAT)], node("ReduceMax", "v", "m"), node("Mul", "v m", "e")),
                        ),
                    ),
                )
            ],
        ),
        "reduces over axis 0",
    ),
}
UNDECIDED: dict[str, Case] = {
    "a scan along the sessions": (
        (4,),
        0,
        [
            node(
                "Scan",
                "bias4 h",
                "last out",
                num_scan_inputs=1,
                body=body(
                    [("v", FLOAT), ("x", FLOAT)],
                    [("u", FLOAT), ("y", FLOAT)],
                    node("Add", "v x", "u"),
                    node("Neg", "u", "y"),
                ),
            )
        ],
    ),
    "an operator without a rule": (
        (4,),
        0,
        [node("NonZero", "h", "a"), node("GatherND", "h [[0]]", "b"), node("Add", "h b")],
    ),
    "a place for each session": (
        (4,),
        0,
        [
            node("Shape", "h", "a", end=1),
            node("ConstantOfShape", "a", "b", value=numpy_helper.from_array(np.zeros(1, np.int64))),
            node("Gather", "h b", axis=0),
        ],
    ),
}
SHARED_CONDITION: dict[str, Case] = {
    "a branch that all sessions take together": (
        (4,),
        0,
        [
            node("ReduceMax", "h", "m", keepdims=0),
            node("Greater", "m half", "on"),
            node(
                "If",
                "on",
                then_branch=body([], [("t", FLOAT)], node("Neg", "h", "t")),
                else_branch=body([], [("e", FLOAT)], node("Exp", "h", "e")),
            ),
        ],
    ),
    "a loop that ends when all sessions are done": (
        (4,),
        0,
        [
            node(
                "Loop",
                "few yes h",
                body=body(
                    [("i", INT), ("go", BOOL), ("v", FLOAT)],
                    [("on", BOOL), ("u", FLOAT)],
                    node("ReduceMax", "v", "m", keepdims=0),
                    node("Greater", "m half", "on"),
                    node("Identity", "v", "u"),
                ),
            )
        ],
    ),
}
