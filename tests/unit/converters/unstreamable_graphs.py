"""Small ONNX graphs (x, h) -> (y, h_out) that give nonsense when served step by step, and some that do not."""

from __future__ import annotations

from onnx import TensorProto

from .small_graphs import FEATURES, LAST, STEP, Graph, branch, graph, node, recurrent

AHEAD = "looks ahead"
COUPLED = "rows of a batch depend on each other"
LENGTH = "chunks depend on their length"
RANDOM = "draws random numbers"

CONVOLVED = [node("Transpose", "x", "turned", perm=[1, 2, 0]), node("Transpose", "convolved", "y", perm=[2, 0, 1])]

REFUSED: dict[str, Graph] = {
    "reverse": graph(recurrent("LSTM", "reverse", 4), r"\(LSTM\): direction reverse", state=(1, 2), batch_axis=1),
    "bidirectional": graph(
        recurrent("GRU", "bidirectional", 3), r"\(GRU\): direction bidirectional", state=(2, 2), batch_axis=1
    ),
    "reverse step by step": graph(
        recurrent("RNN", "reverse", 1, "step"), r"\(RNN\): direction reverse", "step", state=(1, 2), batch_axis=1
    ),
    "mean over time": graph(
        [node("ReduceMean", "x", "mean", axes=[0]), node("Sub", "x mean", "y"), *LAST],
        AHEAD,
    ),
    "attention over time": graph(
        [
            node("Transpose", "x", "turned", perm=[1, 2, 0]),
            node("Transpose", "x", "rows", perm=[1, 0, 2]),
            node("MatMul", "rows turned", "scores"),
            node("Softmax", "scores", "shares", axis=-1),
            node("MatMul", "shares rows", "mixed"),
            node("Transpose", "mixed", "y", perm=[1, 0, 2]),
            *LAST,
        ],
        AHEAD,
    ),
    "the next time step": graph(
        [
            node("Slice", "x one many axis0", "later"),
            node("Slice", "x minus_one many axis0", "end"),
            node("Concat", "later end", "y", axis=0),
            *LAST,
        ],
        AHEAD,
    ),
    "a centred convolution": graph(
        [CONVOLVED[0], node("Conv", "turned kernel", "convolved", pads=[1, 1]), CONVOLVED[1], *LAST], AHEAD
    ),
    "a convolution that forgets": graph(
        [CONVOLVED[0], node("Conv", "turned kernel", "convolved", pads=[2, 0]), CONVOLVED[1], *LAST], LENGTH
    ),
    "a mean of the chunk so far": graph(
        [
            node("CumSum", "x zero_axis", "sums"),
            node("Mul", "x float_one", "same"),
            node("Div", "same same", "ones"),
            node("CumSum", "ones zero_axis", "counts"),
            node("Div", "sums counts", "y"),
            *LAST,
        ],
        LENGTH,
    ),
    "an LSTM whose cell starts anew": graph(recurrent("LSTM", "forward", 4), LENGTH, state=(1, 2), batch_axis=1),
    "a state that is the chunk's mean": graph(
        [node("Add", "x h", "y"), node("ReduceMean", "x", "h_out", axes=[0], keepdims=0)], LENGTH
    ),
    "mean over the batch": graph(
        [node("ReduceMean", "x", "mean", axes=[0]), node("Sub", "x mean", "y"), *STEP], COUPLED, "step"
    ),
    "mean over the batch of chunks": graph(
        [node("ReduceMean", "x", "mean", axes=[1]), node("Sub", "x mean", "y"), *LAST], COUPLED
    ),
    "scaled by the batch's largest": graph(
        [
            node("Abs", "x", "sizes"),
            node("ReduceMax", "sizes", "largest", axes=[0]),
            node("Max", "largest float_one", "scale"),
            node("Div", "x scale", "y"),
            *STEP,
        ],
        COUPLED,
        "step",
    ),
    "clipped by the batch's norm": graph(
        [
            node("ReduceL2", "x", "norm", axes=[0, 1]),
            node("Max", "norm float_one", "scale"),
            node("Div", "x scale", "y"),
            *STEP,
        ],
        COUPLED,
        "step",
    ),
    "a state that is scaled by the batch's norm": graph(
        [
            node("Add", "h x", "sum"),
            node("ReduceL2", "sum", "norm", axes=[0, 1]),
            node("Max", "norm float_one", "scale"),
            node("Div", "sum scale", "h_out"),
            node("Identity", "h_out", "y"),
        ],
        COUPLED,
        "step",
    ),
    "dynamic quantisation": graph(
        [
            node("DynamicQuantizeLinear", "x", "small scale zero"),
            node("DequantizeLinear", "small scale zero", "y"),
            *STEP,
        ],
        f"{COUPLED}.*DynamicQuantizeLinear",
        "step",
    ),
    "noise": graph([node("RandomNormalLike", "x", "noise"), node("Add", "x noise", "y"), *STEP], RANDOM, "step"),
    "noise of a seed": graph(
        [node("RandomUniformLike", "x", "noise", seed=3.0), node("Add", "x noise", "y"), *STEP], RANDOM, "step"
    ),
    "a coin": graph(
        [node("Sigmoid", "x", "chance"), node("Bernoulli", "chance", "y"), *STEP], rf"\(Bernoulli\): {RANDOM}", "step"
    ),
    "a draw": graph(
        [
            node("Multinomial", "x", "drawn"),
            node("Cast", "drawn", "number", to=TensorProto.FLOAT),
            node("Add", "x number", "y"),
            *STEP,
        ],
        rf"\(Multinomial\): {RANDOM}",
        "step",
    ),
    "noise in a branch": graph(
        [
            node("ReduceSum", "x", "sum", keepdims=0),
            node("Greater", "sum half", "more"),
            node(
                "If",
                "more",
                "y",
                then_branch=branch("noise", node("RandomNormalLike", "x", "noise")),
                else_branch=branch("same", node("Identity", "x", "same")),
            ),
            *STEP,
        ],
        rf"\(RandomNormalLike\): {RANDOM}",
        "step",
    ),
    "dropout in training": graph([node("Dropout", "x half true", "y"), *STEP], "training mode", "step"),
    "batch normalisation in training": graph(
        [node("BatchNormalization", "x halves none none units", "y mean variance", training_mode=1), *STEP],
        r"\(BatchNormalization\): normalises by the batch's statistics in training mode",
        "step",
    ),
    "batch normalisation in training, as older files have it": graph(
        [node("BatchNormalization", "x halves none none units", "y mean variance a b"), *STEP],
        r"\(BatchNormalization\): normalises by the batch's statistics in training mode",
        "step",
        opset=9,
    ),
    "normalised over the batch": graph(
        [
            node("ReduceMean", "x", "mean", axes=[0]),
            node("Sub", "x mean", "centred"),
            node("ReduceL2", "centred", "norm", axes=[0]),
            node("Add", "norm float_one", "scale"),
            node("Div", "centred scale", "y"),
            *STEP,
        ],
        COUPLED,
        "step",
    ),
    "a softmax over the batch": graph([node("Softmax", "x", "y", axis=0), *STEP], COUPLED, "step"),
    "mean over the batch after 250 steps": graph(
        [
            node("Add", "h float_one", "h_out"),
            node("Constant", "", "late", value_float=250.0),
            node("Greater", "h late", "reached"),
            node("ReduceMean", "x", "mean", axes=[0]),
            node("Sub", "x mean", "centred"),
            node("Where", "reached centred x", "y"),
        ],
        rf"{COUPLED}: node 'ReduceMean_mean' \(ReduceMean\) reduces over axis 0, which is the batch, and y is computed",
        "step",
    ),
    "mean over the batch of values above 1e8": graph(
        [
            node("Constant", "", "above", value_float=1e8),
            node("Sub", "x above", "over"),
            node("Relu", "over", "part"),
            node("ReduceMean", "part", "mean", axes=[0]),
            node("Add", "x mean", "y"),
            *STEP,
        ],
        rf"{COUPLED}: node 'ReduceMean_mean' \(ReduceMean\) reduces over axis 0, which is the batch, and y is computed",
        "step",
    ),
    "normalised over time": graph(
        [CONVOLVED[0], node("InstanceNormalization", "turned halves none", "convolved"), CONVOLVED[1], *LAST], AHEAD
    ),
    "turned around in time": graph([node("Slice", "x minus_one least axis0 minus_one", "y"), *LAST], AHEAD),
    "a centred maximum": graph(
        [CONVOLVED[0], node("MaxPool", "turned", "convolved", kernel_shape=[3], pads=[1, 1]), CONVOLVED[1], *LAST],
        AHEAD,
    ),
    "the last time step for all": graph(
        [node("Gather", "x last", "newest", axis=0), node("Add", "x newest", "y"), node("Add", "h newest", "h_out")],
        AHEAD,
    ),
    "a quantised product of the batch": graph(
        [
            node("DynamicQuantizeLinear", "x", "small scale zero"),
            node("MatMulInteger", "small weights zero", "whole"),
            node("Cast", "whole", "numbers", to=TensorProto.FLOAT),
            node("Mul", "numbers scale", "y"),
            *STEP,
        ],
        f"{COUPLED}.*DynamicQuantizeLinear",
        "step",
    ),
}

