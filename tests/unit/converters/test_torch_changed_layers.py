"""Layers with hooks, forwards or states of their own, and operators that ONNX lacks: imported right, or refused by
name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import MethodType
from typing import Any

import numpy as np
import pytest
import torch
from cellkeeper_service.converters import import_torch
from cellkeeper_service.engine.load import offline
from torch import Tensor, nn
from torch.nn.utils.parametrizations import orthogonal

from .leftovers import refused

QUICK: dict[str, Any] = {"max_batch": 8, "report": str}
SEQUENCES = torch.zeros(2, 6, 3)

pytestmark = [pytest.mark.timeout(300), pytest.mark.filterwarnings("ignore")]  # the exporter's own


class Chained(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.rnn, self.head = nn.GRU(3, 4, batch_first=True), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Any:
        return self.head(self.rnn(x)[0])


def with_hook(model: Chained) -> Chained:
    model.head.register_forward_hook(lambda _, given, y: 3 * y)
    return model


def with_hook_before(model: Chained) -> Chained:
    model.head.register_forward_pre_hook(lambda _, given: (3 * given[0],))
    return model


def with_forward(model: Chained) -> Chained:
    model.head.forward = MethodType(lambda self, x: 3 * nn.Linear.forward(self, x), model.head)  # type: ignore[method-assign]
    return model


@pytest.mark.parametrize("change", [with_hook, with_hook_before, with_forward])
def test_a_layer_with_a_computation_of_its_own_is_named(change: Callable[[Chained], Chained], tmp_path: Path) -> None:
    model = change(Chained())
    words = r"head \(Linear\): has a hook or a forward of its own, .* remove it, or .* pass example=x"
    refused(tmp_path, words, import_torch, model, tmp_path / "m", **QUICK)
    refused(tmp_path, r"^1 \(Linear\): has a hook", import_torch, [model.rnn, model.head], tmp_path / "m", **QUICK)


def test_weights_alone_are_refused_for_what_is_wrong_with_them(tmp_path: Path) -> None:
    weights, file = Chained().state_dict(), tmp_path / "weights.pt"
    torch.save(weights, file)
    for model in (weights, str(file), file):
        options = {"layers": "gru=rnn dense=head", "tolerance": 1e-30, **QUICK}
        refused(
            tmp_path,
            "served values differ from .*, expected at most 1e-30",
            import_torch,
            model,
            tmp_path / "m",
            **options,
        )


def test_a_layer_with_a_computation_of_its_own_is_traced(tmp_path: Path) -> None:
    model = with_hook(Chained())
    imported = import_torch(model, tmp_path / "m", example=SEQUENCES, **QUICK)
    assert imported.parity.source.endswith("(traced)")
    x = np.random.default_rng(0).standard_normal((9, 3)).astype("f4")
    expected = model(torch.from_numpy(x)[None])[0].detach().numpy()
    np.testing.assert_allclose(offline(tmp_path / "m", x)["prediction"], expected, rtol=0, atol=1e-5)


def test_a_hook_that_only_looks_on_changes_nothing(tmp_path: Path) -> None:
    model = Chained()
    model.head.register_forward_hook(lambda *_: None)
    assert not import_torch(model, tmp_path / "m", **QUICK).parity.source.endswith("(traced)")


class Keeping(Chained):
    """Keeps its state from one call to the next, and begins anew with another batch."""

    h: Tensor | None = None

    def forward(self, x: Tensor) -> Any:
        known = self.h if self.h is not None and self.h.shape[1] == x.shape[0] else None
        y, self.h = self.rnn(x, known)
        return self.head(y)


def test_a_state_that_a_forward_keeps_is_named(tmp_path: Path) -> None:
    words = r"rnn \(GRU\): gets 0 tensors of a state in the first call and 1 in the next: its forward keeps the state"
    refused(tmp_path, words, import_torch, Keeping(), tmp_path / "m", example=SEQUENCES, **QUICK)


def test_an_operator_that_onnx_lacks_is_named(tmp_path: Path) -> None:
    model = Chained()
    orthogonal(model.head)
    words = "computes aten.linalg_householder_product, which torch.onnx has no ONNX operators for; .*remove_parametr"
    refused(tmp_path, words, import_torch, model, tmp_path / "m", example=SEQUENCES, **QUICK)


class Branching(Chained):
    def forward(self, x: Tensor) -> Any:
        return self.head(self.rnn(x * 2 if float(x.sum()) > 1e4 else x)[0])


def test_a_branch_on_values_is_named_with_its_line(tmp_path: Path) -> None:
    words = r"cannot trace .*\(Could not .*, at test_torch_changed_layers.py:\d+\)"
    refused(tmp_path, words, import_torch, Branching(), tmp_path / "m", example=SEQUENCES, **QUICK)


def test_a_list_with_an_unknown_layer_names_the_way_in(tmp_path: Path) -> None:
    class Linear(nn.Linear):
        pass

    layers = [nn.GRU(3, 4), Linear(4, 2)]
    refused(
        tmp_path, "cannot be taken apart.*make one module of the list", import_torch, layers, tmp_path / "m", **QUICK
    )
