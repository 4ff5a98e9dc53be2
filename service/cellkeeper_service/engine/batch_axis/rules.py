"""The rule of each operator, which derives the placements of its outputs from those of its inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from . import elementwise, moves, products, reductions
from .call import Call
from .placement import Placement
from .reductions import one_axis, over

Rule = Callable[[Call], list[Placement]]


def _all(rule: Rule, names: str) -> dict[str, Rule]:
    return dict.fromkeys(names.split(), rule)


RULES: Mapping[str, Rule] = {
    **dict.fromkeys(elementwise.OPERATORS, elementwise.broadcast),
    **_all(elementwise.first_alone, "CastLike DequantizeLinear Expand QuantizeLinear"),
    **_all(moves.reshape, "Flatten Reshape Squeeze Unsqueeze"),
    **_all(moves.transpose, "Transpose"),
    **_all(moves.concat, "Concat"),
    **_all(moves.slice_, "Slice"),
    **_all(moves.split, "Split"),
    **_all(moves.gather, "Gather"),
    **_all(moves.gather_elements, "GatherElements ScatterElements"),
    **_all(moves.one_hot, "OneHot"),
    **_all(moves.pad, "Pad"),
    **_all(moves.tile, "Tile"),
    **_all(moves.same_place, "DepthToSpace SpaceToDepth STFT"),
    **_all(moves.resize, "Resize Upsample"),
    **_all(moves.reverse_sequence, "ReverseSequence"),
    **_all(moves.triangle, "Trilu"),
    **_all(
        over("reduces", reductions.reduced),
        "ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum "
        "ReduceSumSquare",
    ),
    **_all(over("reduces", one_axis(0)), "ArgMax ArgMin"),
    **_all(over("reduces", reductions.after_two), "GlobalAveragePool GlobalLpPool GlobalMaxPool"),
    **_all(over("normalises", reductions.after_two), "InstanceNormalization"),
    **_all(over("normalises", reductions.from_axis(-1)), "LayerNormalization RMSNormalization"),
    **_all(over("normalises", reductions.mean_variance), "MeanVarianceNormalization"),
    **_all(over("normalises", one_axis(-1)), "LpNormalization"),
    **_all(over("normalises", reductions.softmax), "Hardmax LogSoftmax Softmax"),
    **_all(over("accumulates", reductions.summed_up), "CumSum"),
    **_all(over("sorts", one_axis(-1)), "TopK"),
    **_all(reductions.batch_norm, "BatchNormalization"),
    **_all(reductions.whole_tensor, "DynamicQuantizeLinear"),
    **_all(products.mat_mul, "MatMul MatMulInteger"),
    **_all(products.gemm, "Gemm"),
    **_all(products.einsum, "Einsum"),
    **_all(products.convolution, "Conv ConvInteger ConvTranspose"),
    **_all(products.pooling, "AveragePool LpPool MaxPool"),
    **_all(products.recurrent, "GRU LSTM RNN"),
}
"""The rules of ONNX's own operators."""

CONTRIBUTED: Mapping[str, Rule] = _all(reductions.whole_tensor, "DynamicQuantizeLSTM DynamicQuantizeMatMul")
"""The rules of onnxruntime's operators."""
