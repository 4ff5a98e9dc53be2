"""Modules whose forward does more than their children are traced. What cannot be streamed is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cellkeeper_service.converters import import_torch
from cellkeeper_service.engine.load import offline
from cellkeeper_service.model.config import GraphConfig, Normalization, RecurrentConfig, Transform
from torch import Tensor, nn

from examples.recipes.min_gru import MinGru
from examples.recipes.residual_lstm import Residual
from verification.parity.torch_cases import Forecaster
from verification.parity.trace_cases import Convention, LastStep, Learned

from .leftovers import refused

QUICK: dict[str, Any] = {"max_batch": 8, "report": str}
SEQUENCES = torch.zeros(2, 6, 3)

pytestmark = [pytest.mark.timeout(300), pytest.mark.filterwarnings("ignore")]  # the exporter's own


def test_layers_over_a_sequence_with_paths_around_them(tmp_path: Path) -> None:
    imported = import_torch(
        Residual(),
        tmp_path / "m",
        example=SEQUENCES,
        normalization=Normalization((1.0, 2.0, 3.0), (4.0, 5.0, 6.0)),
        output=[Transform("scale", (2.0, 3.0)), Transform("softmax")],
        **QUICK,
    )
    assert imported.parity.source.endswith("(traced)")
    assert imported.parity.relative < 1e-5
    assert imported.parity.exact
    assert [(state.name, state.shape) for state in imported.bundle.spec.states] == [
        ("lstm_h", (2, 16)),
        ("lstm_c", (2, 16)),
        ("gru_h", (1, 16)),
    ]


def test_states_as_arguments_begin_with_the_given_ones(tmp_path: Path) -> None:
    states = {"state": (torch.full((1, 2, 8), 0.5), torch.full((1, 2, 8), -0.25))}
    imported = import_torch(Convention(), tmp_path / "m", example=SEQUENCES, states=states, **QUICK)
    assert imported.parity.relative < 1e-5
    assert isinstance(imported.bundle.config, GraphConfig)
    assert [state.name for state in imported.bundle.spec.states] == ["state_0", "state_1"]
    initial = torch.frombuffer(bytearray(imported.bundle.initial_state), dtype=torch.float32)
    assert initial.tolist() == [0.5] * 8 + [-0.25] * 8


class Swapped(Convention):
    """Takes and returns c before h."""

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        y, (h, c) = super().forward(x, state)
        return y, (c, h)


def test_states_of_one_shape_that_come_back_swapped_are_named(tmp_path: Path) -> None:
    states = {"state": (torch.zeros(1, 2, 8), torch.zeros(1, 2, 8))}
    words = r"states state_0 and state_1: are returned by its forward in the other order"
    refused(tmp_path, words, import_torch, Swapped(), tmp_path / "m", example=SEQUENCES, states=states, **QUICK)


class Step(nn.Module):
    """An LSTMCell; `give` arranges y, h and c as forward returns them."""

    def __init__(self, give: Callable[..., Any]) -> None:
        super().__init__()
        self.cell = nn.LSTMCell(3, 8)
        self._give = give

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> Any:
        h, c = self.cell(x, (h, c))
        return self._give(2.0 * h, h, c)


class StepOfADict(Step):
    def forward(self, x: Tensor, state: dict[str, Tensor]) -> Any:  # type: ignore[override]
        return super().forward(x, state["h"], state["c"])


@pytest.mark.parametrize(
    ("kind", "give", "nested"),
    [
        (Step, lambda y, h, c: (y, h, c), False),
        (Step, lambda y, h, c: {"c": c, "h": h, "y": y}, False),
        (StepOfADict, lambda y, h, c: (y, {"h": h, "c": c}), True),
    ],
    ids=["in the order of forward", "in a dict with the output", "in a dict of their own"],
)
def test_states_by_name_come_back_as_the_same_ones(
    kind: type[Step], give: Callable[..., Any], nested: bool, tmp_path: Path
) -> None:
    torch.manual_seed(6)
    model = kind(give)
    by_name = {"c": torch.full((1, 8), 0.5), "h": torch.zeros(1, 8)}
    states = {"state": by_name} if nested else by_name
    import_torch(model, tmp_path / "m", example=torch.zeros(1, 3), states=states, **QUICK)
    inputs = np.random.default_rng(6).standard_normal((300, 3)).astype(np.float32)
    h, c, expected = by_name["h"], by_name["c"], []
    with torch.no_grad():
        for x in torch.from_numpy(inputs):
            h, c = model.cell(x[None], (h, c))
            expected.append(2.0 * h[0].numpy())
    assert np.abs(offline(tmp_path / "m", inputs)["prediction"] - np.stack(expected)).max() < 1e-5


def test_a_module_that_its_children_explain_stays_with_the_recurrent_engines(tmp_path: Path) -> None:
    imported = import_torch(Forecaster(), tmp_path / "m", example=torch.zeros(2, 6, 4), **QUICK)
    assert isinstance(imported.bundle.config, RecurrentConfig)


class Own(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(3, 8, batch_first=True)
        self.head = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Any:
        return self.head(self.rnn(x)[0] * 2.0)


class BothWays(Own):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(3, 4, batch_first=True, bidirectional=True)


class Halved(Own):
    def forward(self, x: Tensor) -> Any:
        return self.head(self.rnn(x[:, ::2])[0])


class Decoder(Own):
    """The second layer starts from the first layer's final state."""

    def __init__(self) -> None:
        super().__init__()
        self.second = nn.LSTM(3, 8, batch_first=True)

    def forward(self, x: Tensor) -> Any:
        _, state = self.rnn(x)
        return self.head(self.second(x, state)[0])


