"""python -m examples.recipes.policy: a policy with an LSTM, as robot learning exports it, with a batch of one.

Its names and shapes are all that an import needs: (obs, h_in, c_in). With a batch of one, each session is served in its
own call.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import torch
from cellkeeper_service.converters import Imported, import_onnx
from torch import Tensor, nn

from .compare import Array, Recipe, main
from .exporting import exported


class Policy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(5, 8)
        self.rnn = nn.LSTM(8, 6)
        self.actor = nn.Linear(6, 2)

    def forward(self, obs: Tensor, h_in: Tensor, c_in: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        y, (h, c) = self.rnn(torch.tanh(self.encoder(obs)).unsqueeze(0), (h_in, c_in))
        return torch.tanh(self.actor(y.squeeze(0))), h, c


def policy(*, free: bool = False) -> bytes:
    """Returns a policy as robot learning exports it. free: with a dynamic batch.

    (obs [1, 5], h_in [1, 1, 6], c_in) -> (actions [1, 2], h_out, c_out).
    """
    torch.manual_seed(0)
    example = (torch.zeros(1, 5), torch.zeros(1, 1, 6), torch.zeros(1, 1, 6))
    names = (["obs", "h_in", "c_in"], ["actions", "h_out", "c_out"])
    axes = {"obs": {0: "n"}, "h_in": {1: "n"}, "c_in": {1: "n"}} if free else {}
    return exported(Policy(), example, names, axes)


def looped(graph: bytes, observations: Array) -> Array:
    """Returns onnxruntime's actions, computed in a loop that carries the states by hand."""
    session = onnxruntime.InferenceSession(graph)
    h = c = np.zeros((1, 1, 6), np.float32)
    actions = []
    for obs in observations:
        action, h, c = session.run(None, {"obs": obs[None], "h_in": h, "c_in": c})
        actions.append(action[0])
    return np.stack(actions)


def recipe() -> Recipe:
    graph = policy()
    observations = np.random.default_rng(0).standard_normal((60, 5)).astype(np.float32)

    def into(folder: Path) -> Imported:
        return import_onnx(graph, folder)

    return Recipe("policy", into, list(observations), looped(graph, observations), exact=True)


if __name__ == "__main__":
    main(recipe())
