"""PyTorch and Keras modules with several inputs per time step: traced, and compared as a whole."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cellkeeper_service.converters.keras.model import import_keras
from cellkeeper_service.converters.refusal import ImportRefused
from cellkeeper_service.converters.torch.model import import_torch
from cellkeeper_service.engine.load import offline
from cellkeeper_service.model.config import Normalization
from torch import Tensor, nn

from .conftest import free_batch

STEPS = 9
pytestmark = [pytest.mark.timeout(300), pytest.mark.filterwarnings("ignore")]  # the exporter's and Keras' own


class Carried(nn.Module):
    """forward(audio, ids, h) -> (y, h), for one time step."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table, self.cell, self.out = nn.Embedding(5, 4), nn.GRUCell(6, 8), nn.Linear(8, 2)

    def forward(self, audio: Tensor, ids: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        h = self.cell(torch.cat([audio, self.table(ids)], -1), h)
        return self.out(h), h


class Watched(nn.Module):
    """forward(audio, gain), for a sequence; gain is optional and defaults to 1."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.rnn, self.norm = nn.LSTM(3, 8, batch_first=True), nn.LayerNorm(8)

    def forward(self, audio: Tensor, gain: Tensor | None = None) -> Any:
        y, _ = self.rnn(audio)
        return self.norm(y) if gain is None else self.norm(y) * torch.sigmoid(gain)


def drawn(**shapes: tuple[int, ...]) -> dict[str, np.ndarray[Any, Any]]:
    draw = np.random.default_rng(4)
    return {name: draw.standard_normal((STEPS, *shape)).astype(np.float32) for name, shape in shapes.items()}


def close(bundle: Path, inputs: Mapping[str, Any], expected: Any) -> None:
    np.testing.assert_allclose(offline(bundle, dict(inputs))["prediction"], expected, atol=1e-5)


@pytest.mark.parametrize("by_name", [False, True])
def test_a_forward_that_takes_inputs_and_states(tmp_path: Path, by_name: bool) -> None:
    model, ids = Carried(), torch.zeros(1, dtype=torch.int64)
    example: Any = {"ids": ids, "audio": torch.zeros(1, 2)} if by_name else (torch.zeros(1, 2), ids)
    got = import_torch(
        model, tmp_path / "m", example=example, states=torch.zeros(1, 8), vocabulary={"ids": 5}, report=lambda _: None
    )
    assert [(part.name, part.dtype, part.shape, part.vocabulary) for part in got.bundle.spec.inputs] == [
        ("audio", "float32", (2,), 0),
        ("ids", "int64", (), 5),
    ]
    inputs = drawn(audio=(2,)) | {"ids": np.arange(STEPS) % 5}
    h, rows = torch.zeros(1, 8), []
    with torch.no_grad():
        for step in range(STEPS):
            y, h = model(torch.from_numpy(inputs["audio"][step : step + 1]), torch.tensor([step % 5]), h)
            rows.append(y[0].numpy())
    close(tmp_path / "m", inputs, np.stack(rows))


class StateBetween(nn.Module):
    """forward(features, hidden, keep) -> (y, hidden), for one time step; not symmetric in hidden and keep."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.cell, self.out = nn.GRUCell(3, 8), nn.Linear(8, 2)

    def forward(self, features: Tensor, hidden: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.cell(features, hidden * torch.sigmoid(keep))
        return self.out(hidden), hidden


def test_a_forward_that_takes_a_state_before_an_input(tmp_path: Path) -> None:
    model = StateBetween()
    import_torch(
        model,
        tmp_path / "m",
        example={"keep": torch.zeros(1, 1), "features": torch.zeros(1, 3)},
        states={"hidden": torch.zeros(1, 8)},
        report=lambda _: None,
    )
    inputs = drawn(features=(3,), keep=(1,))
    hidden, rows = torch.zeros(1, 8), []
    with torch.no_grad():
        for step in range(STEPS):
            features, keep = (torch.from_numpy(inputs[name][step : step + 1]) for name in ("features", "keep"))
            y, hidden = model(features, hidden, keep)
            rows.append(y[0].numpy())
    close(tmp_path / "m", inputs, np.stack(rows))


@pytest.mark.parametrize(
    ("example", "states", "says"),
    [
        (
            {"keep": torch.zeros(1, 1), "features": torch.zeros(1, 3)},
            torch.zeros(1, 8),
            "if states come before an input, pass example and states as dicts by argument name",
        ),
        (
            {"keep": torch.zeros(1, 1), "gain": torch.zeros(1, 3)},
            {"hidden": torch.zeros(1, 8)},
            "got ['keep', 'gain'], expected arguments of StateBetween's forward",
        ),
        (
            {"features": torch.zeros(1, 3), "keep": torch.zeros(1)},
            {"hidden": torch.zeros(1, 8)},
            "keep: got shape [1], expected [1] before its features, as in the first input: all inputs have the same "
            "time steps and batch; for one number, pass [1, 1], and take [..., 0] of it in forward",
        ),
    ],
)
def test_names_that_do_not_fit(tmp_path: Path, example: Any, states: Any, says: str) -> None:
    with pytest.raises(ImportRefused) as caught:
        import_torch(StateBetween(), tmp_path / "m", example=example, states=states, report=lambda _: None)
    assert says in str(caught.value)


class Flagged(nn.Module):
    """forward(x, done, h), for one time step; torch.onnx cannot subtract integers from a number."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.cell = nn.GRUCell(3, 8)

    def forward(self, x: Tensor, done: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        h = self.cell(x, (1.0 - done)[:, None] * h)
        return h[:, :2], h


def test_what_torch_onnx_cannot_export_is_told_by_its_cause(tmp_path: Path) -> None:
    example = {"x": torch.zeros(1, 3), "done": torch.zeros(1, dtype=torch.int64)}
    with pytest.raises(ImportRefused, match=r"torch\.onnx cannot export it \(.*aten\.sub"):
        import_torch(
            Flagged(),
            tmp_path / "m",
            example=example,
            states=torch.zeros(1, 8),
            vocabulary={"done": 2},
            report=lambda _: None,
        )


class Static(nn.Module):
    """forward(forcing, catchment): what is the same in all time steps is repeated over them."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.rnn, self.out = nn.LSTM(5, 8, batch_first=True), nn.Linear(8, 1)

    def forward(self, forcing: Tensor, catchment: Tensor) -> Tensor:
        fixed = catchment[:, None].expand(-1, forcing.shape[1], -1)
        y: Tensor = self.out(self.rnn(torch.cat([forcing, fixed], -1))[0])
        return y


def test_an_input_without_time_steps_is_refused_with_what_to_do(tmp_path: Path) -> None:
    example = torch.zeros(1, 20, 3), torch.zeros(1, 2)
    with pytest.raises(ImportRefused, match="stays the same over time is one of each time step, or a state"):
        import_torch(Static(), tmp_path / "m", example=example, layout="batch_first", report=lambda _: None)


class StaticAsState(nn.Module):
    """forward(forcing, h, c, catchment): one time step of Static, with the catchment among the states."""

    def __init__(self, model: Static) -> None:
        super().__init__()
        self.model = model

    def forward(self, forcing: Tensor, h: Tensor, c: Tensor, catchment: Tensor) -> tuple[Tensor, ...]:
        y, (h, c) = self.model.rnn(torch.cat([forcing, catchment], -1)[:, None], (h, c))
        return self.model.out(y[:, 0]), h, c, catchment


def test_an_input_without_time_steps_as_a_state(tmp_path: Path) -> None:
    """The recipe of docs/models.md."""
    model, catchment = Static(), torch.tensor([[0.5, -1.0]])
    states = {"h": torch.zeros(1, 1, 8), "c": torch.zeros(1, 1, 8), "catchment": catchment}
    import_torch(StaticAsState(model), tmp_path / "m", example=torch.zeros(1, 3), states=states, report=lambda _: None)
    forcing = drawn(forcing=(3,))["forcing"]
    with torch.no_grad():
        expected = model(torch.from_numpy(forcing)[None], catchment)[0].numpy()
    np.testing.assert_allclose(offline(tmp_path / "m", forcing)["prediction"], expected, atol=1e-5)


def test_a_forward_over_sequences_is_traced_with_all_that_the_example_has(tmp_path: Path) -> None:
    model = Watched()
    example = (torch.zeros(1, 5, 3), torch.zeros(1, 5, 8))
    got = import_torch(model, tmp_path / "m", example=example, report=lambda _: None)
    assert [part.name for part in got.bundle.spec.inputs] == ["audio", "gain"]
    inputs = drawn(audio=(3,), gain=(8,))
    with torch.no_grad():
        expected = model(*(torch.from_numpy(values)[None] for values in inputs.values()))[0].numpy()
    close(tmp_path / "m", inputs, expected)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (
            {"example": (torch.zeros(1, 5, 3), torch.zeros(1, 4, 8))},
            r"example: gain: got shape \[1, 4, 8\], expected \[",
        ),
        (
            {"example": {"audio": torch.zeros(1, 5, 3), "x": torch.zeros(1, 5, 8)}},
            r"example: got \['audio', 'x'\], exp",
        ),
        ({"example": ()}, "example: got 0 inputs, expected the first arguments of Watched's forward"),
        ({"example": (torch.zeros(1, 5, 3), 1.0)}, "example: gain: got float, expected a tensor"),
        (
            {
                "example": (torch.zeros(1, 5, 3), torch.zeros(1, 5, 8)),
                "normalization": Normalization((0.0,) * 3, (1.0,) * 3),
            },
            "normalization: got one for a module with several inputs",
        ),
    ],
)
def test_examples_that_do_not_fit(tmp_path: Path, options: dict[str, Any], says: str) -> None:
    with pytest.raises(ImportRefused, match=says):
        import_torch(Watched(), tmp_path / "m", report=lambda _: None, **options)


