"""The inputs of the comparison exercise a model's normalization, its masks and the values that it compares with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cellkeeper_service.converters import Missing, Normalization, import_keras, import_onnx, import_torch
from cellkeeper_service.converters.drawn import draw_ids, random_sequences, scaled_as, special_sequences
from cellkeeper_service.converters.onnx import inputs as onnx_inputs
from cellkeeper_service.converters.onnx.inputs import compared_values, input_normalization
from cellkeeper_service.converters.proof import Drawn
from cellkeeper_service.converters.reference import masked_input, masks
from cellkeeper_service.converters.stack import INPUT, Affine, Dense, Embed, Mask, Merge, Normalize, Stack
from cellkeeper_service.domain.engine import Array
from cellkeeper_service.domain.spec import InputSpec
from onnx import parser
from torch import Tensor, nn

from .conftest import free_batch
from .leftovers import refused

QUICK: dict[str, Any] = {"max_batch": 8, "report": str}
F = 3
OFFSET, SCALE = np.array([60.0, -2.0, 1e4]), np.array([3.0, 0.5, 20.0])
NORMALIZE = Normalize("n", OFFSET, SCALE)
AFFINE = Affine("a", 1 / SCALE, -OFFSET / SCALE)
DENSE = Dense("d", np.ones((F, F), np.float32))

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")


def is_around(sequences: Any, offset: Array = OFFSET, scale: Array = SCALE) -> bool:
    values = (np.concatenate(list(sequences)) - offset) / scale
    return bool((np.abs(values.mean(axis=0)) < 0.2).all() and (np.abs(values.std(axis=0) - 1) < 0.2).all())


@pytest.mark.parametrize(
    "stack",
    [
        Stack(F, (NORMALIZE, DENSE)),
        Stack(F, (AFFINE, DENSE)),
        Stack(F, (Normalize("own", OFFSET, np.ones(F)), Affine("b", 1 / SCALE, np.zeros(F)), DENSE)),
        Stack(F, (DENSE, NORMALIZE, Merge("m", "concatenate")), sources=((INPUT,), (INPUT,), (0, 1))),
    ],
    ids=["normalize", "affine", "both", "branch"],
)
def test_inputs_are_drawn_around_what_the_model_does_to_them_first(stack: Stack) -> None:
    drawn = random_sequences(stack)
    assert is_around(drawn)
    halved = scaled_as(stack)(drawn[0], 0.5)
    assert halved is not None
    np.testing.assert_allclose(halved - OFFSET, (drawn[0] - OFFSET) / 2, atol=2e-3)


@pytest.mark.parametrize(
    "layers",
    [
        (Mask("m", -10.0),),
        (Affine("a", np.full(F, 1 / 127.5), np.full(F, -1.0)), Mask("m", -1.0)),
        (Normalize("n", OFFSET, SCALE), Mask("m", 0.0)),
        (Normalize("n", OFFSET, SCALE, (-999.0, -10.0)), Mask("m", -10.0)),
    ],
    ids=["first", "rescaled", "normalized", "missing"],
)
def test_some_time_steps_are_masked_also_the_first_ones(layers: Any) -> None:
    stack = Stack(F, (*layers, DENSE))
    drawn = random_sequences(stack)
    shares = [np.mean([masks(stack, step) for step in sequence]) for sequence in drawn]
    assert all(0.15 < share < 0.4 for share in shares)
    assert {masks(stack, sequence[0]) for sequence in drawn} == {True, False}
    scaled = scaled_as(stack)(drawn[1], 1e3)
    assert scaled is not None
    assert [masks(stack, step) for step in scaled] == [masks(stack, step) for step in drawn[1]]
    ((_, special),) = special_sequences(stack)
    skipped = masked_input(stack)
    partly = (special == skipped).any(axis=1) & ~(special == skipped).all(axis=1)
    assert partly.any()


def test_a_mask_that_no_input_reaches_has_no_masked_input() -> None:
    assert masked_input(Stack(1, (Normalize("n", np.array([1000.1]), np.array([0.3])), Mask("m", -10.0)))) is None


def test_the_first_and_last_ids_are_drawn_of_any_vocabulary() -> None:
    draw = np.random.default_rng(0)
    ids = draw_ids(draw, 1_000_000, [200], "int32", [77.0, -1.0, 0.5])
    assert {0, 1, 2, 3, 77, 999_999} <= set(ids.tolist())
    assert ids.dtype == np.int32
    assert set(draw_ids(draw, 2, [50], "int64").tolist()) == {0, 1}
    embed = Stack(0, (Embed("e", np.ones((1_000_000, 2), np.float32), mask_zero=True),))
    shares = [np.mean(sequence == 0) for sequence in random_sequences(embed)]
    assert all(0.1 < share < 0.4 for share in shares)


def graph(body: str) -> Any:
    head = '<ir_version: 8, opset_import: ["" : 17, "ai.onnx.ml" : 3]>\n'
    ends = "agraph (float[B, 3] x, float[B, 3] h) => (float[B, 3] y, float[B, 3] h_out)"
    return parser.parse_model(f"{head}{ends}\n{{\n{body}\ny = Add(z, h)\nh_out = Tanh(y)\n}}")


def recorded(monkeypatch: pytest.MonkeyPatch) -> list[Drawn]:
    """Returns a list to which each import of a graph appends the inputs that it draws."""
    drawn: list[Drawn] = []
    draw = onnx_inputs.draw_inputs

    def kept(*words: Any) -> Drawn:
        drawn.append(draw(*words))
        return drawn[-1]

    monkeypatch.setattr("cellkeeper_service.converters.onnx.model.draw_inputs", kept)
    return drawn


CENTRED = """o = Constant<value = float[3] {60.0, -2.0, 10000.0}>()
s = Constant<value = float[3] {3.0, 0.5, 20.0}>()
m = Sub(x, o)
z = Div(m, s)"""


@pytest.mark.parametrize(
    "body",
    [
        CENTRED,
        CENTRED.replace("m = Sub(x, o)", "n = Sub(o, x)\nminus = Constant<value = float {-1.0}>()\nm = Mul(n, minus)"),
        """g = Constant<value = float[3] {1.0, 1.0, 1.0}>()
