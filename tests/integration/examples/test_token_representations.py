"""The finding of examples/token_representations, in the committed results and with the committed bundle."""

from __future__ import annotations

import pytest

from examples.report import read_results
from examples.token_representations import FOLDER
from examples.token_representations.mistakes import COUNTED, RIGHT, STREAMED, WAYS, measure
from examples.token_representations.model import load
from examples.token_representations.serving import represent
from examples.token_representations.training import WINDOW
from examples.token_representations.words import load_words, read_names, rows

RESULTS = read_results(FOLDER)
ROWS, WORDS = 16, 2 * WINDOW


def test_every_seed_has_the_finding() -> None:
    losses = {way["name"]: way["loss"] for way in RESULTS["ways"]}
    assert list(losses) == [way.name for way in WAYS]
    for seed, right in enumerate(losses[RIGHT.name]):
        assert losses[STREAMED.name][seed] == pytest.approx(right, abs=1e-4)
        for name in ("state dropped after each word", "one state for all rows in turn", "rows and time exchanged"):
            assert losses[name][seed] > right + 0.5
        assert right < losses["state dropped after each window"][seed] < losses["dropout left on"][seed] < right + 0.2
        assert losses["the weights not loaded"][seed] > losses["ids of another vocabulary"][seed] > right + 1.5
    assert RESULTS["streamed"]["loss"] == pytest.approx(losses[RIGHT.name][0], abs=1e-4)


def test_word_by_word_is_what_the_batch_gives() -> None:
    bundle = FOLDER / "bundle"
    model, ids = load(bundle), rows(load_words(read_names(FOLDER)).held_out, 64)[: WORDS + 1, :ROWS]
    first_row, streamed = represent(model, bundle, ids, COUNTED)
    assert first_row.h.shape == (WORDS, 2, 96)
    assert streamed["vectors"] == WORDS * (ROWS // 4) * 2
    assert max(streamed["apart"]) < 1e-4
    assert streamed["hidden is the top layer, same bits"]
    assert streamed["state after a chunk, same bits"]
    right = measure(model, ids, RIGHT, 0)
    assert streamed["loss"] == pytest.approx(right, abs=1e-4)
    assert measure(model, ids, STREAMED, 0) == pytest.approx(right, abs=1e-4)
    dropped = next(way for way in WAYS if way.name == "state dropped after each word")
    assert measure(model, ids, dropped, 0) > right + 0.5