def test_a_forward_that_looks_ahead_in_its_second_input_is_refused(tmp_path: Path) -> None:
    class Ahead(Watched):
        def forward(self, audio: Tensor, gain: Tensor | None = None) -> Any:
            return super().forward(audio, None if gain is None else gain.flip(1))

    with pytest.raises(ImportRefused, match="looks ahead"):
        import_torch(
            Ahead(), tmp_path / "m", example=(torch.zeros(1, 5, 3), torch.zeros(1, 5, 8)), report=lambda _: None
        )


def two_branches(keras: Any) -> Any:
    layers = keras.layers
    keras.utils.set_random_seed(2)
    audio, words = keras.Input((None, 3), name="audio"), keras.Input((None,), dtype="int32", name="words")
    heard = layers.LSTM(8, return_sequences=True)(audio)
    read = layers.GRU(4, return_sequences=True)(layers.Embedding(6, 5)(words))
    return keras.Model([audio, words], layers.Dense(2)(layers.Concatenate()([heard, read])))


@free_batch
def test_keras_with_two_inputs(tmp_path: Path) -> None:
    keras = pytest.importorskip("keras")
    model = two_branches(keras)
    got = import_keras(model, tmp_path / "m", trace=True, report=lambda _: None)
    assert [(part.name, part.vocabulary) for part in got.bundle.spec.inputs] == [("audio", 0), ("words", 6)]
    inputs = drawn(audio=(3,)) | {"words": np.arange(STEPS) % 6}
    expected = model([inputs["audio"][None], inputs["words"][None]], training=False)
    close(tmp_path / "m", inputs, keras.ops.convert_to_numpy(expected)[0])
    model.save(tmp_path / "two.keras")
    saved = import_keras(tmp_path / "two.keras", tmp_path / "saved", trace=True, report=lambda _: None)
    assert saved.bundle.spec.inputs == got.bundle.spec.inputs


def test_a_keras_input_without_time_is_refused(tmp_path: Path) -> None:
    keras = pytest.importorskip("keras")
    layers = keras.layers
    audio, speaker = keras.Input((None, 3), name="audio"), keras.Input((4,), name="speaker")
    y = layers.LSTM(4, return_sequences=True)(audio, initial_state=[layers.Dense(4)(speaker), layers.Dense(4)(speaker)])
    with pytest.raises(
        ImportRefused,
        match=r"input speaker: got shape \[None, 4\], expected \[batch, time, features \.\.\.\] with fixed sizes",
    ):
        import_keras(keras.Model([audio, speaker], y), tmp_path / "m", trace=True, report=lambda _: None)