b = Constant<value = float[3] {0.0, 0.0, 0.0}>()
o = Constant<value = float[3] {60.0, -2.0, 10000.0}>()
v = Constant<value = float[3] {9.0, 0.25, 400.0}>()
i = Identity(x)
z = BatchNormalization<epsilon = 0.0>(i, g, b, o, v)""",
        "z = ai.onnx.ml.Scaler<offset = [60.0, -2.0, 10000.0], scale = [0.33333333, 2.0, 0.05]>(x)",
    ],
    ids=["sub and div", "the other way round", "batch normalization", "scikit-learn's scaler"],
)
def test_a_graph_that_scales_its_input_is_compared_around_that(
    body: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = graph(body)
    found = input_normalization(model, "x", F)
    assert found is not None
    np.testing.assert_allclose(found.offset, OFFSET, rtol=1e-6)
    np.testing.assert_allclose(found.scale, SCALE, rtol=1e-6)
    drawn = recorded(monkeypatch)
    assert import_onnx(model.SerializeToString(), tmp_path / "m", **QUICK).parity.relative < 1e-5
    assert is_around(drawn[0].sequences)


def test_a_graph_that_does_something_else_first_has_no_normalization() -> None:
    for body in ("z = Tanh(x)", "z = Sub(x, h)", "z = Identity(x)"):
        assert input_normalization(graph(body), "x", F) is None


def test_numbers_that_a_graph_compares_with_are_drawn() -> None:
    model = graph("""c = Constant<value = float {-999.0}>()
