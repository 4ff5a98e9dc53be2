"""The finding of examples/stateful_training, in the committed results and as served from the committed bundle."""

from __future__ import annotations

import pytest
import torch

from examples.report import read_results
from examples.stateful_training import FOLDER
from examples.stateful_training.keras_twin import keras_installed
from examples.stateful_training.model import load
from examples.stateful_training.serving import compare
from examples.stateful_training.text import load_text
from examples.stateful_training.training import CARRIED, MISMATCHED, SOMETIMES, WINDOW, ZERO, shuffled, streams

RESULTS = read_results(FOLDER)


def test_every_seed_has_the_finding() -> None:
    contexts = RESULTS["contexts"]
    runs = (RESULTS["ways"][way] for way in (ZERO, CARRIED, MISMATCHED, SOMETIMES))
    for zero, carried, mismatched, sometimes in zip(*runs, strict=True):
        assert carried["carried"] < zero["carried"] - 0.03  # training with a state helps ...
        assert carried["reset"] > zero["reset"] + 0.1  # ... as long as inference has one, too
        assert mismatched["carried"] > carried["carried"] + 0.03  # another text's state is no state
        assert zero["carried"] < zero["reset"] - 0.05  # carrying also helps the model trained without
        assert sometimes["carried"] < zero["carried"]
        assert sometimes["reset"] < carried["reset"] - 0.1
        ahead = [carried["by_context"][i] < zero["by_context"][i] for i in range(len(contexts))]
        assert not any(ahead[: contexts.index(4) + 1])
        assert all(ahead[contexts.index(16) :])


def test_windows_in_order_continue_each_other() -> None:
    torch.manual_seed(0)
    ids = torch.arange(10_000)
    windows = streams(ids)
    inputs, wanted = next(windows)
    assert torch.equal(next(windows)[0][0], wanted[-1])
    assert torch.equal(inputs[1:], wanted[:-1])
    windows = shuffled(ids)
    inputs, wanted = next(windows)
    assert inputs.shape[0] == WINDOW
    assert not (next(windows)[0][0] == wanted[-1]).any()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")  # Keras' own
def test_pytorch_keras_and_cellkeeper_say_the_same() -> None:
    if not keras_installed():
        pytest.skip("keras is not installed")
    bundle = FOLDER / "bundle"
    twins = compare(load(bundle), bundle, load_text().held_out.numpy())
    assert twins["cellkeeper, from torch"] < 1e-4
    assert twins["cellkeeper, chunks and single steps, same bits"]
    assert twins["cellkeeper, after reset, same bits"]
    assert twins["keras, from torch"] < 1e-4
    assert twins["keras, from cellkeeper"] < 1e-4
    assert twins["keras, after reset_states, from before"] < 1e-5
    assert twins["served"]["carried"] < twins["served"]["reset"] - 0.1
