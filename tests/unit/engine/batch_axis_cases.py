"""Small graphs that keep the sessions of a batch apart, and the functions that build them."""

from __future__ import annotations

from typing import Any

from onnx import TensorProto, helper

Nodes = list[Any]
Case = tuple[tuple[int, ...], int, Nodes]
"""The state's shape, its batch axis, and the nodes from `h` to `out`, which has the batch at the same axis."""


def node(op: str, inputs: str, outputs: str = "out", **attributes: Any) -> Any:
    """Returns a node. Names are separated by spaces; numbers in brackets are constants: "x [1,2]"; "-" is left out."""
    names = [name.replace("-", "") if name[0] != "[" else name for name in inputs.split()]
    return helper.make_node(op, names, outputs.split(), name=f"{op}_{outputs.split()[0]}", **attributes)


def body(inputs: list[tuple[str, int]], outputs: list[tuple[str, int]], *nodes: Any) -> Any:
    def values(named: list[tuple[str, int]]) -> list[Any]:
        return [
            helper.make_tensor_value_info(name, kind, None if kind == TensorProto.FLOAT else []) for name, kind in named
        ]

    return helper.make_graph(list(nodes), "body", values(inputs), values(outputs))


FLOAT, BOOL, INT = TensorProto.FLOAT, TensorProto.BOOL, TensorProto.INT64
APART: dict[str, Case] = {
    "element-wise, with a bias": ((4,), 0, [node("Add", "h bias4", "a"), node("Tanh", "a")]),
    "broadcast to a higher rank": (
        (2, 4),
        1,
        [node("Expand", "h [5,1,1,1]", "a"), node("ReduceSum", "a [0]", keepdims=0)],
    ),
    "transposed there and back": (
        (2, 4),
        0,
        [
            node("Transpose", "h", "a", perm=[1, 0, 2]),
            node("Softmax", "a", "b", axis=0),
            node("Transpose", "b", perm=[1, 0, 2]),
        ],
    ),
    "heads merged into the batch": (
        (2, 4),
        0,
        [node("Reshape", "h [-1,4]", "a"), node("Softmax", "a", "b", axis=1), node("Reshape", "b [-1,2,4]")],
    ),
    "time merged before the batch": (
        (2, 4),
        1,
        [node("Reshape", "h [-1,4]", "a"), node("MatMul", "a square4", "b"), node("Reshape", "b [2,-1,4]")],
    ),
    "reshaped across the batch for what is element by element, and back": (
        (2, 4),
        0,
        [node("Reshape", "h [2,-1,4]", "a"), node("Tanh", "a", "b"), node("Reshape", "b [-1,2,4]")],
    ),
    "a shape that is computed from sizes": (
        (2, 4),
        0,
        [
            node("Shape", "h", "sizes"),
            node("Slice", "sizes [1] [2]", "heads"),
            node("Slice", "sizes [2] [3]", "width"),
            node("Mul", "heads width", "product"),
            node("Reshape", "product [-1]", "last"),
            node("Concat", "[-1] last", "merged", axis=0),
            node("Reshape", "h merged", "a"),
            node("Softmax", "a", "b"),
            node("Reshape", "b sizes"),
        ],
    ),
    "a new axis and back": ((4,), 0, [node("Unsqueeze", "h [0]", "a"), node("Squeeze", "a [0]")]),
    "flattened": ((2, 4), 0, [node("Flatten", "h", axis=1)]),
    "joined and split along features": (
        (4,),
        0,
        [node("Concat", "h h", "a", axis=-1), node("Split", "a [3,5]", "b c", axis=1), node("Slice", "c [1] [9] [1]")],
    ),
    "joined and split along the batch": (
        (4,),
        0,
        [
            node("Concat", "h h", "a", axis=0),
            node("Tanh", "a", "b"),
            node("Split", "b", "c d", axis=0, num_outputs=2),
            node("Add", "c d"),
        ],
    ),
    "a slice of all of the batch": ((4,), 0, [node("Slice", "h [0] [9223372036854775807] [0]")]),
    "turned around along features": ((4,), 0, [node("Slice", "h [-1] [-99] [1] [-1]")]),
    "gathered along features": ((2, 4), 0, [node("Gather", "h [3,0]", axis=2)]),
    "looked up": (
        (4,),
        0,
        [node("ArgMax", "h", "a", axis=1), node("Gather", "table4 a", "b", axis=0), node("Squeeze", "b [1]")],
    ),
    "looked up by indices of its own": (
        (4,),
        0,
        [node("ArgMax", "h", "a", axis=1), node("GatherElements", "h a", axis=1)],
    ),
    "put at indices of its own": (
        (4,),
        0,
        [
            node("ArgMax", "h", "a", axis=1),
            node("ReduceMin", "h [1]", "b"),
            node("ScatterElements", "h a b", axis=1),
        ],
    ),
    "one-hot": ((4,), 0, [node("ArgMax", "h", "a", axis=1, keepdims=0), node("OneHot", "a [6] halves2")]),
    "padded along features": ((4,), 0, [node("Pad", "h [0,1,0,2]")]),
    "tiled along the batch": (
        (4,),
        0,
        [node("Tile", "h [2,1]", "a"), node("Split", "a", "b c", axis=0, num_outputs=2), node("Mul", "b c")],
    ),
    "channels to pixels": ((4, 2, 2), 0, [node("DepthToSpace", "h", blocksize=2)]),
    "pixels to channels": ((1, 2, 2), 0, [node("SpaceToDepth", "h", blocksize=2)]),
    "turned around in time": (
        (5,),
        0,
        [
            node("Shape", "h", "a", end=1),
            node("ConstantOfShape", "a", "b", value=helper.make_tensor("v", TensorProto.INT64, [1], [3])),
            node("ReverseSequence", "h b", batch_axis=0, time_axis=1),
        ],
    ),
    "sorted along features": ((4,), 0, [node("TopK", "h [2]", "out places")]),
    "summed up along features": ((4,), 0, [node("CumSum", "h one")]),
    "a triangle": ((4, 4), 0, [node("Trilu", "h")]),
    "layer normalisation": ((4,), 0, [node("LayerNormalization", "h scale4 bias4")]),
    "batch normalisation": ((4,), 0, [node("BatchNormalization", "h scale4 bias4 bias4 scale4")]),
    "instance normalisation": ((4, 5), 0, [node("InstanceNormalization", "h scale4 bias4")]),
    "mean and variance": ((4, 5), 0, [node("MeanVarianceNormalization", "h", axes=[1, 2])]),
    "a norm of features": ((4,), 0, [node("LpNormalization", "h", axis=1)]),
    "a mean of features": ((4,), 0, [node("ReduceMean", "h [1]", keepdims=1)]),
    "axes before the batch reduced away": (
        (2, 4),
        1,
        [node("ReduceMax", "h [0]", "a", keepdims=0), node("Unsqueeze", "a [0]")],
    ),
    "a matrix for each session": ((2, 4), 0, [node("Transpose", "h", "a", perm=[0, 2, 1]), node("MatMul", "h a")]),
    "weights from the left": ((4, 2), 0, [node("MatMul", "square4 h")]),
    "a vector": ((2, 4), 0, [node("MatMul", "h bias4")]),
    "Gemm": ((4,), 0, [node("Gemm", "h square4 bias4", transB=1)]),
    "Gemm from the right": ((4,), 1, [node("Gemm", "square4 h")]),
    "Einsum": ((2, 4), 0, [node("Einsum", "h square4", equation="btf,fg->btg")]),
    "a convolution": ((4, 9), 0, [node("Conv", "h kernel4")]),
    "a convolution with each session a column": (
        (4, 9),
        1,
        [
            node("Transpose", "h", "a", perm=[1, 0, 2]),
            node("Conv", "a kernel4", "b"),
            node("Transpose", "b", perm=[1, 0, 2]),
        ],
    ),
    "a transposed convolution": ((4, 9), 0, [node("ConvTranspose", "h kernel4")]),
    "pooling": ((4, 9), 0, [node("MaxPool", "h", kernel_shape=[3])]),
    "pooling of all": ((4, 9), 0, [node("GlobalAveragePool", "h")]),
    "resized": ((4, 9), 0, [node("Resize", "h - scales", mode=b"nearest")]),
    "an LSTM over a window": (
        (5, 4),
        1,
        [node("LSTM", "h w r", "a", hidden_size=2), node("ReduceSum", "a [1]", keepdims=0)],
    ),
    "a GRU, its state carried": (
        (1, 2),
        1,
        [node("Concat", "h h", "a", axis=2), node("GRU", "a w3 r3 - - h", "b out", hidden_size=2)],
    ),
    "values quantised with a fixed scale": (
        (4,),
        0,
        [node("QuantizeLinear", "h half", "a"), node("DequantizeLinear", "a half")],
    ),
    "its shape alone": (
        (4,),
        0,
        [
            node("ReduceSum", "h [0]", "a", keepdims=0),
            node("Shape", "a", "b"),
            node("ConstantOfShape", "b", "c"),
            node("Add", "h c"),
        ],
    ),
    "what couples and is not used": ((4,), 0, [node("ReduceSum", "h [0]", "a"), node("Tanh", "h")]),
    "branches": (
        (4,),
        0,
        [
            node(
                "If",
                "yes",
                then_branch=body([], [("t", FLOAT)], node("Tanh", "h", "t")),
                else_branch=body([], [("e", FLOAT)], node("Exp", "h", "e")),
            )
        ],
    ),
    "the branch that is taken": (
        (4,),
        0,
        [
            node("Equal", "few one", "never"),
            node(
                "If",
                "never",
                then_branch=body([], [("t", FLOAT)], node("ReduceMax", "h", "t")),
                else_branch=body([], [("e", FLOAT)], node("Exp", "h", "e")),
            ),
        ],
    ),
    "padding that is computed from constants": (
        (4,),
        0,
        [
            node("Shape", "[0,1]", "two"),
            node("Sub", "[4] two", "rest"),
            node("ConstantOfShape", "rest", "zeros", value=helper.make_tensor("v", TensorProto.INT64, [1], [0])),
            node("Concat", "[0,1] zeros", "pads", axis=0),
            node("Pad", "h pads"),
        ],
    ),
    "a loop": (
        (4,),
        0,
        [
            node(
                "Loop",
                "few - h",
                body=body(
                    [("i", INT), ("go", BOOL), ("v", FLOAT)],
                    [("go", BOOL), ("u", FLOAT)],
                    node("MatMul", "v square4", "u"),
                ),
            )
        ],
    ),
    "a scan": (
        (2, 4),
        1,
        [
            node("ReduceSum", "h [0]", "s", keepdims=0),
            node(
                "Scan",
                "s h",
                "last out",
                num_scan_inputs=1,
                body=body(
                    [("v", FLOAT), ("x", FLOAT)],
                    [("u", FLOAT), ("y", FLOAT)],
                    node("MatMul", "v square4", "p"),
                    node("Add", "p x", "u"),
                    node("Softmax", "u", "y", axis=1),
                ),
            ),
        ],
    ),
    "a scan along other axes": (
        (3, 4),
        0,
        [
            node("ReduceSum", "h [1]", "s", keepdims=0),
            node(
                "Scan",
                "s h",
                "last out",
                num_scan_inputs=1,
                scan_input_axes=[1],
                scan_output_axes=[-2],
                body=body(
                    [("v", FLOAT), ("x", FLOAT)],
                    [("u", FLOAT), ("y", FLOAT)],
                    node("Add", "v x", "u"),
                    node("Neg", "u", "y"),
                ),
            ),
        ],
    ),
}