e = Equal(x, c)
t = Constant<value = float {50.0}>()
g = Greater(x, t)
b = Or(e, g)
zero = Constant<value = float {0.0}>()
z = Where(b, zero, x)""")
    assert compared_values(model) == [-999.0, 50.0]
    declaration: Any = type("D", (), {"inputs": (InputSpec("x", "float32", (F,)),)})
    read: Any = type("G", (), {"model": model})
    drawn = onnx_inputs.draw_inputs(read, declaration)
    ((_, special),), ordinary = drawn.special, drawn.sequences
    for value in (0.0, -999.0, 50.0, 51.0):
        assert (special == value).any()
        assert (special == value).all(axis=1).any()
        assert not (np.stack(ordinary) == value).any()


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.head = nn.GRU(F, 4, batch_first=True), nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.rnn(x)[0]) + x.mean(-1, keepdim=True)
        return y


def test_a_traced_module_is_compared_around_its_normalization(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = recorded(monkeypatch)
    numbers = Normalization(tuple(OFFSET.tolist()), tuple(SCALE.tolist()))
    example = torch.zeros(2, 5, F)
    imported = import_torch(Scaled(), tmp_path / "m", example=example, normalization=numbers, **QUICK)
    assert imported.parity.relative < 1e-5
    assert is_around(drawn[0].sequences)


def test_rounding_of_large_offsets_to_float32_is_said(tmp_path: Path) -> None:
    times = Normalization((1_699_999_744.0, 0.0, 0.0), (65_536.0, 1.0, 1.0))
    layers = [nn.GRU(F, 4), nn.Linear(4, 1)]
    said = str(import_torch(layers, tmp_path / "m", normalization=times, **QUICK))
    assert "inputs are float32, which rounds a feature by up to 3.1e-03 of its scale" in said
    small = Normalization((20.0, 0.0, 0.0), (5.0, 1.0, 1.0))
    assert "rounds a feature" not in str(import_torch(layers, tmp_path / "n", normalization=small, **QUICK))
    odd = Normalization((1_700_000_003.0, 0.0, 0.0), (300.0, 1.0, 1.0))
    words = "served values differ .*: inputs are float32, which rounds|served values differ .*; inputs are float32"
    refused(tmp_path, words, import_torch, layers, tmp_path / "o", normalization=odd, **QUICK)


def test_batch_normalization_of_large_numbers_loses_no_digits(keras: Any, tmp_path: Path) -> None:
    from cellkeeper_service.engine.load import offline
    from keras import Input, Sequential
    from keras import layers as L

    model = Sequential([Input((None, F)), L.BatchNormalization(), L.LSTM(6, return_sequences=True), L.Dense(2)])
    mean = np.array([3e4, -5e4, 1e4])
    model.layers[0].set_weights([np.ones(F), np.zeros(F), mean, np.array([4.0, 1.0, 9.0])])
    model.save(tmp_path / "m.keras")
    import_keras(tmp_path / "m.keras", tmp_path / "m", **QUICK)
    x = np.random.default_rng(0).normal(mean, [2.0, 1.0, 3.0], (40, F)).astype(np.float32)
    expected = keras.ops.convert_to_numpy(model(x[None], training=False))[0]
    np.testing.assert_allclose(offline(tmp_path / "m", x)["prediction"], expected, atol=1e-5 * np.abs(expected).max())


@free_batch
def test_a_mask_that_a_traced_keras_model_makes_itself_is_compared(keras: Any, tmp_path: Path) -> None:
    from keras import Input, Model, ops
    from keras import layers as L

    x = Input((None, F))
    kept = ops.any(ops.not_equal(x, -1.0), axis=-1)
    model = Model(x, L.Dense(2)(L.LSTM(6, return_sequences=True)(x, mask=kept)))
    model.save(tmp_path / "m.keras")
    words = "for ordinary inputs with zeros and the values that the model compares with"
    refused(tmp_path, words, import_keras, tmp_path / "m.keras", tmp_path / "m", trace=True, **QUICK)


FILLED = """f = Constant<value = float {0.75}>()
n = IsNaN(x)
z = Where(n, f, x)"""


@pytest.mark.parametrize(
    ("missing", "agrees"),
    [
        (None, True),
        (Missing("constant", 0.75), True),
        (Missing("constant", 0.0), False),
        (Missing("hold", 0.75), False),
    ],
)
def test_a_graph_that_fills_missing_values_itself_agrees_with_the_policy(
    missing: Missing | None, agrees: bool, tmp_path: Path
) -> None:
    data = graph(FILLED).SerializeToString()
    if agrees:
        assert import_onnx(data, tmp_path / "m", missing=missing, **QUICK).parity.relative < 1e-5
        return
    words = "for ordinary inputs with missing values, which the original fills itself"
    refused(tmp_path, words, import_onnx, data, tmp_path / "m", missing=missing, **QUICK)


def test_a_graph_that_leaves_missing_values_is_imported_with_any_policy(tmp_path: Path) -> None:
    for number, missing in enumerate((Missing("constant", 0.5), Missing("hold"))):
        data = graph("z = Tanh(x)").SerializeToString()
        assert import_onnx(data, tmp_path / f"m{number}", missing=missing, **QUICK).parity.relative < 1e-5


def test_half_precision_is_said(tmp_path: Path) -> None:
    lines: list[str] = []
    for number, dtype in enumerate((torch.bfloat16, torch.float16, torch.float32)):
        layers = [nn.GRU(F, 4).to(dtype), nn.Linear(4, 1).to(dtype)]
        import_torch(layers, tmp_path / f"m{number}", max_batch=8, report=lines.append)
    said = [line.partition(",")[0] for line in lines if line.startswith("dtype: ")]
    assert said == ["dtype: the weights are bfloat16", "dtype: the weights are float16"]
