"""What a traced forward returns: every time step, the last one, or the time steps of all sequences joined."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cellkeeper_service.converters import import_torch
from cellkeeper_service.converters.torch.outputs import Steps, outputs_of
from cellkeeper_service.engine.load import offline
from torch import Tensor, nn

from .leftovers import refused

QUICK: dict[str, Any] = {"max_batch": 8, "report": str}
STEPS, BATCH = 6, 11

pytestmark = [pytest.mark.timeout(300), pytest.mark.filterwarnings("ignore")]  # the exporter's own


class LastStep(nn.Module):
    """forward(x, h) -> (y, h) of recurrent Q-learning: y is that of the last time step."""

    def __init__(self, width: int, batch_first: bool = True) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.batch_first = batch_first
        self.rnn, self.head = nn.GRU(3, 8, batch_first=batch_first), nn.Linear(8, width)

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        y, h = self.rnn(x, h)
        return self.head(y[:, -1] if self.batch_first else y[-1]), h


class Joined(LastStep):
    """As the word language model of PyTorch's examples: logits of [T * B, V]."""

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        y, h = self.rnn(x, h)
        return torch.log_softmax(self.head(y.reshape(-1, 8)), 1), h


class Heads(nn.Module):
    """A policy and a value of the last time step, and the state."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.rnn, self.policy, self.value = nn.GRU(3, 8, batch_first=True), nn.Linear(8, 4), nn.Linear(8, 1)

    def forward(self, x: Tensor) -> Any:
        y, h = self.rnn(x)
        return self.policy(y[:, -1]), self.value(y[:, -1]), h


def drawn() -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).standard_normal((STEPS, 3)).astype(np.float32)


def every_step(model: LastStep, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    with torch.no_grad():
        y, _ = model.rnn(torch.from_numpy(x).unsqueeze(0 if model.batch_first else 1))
        result: np.ndarray[Any, Any] = model.head(y).reshape(STEPS, -1).numpy()
    return result


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("width", [1, 7], ids=["the size of a time axis", "the size of a sequence of the proof"])
def test_the_last_step_of_a_forward_that_takes_states(width: int, batch_first: bool, tmp_path: Path) -> None:
    model, x = LastStep(width, batch_first), drawn()
    example = torch.zeros(2, STEPS, 3) if batch_first else torch.zeros(STEPS, 2, 3)
    import_torch(model, tmp_path / "m", example=example, states=torch.zeros(1, 2, 8), **QUICK)
    np.testing.assert_allclose(offline(tmp_path / "m", x)["prediction"], every_step(model, x), atol=1e-5)


@pytest.mark.parametrize("batch_first", [True, False])
def test_time_steps_that_the_forward_joins_with_the_batch(batch_first: bool, tmp_path: Path) -> None:
    model, x = Joined(5, batch_first), drawn()
    example = torch.zeros(2, STEPS, 3) if batch_first else torch.zeros(STEPS, 2, 3)
    import_torch(model, tmp_path / "m", example=example, states=torch.zeros(1, 2, 8), **QUICK)
    expected = torch.log_softmax(torch.from_numpy(every_step(model, x)), 1)
    np.testing.assert_allclose(offline(tmp_path / "m", x)["prediction"], expected, atol=1e-5)


def test_two_heads_of_the_last_step(tmp_path: Path) -> None:
    model, x = Heads(), drawn()
    import_torch(model, tmp_path / "m", example=torch.zeros(2, STEPS, 3), **QUICK)
    served = offline(tmp_path / "m", x)
    with torch.no_grad():
        y, _ = model.rnn(torch.from_numpy(x)[None])
        np.testing.assert_allclose(served["prediction"], model.policy(y)[0], atol=1e-5)
        np.testing.assert_allclose(served["output_1"], model.value(y)[0], atol=1e-5)
    assert {*served} == {"prediction", "output_1", "state.rnn_h"}


def test_final_states_are_no_outputs() -> None:
    def returned(*leads: tuple[int, ...]) -> dict[int, list[Tensor]]:
        """-1: the number of time steps."""
        return {n: [torch.zeros(*(n if size < 0 else size for size in lead), 4) for lead in leads] for n in (5, 7)}

    every, final, layers = (-1, BATCH), (BATCH,), (1, BATCH)
    assert outputs_of(returned(every, final, layers, every), 0, "M") == {0: Steps.ALL, 3: Steps.ALL}
    assert outputs_of(returned(final, layers, final), 0, "M") == {0: Steps.LAST, 2: Steps.LAST}


class Distribution(LastStep):
    def forward(self, x: Tensor, h: Tensor) -> Any:
        y, h = self.rnn(x, h)
        return torch.distributions.Normal(self.head(y), 1.0), h


class OneStep(LastStep):
    """Takes single time steps only, though its input has a time axis."""

    def forward(self, x: Tensor, h: Tensor) -> Any:
        y, h = self.rnn(x[:, :1], h.view(1, x.shape[0], 8))
        return self.head(y.view(x.shape[0], x.shape[1], 8)), h


class StateAlone(LastStep):
    def forward(self, x: Tensor, h: Tensor) -> Any:
        return self.rnn(x, h)[1]


def test_what_is_no_output_is_said(tmp_path: Path) -> None:
    example = {"example": torch.zeros(2, STEPS, 3), "states": torch.zeros(1, 2, 8)}
    refused(tmp_path, "returns Normal, expected tensors", import_torch, Distribution(2), tmp_path / "m", **example)
    words = "11 sequences of 5 time steps with the given states .*example without a time axis"
    refused(tmp_path, words, import_torch, OneStep(2), tmp_path / "m", **example)
    words = "it returns 1 tensors, expected an output and 1 states"
    refused(tmp_path, words, import_torch, StateAlone(2), tmp_path / "m", **example)