SERVED: dict[str, Graph] = {
    "dropout in evaluation": graph([node("Dropout", "x half false", "y"), *STEP], layout="step"),
    "dropout without a mode": graph([node("Dropout", "x half", "y"), *STEP], layout="step"),
    "both directions of a window within the step": graph(
        [
            node("Slice", "h one many axis1", "kept"),
            node("Unsqueeze", "x axis1", "newest"),
            node("Concat", "kept newest", "h_out", axis=1),
            node("Transpose", "h_out", "window", perm=[1, 0, 2]),
            node("RNN", "window W12 R12", "- ends", hidden_size=FEATURES, direction=b"bidirectional"),
            node("ReduceSum", "ends axis0", "y", keepdims=0),
        ],
        layout="step",
        state=(5, FEATURES),
    ),
    "running sums": graph(
        [
            node("CumSum", "x zero_axis", "sums"),
            node("Add", "sums h", "y"),
            node("Gather", "y last", "h_out", axis=0),
        ]
    ),
    "of positive values only": graph([node("Log", "x", "logs"), node("Add", "logs h", "y"), *STEP], layout="step"),
    "forward": graph(recurrent("GRU", "forward", 3), state=(1, 2), batch_axis=1),
}


def _leak(share: float, above: float) -> Graph:
    """Returns a graph whose y is x plus a small share of the next time step's x, as far as that exceeds a number.

    The share is below what the exactness trial takes for rounding.
    """
    return graph(
        [
            node("Slice", "x one many axis0", "later"),
            node("Slice", "x minus_one many axis0", "end"),
            node("Concat", "later end", "next", axis=0),
            node("Constant", "", "share", value_float=share),
            node("Constant", "", "above", value_float=above),
            node("Sub", "next above", "over"),
            node("Relu", "over", "positive"),
            node("Mul", "positive share", "part"),
            node("Add", "x part", "y"),
            node("Identity", "h", "h_out"),
        ]
    )


SLIGHT: dict[str, tuple[Graph, str]] = {
    "a little of the next time step": (_leak(4e-4, 0.0), "for ordinary inputs, 2 time steps, .* from step 0 on"),
    "of large values": (_leak(4e-4, 200.0), "for inputs 1,000 times as large, .* from step [0-9]+ on"),
}
"""Graphs for which the proof at import says where they begin to differ."""