class Branching(Own):
    def forward(self, x: Tensor) -> Any:
        y = self.rnn(x)[0]
        return self.head(y if x.abs().max() < 50 else -y)


class Centred(Own):
    """A window that looks one time step ahead."""

    def __init__(self) -> None:
        super().__init__()
        self.window = nn.Conv1d(3, 3, 3)

    def forward(self, x: Tensor) -> Any:
        return super().forward(self.window(nn.functional.pad(x.transpose(1, 2), (1, 1))).transpose(1, 2))


class NothingRecurrent(nn.Module):
    def forward(self, x: Tensor) -> Any:
        return x.cumsum(1)


class ForgetsItsState(Convention):
    def forward(self, x: Tensor, state: tuple[Tensor, Tensor]) -> Any:
        return super().forward(x, state)[0]


@pytest.mark.parametrize(
    ("model", "options", "words"),
    [
        (BothWays(), {}, r"rnn \(LSTM\): bidirectional; the backward direction"),
        (Halved(), {}, r"Halved: rnn \(LSTM\): takes 3 of 5 time steps, expected all.*docs/models.md"),
        (Decoder(), {}, r"Decoder: second \(LSTM\): begins with a state that depends on the input"),
        (Centred(), {}, r"Centred: window \(Conv1d\): its window is not padded with constants on the left only"),
        (
            Branching(),
            {},
            r"Branching: torch.export cannot trace one time step.*remove branches on values.*docs/models",
        ),
        (NothingRecurrent(), {"layout": "batch_first"}, "calls no recurrent layer or cell of its framework"),
        (Own(), {"example": torch.zeros(2, 3)}, r"example: got shape \[2, 3\] without states"),
        (Own(), {"example": torch.zeros(2, 6, 3, 1)}, r"example: got shape \[2, 6, 3, 1\], expected"),
        (Own(), {"example": "x"}, "example: got str, expected a tensor"),
        (Own(), {"layout": "sideways"}, "layout: got 'sideways', expected one of step, time_first, batch_first"),
        (NothingRecurrent(), {}, "the time axis is ambiguous; pass layout"),
        (Convention(), {"states": {"h": torch.zeros(1, 2, 8)}}, r"states \['h'\]: not arguments of its forward"),
        (Convention(), {"states": ("h", "c")}, "states: got tuple of 2, expected tensors of floats"),
        (Convention(), {"states": (torch.zeros(1, 4, 8),) * 2}, "no axis of a state has the size of the batch"),
        (Convention(), {"states": (torch.rand(1, 2, 8),) * 2}, "state state_0: its rows differ"),
        (ForgetsItsState(), {"states": (torch.zeros(1, 2, 8),) * 2}, "with the given states for a batch of 11 fails"),
        (MinGru(), {"example": torch.zeros(2, 4), "states": torch.zeros(2, 8)}, "for a batch of 11 fails"),
        (Residual(), {"initial_state": torch.zeros(2, 16)}, "initial_state: got one for a module that is traced"),
        ([nn.LSTM(3, 8), nn.BatchNorm1d(8)], {}, "example: got one with list, expected it with a torch module"),
    ],
)
def test_what_cannot_be_traced_is_refused(model: Any, options: dict[str, Any], words: str, tmp_path: Path) -> None:
    refused(tmp_path, words, import_torch, model, tmp_path / "m", **{"example": SEQUENCES, **options}, **QUICK)


