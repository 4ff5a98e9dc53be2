"""Many small LSTMs trained side by side, with the same inputs and their own weights.

One batched product for all of them takes a fraction of the time of one model after another.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .series import FEATURES

HIDDEN_SIZE = 16
OUTPUTS = 3

State = tuple[Tensor, Tensor]


class Ensemble(nn.Module):
    """x [T, B, F] and a state, each [M, B, H] -> outputs [M, T, B, OUTPUTS] and the state after."""

    def __init__(self, models: int) -> None:
        super().__init__()

        def drawn(*shape: int) -> nn.Parameter:
            bound = HIDDEN_SIZE**-0.5  # as in nn.LSTM
            one = torch.empty(shape).uniform_(-bound, bound)
            return nn.Parameter(one.repeat(models, *[1] * len(shape)))  # all models start with the same weights

        self.inward = drawn(FEATURES, 4 * HIDDEN_SIZE)
        self.onward = drawn(HIDDEN_SIZE, 4 * HIDDEN_SIZE)
        self.bias = drawn(1, 4 * HIDDEN_SIZE)
        self.head = drawn(HIDDEN_SIZE, OUTPUTS)
        self.head_bias = drawn(1, OUTPUTS)

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        steps, batch, features = x.shape
        models = len(self.bias)
        if state is None:
            zeros = torch.zeros(models, batch, HIDDEN_SIZE)
            state = zeros, zeros
        h, c = state
        driven = (x.reshape(-1, features) @ self.inward + self.bias).reshape(models, steps, batch, -1)
        hidden = []
        for t in range(steps):
            i, f, g, o = torch.baddbmm(driven[:, t], h, self.onward).chunk(4, dim=2)  # PyTorch's order
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
            hidden.append(h)
        outputs = torch.stack(hidden, dim=1).flatten(1, 2) @ self.head + self.head_bias
        return outputs.reshape(models, steps, batch, OUTPUTS), (h, c)

    def clip(self, largest: float) -> None:
        """Clips gradients model by model, so that no model affects another."""
        gradients = [p.grad for p in self.parameters() if p.grad is not None]
        norms = torch.stack([g.flatten(1).norm(dim=1) for g in gradients]).norm(dim=0)
        factors = (largest / (norms + 1e-6)).clamp(max=1.0)
        for gradient in gradients:
            gradient.mul_(factors[:, None, None])

    def bundle_tensors(self, model: int) -> dict[str, Tensor]:
        """Returns the weights of one of the models, by a bundle's names."""
        one = {name: value.detach()[model] for name, value in self.named_parameters()}
        return {
            "rnn.weight_ih_l0": one["inward"].T,
            "rnn.weight_hh_l0": one["onward"].T,
            "rnn.bias_ih_l0": one["bias"][0],
            "rnn.bias_hh_l0": torch.zeros(4 * HIDDEN_SIZE),
            "head.0.weight": one["head"].T,
            "head.0.bias": one["head_bias"][0],
        }