class Averaged(Own):
    """Every output contains the mean over the sequence."""

    def forward(self, x: Tensor) -> Any:
        y = self.rnn(x)[0]
        return self.head(y + y.mean(1, keepdim=True))


class WithAnother(Own):
    """A module with a second output that no stream can give."""

    def __init__(self, change: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self._change = change

    def forward(self, x: Tensor) -> Any:
        y = self.rnn(x)[0]
        return self.head(2.0 * y), self._change(y)


@pytest.mark.parametrize("change", [lambda y: y.cumsum(1)], ids=["a running sum"])
def test_every_output_is_compared(change: Callable[[Tensor], Tensor], tmp_path: Path) -> None:
    words = "WithAnother: served values differ"
    refused(tmp_path, words, import_torch, WithAnother(change), tmp_path / "m", example=SEQUENCES, **QUICK)


class StateSpace(nn.Module):
    """A module whose state has the name that the graph gives to the input."""

    def __init__(self) -> None:
        super().__init__()
        self.into = nn.Linear(3, 8)

    def forward(self, u: Tensor, x: Tensor) -> Any:
        x = 0.5 * x + self.into(u)
        return 2.0 * x, x


class NeverAlone(Own):
    """A module with a layer that stays in training and refuses a batch of 1."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(8)

    def train(self, mode: bool = True) -> NeverAlone:
        super().train(mode)
        self.norm.train()
        return self

    def forward(self, x: Tensor) -> Any:
        y = self.rnn(x)[0]
        return self.head(y + self.norm(y.transpose(1, 2)).transpose(1, 2))


def test_a_state_named_as_the_graph_names_its_input(tmp_path: Path) -> None:
    states = torch.zeros(1, 8)
    imported = import_torch(StateSpace(), tmp_path / "m", example=torch.zeros(1, 3), states=states, **QUICK)
    assert [state.name for state in imported.bundle.spec.states] == ["x_state"]


def test_a_forward_that_fails_on_a_single_sequence_is_refused(tmp_path: Path) -> None:
    words = r"fails on a single sequence of 1 time steps, a batch of 1 \(Expected more than 1 value per channel"
    refused(tmp_path, words, import_torch, NeverAlone(), tmp_path / "m", example=SEQUENCES, **QUICK)


class BeginsAnew(Own):
    """A module that resets its state every 256 time steps."""

    def forward(self, x: Tensor) -> Any:
        return torch.cat([self.head(self.rnn(part)[0]) for part in torch.split(x, 256, 1)], 1)


@pytest.mark.parametrize("options", [{}, {"example": SEQUENCES}], ids=["read", "traced"])
def test_a_state_that_begins_anew_within_long_sequences_is_refused(options: dict[str, Any], tmp_path: Path) -> None:
    words = "ordinary inputs, 1200 time steps, .*at step 256" if not options else "1200 time steps, .*from step 256 on"
    refused(tmp_path, words, import_torch, BeginsAnew(), tmp_path / "m", **options, **QUICK)


def test_what_looks_ahead_is_refused(tmp_path: Path) -> None:
    refused(tmp_path, r"Averaged: .* differ", import_torch, Averaged(), tmp_path / "m", example=SEQUENCES, **QUICK)


def test_the_refusal_of_a_forward_of_its_own_names_the_way_in(tmp_path: Path) -> None:
    for model in (LastStep(), Learned()):
        refused(tmp_path, "pass example=x", import_torch, model, tmp_path / "m", **QUICK)
    words = "states, vocabulary, layout: got .*expected only for a torch.export program or with example"
    refused(tmp_path, words, import_torch, MinGru(), tmp_path / "m", states=torch.zeros(2, 8), **QUICK)
