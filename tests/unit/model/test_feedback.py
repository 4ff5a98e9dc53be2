"""Feedback: what a config may declare, the default, and the next input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cellkeeper_service.domain.feedback import KNOWN, Feedback
from cellkeeper_service.engine.load import load_engine
from cellkeeper_service.errors import StartError
from cellkeeper_service.model.bundle import read_bundle
from cellkeeper_service.model.fit import fit_bundle
from cellkeeper_service.server.versions import check_versions

from testing.bundles import bundle_config, make_bundle

TOKENS = {"kind": "tokens", "vocabulary": 5, "embedding_size": 3}


def test_the_next_input() -> None:
    predicted = np.array([[1.5, 2.5], [3.5, 4.5]], np.float32)
    following = Feedback((3, KNOWN, 0, KNOWN)).next_input(predicted, np.array([7, 8], np.float32))
    assert following.tolist() == [4.5, 7.0, 1.5, 8.0]
    assert following.dtype == np.float32
    token = Feedback().next_input(np.array([0.1, 0.7, 0.7], np.float32), np.zeros(0, np.float32))
    assert (token.tolist(), token.shape) == (1, ())
    assert token.dtype == np.int32


def test_what_follows_where_nothing_is_said(tmp_path: Path) -> None:
    """As many features as predictions imply no feedback; a prediction for each token does."""
    assert read_bundle(make_bundle(tmp_path / "same", head=(3,))).spec.feedback is None
    assert read_bundle(make_bundle(tmp_path / "next", head=(5,), input=TOKENS)).spec.feedback == Feedback()
    assert read_bundle(make_bundle(tmp_path / "tags", head=(2,), input=TOKENS)).spec.feedback is None


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"feedback": [0, 1]}, "expected 3 entries, one for each feature: an index below 2"),
        ({"feedback": [0, 1, 2]}, "index below 2"),
        ({"feedback": [0, 1, -1]}, "index below 2"),
        ({"feedback": [0, 1, True]}, "index below 2"),
        ({"feedback": [0, 1, "unknown"]}, 'or "known"'),
        ({"feedback": "argmax"}, "3 entries"),
        ({"feedback": None}, "3 entries"),
        ({"feedback": "argmax", "input": TOKENS}, "one predicted value for each of 5 ids \\(there are 2\\)"),
        ({"feedback": [0], "input": TOKENS, "head": (5,)}, '"argmax"'),
    ],
)
def test_what_a_config_must_not_say(more: dict[str, Any], words: str) -> None:
    with pytest.raises(StartError, match=f"feedback: got .*{words}"):
        bundle_config(**{"head": (2,), **more})


def test_it_is_added_to_a_bundle(tmp_path: Path) -> None:
    source = make_bundle(tmp_path / "a", head=(2,))
    assert fit_bundle(source, tmp_path / "b", feedback=[1, "known", 0]).spec.feedback == Feedback((1, KNOWN, 0))


def test_versions_agree_about_it(tmp_path: Path) -> None:
    declared: list[dict[str, Any]] = [{}, {"feedback": [0, 1, "known"]}, {"feedback": [0, "known", 1]}]
    engines = [
        load_engine(make_bundle(tmp_path / f"m{number}", head=(2,), seed=number, **more), "cpu", 2)
        for number, more in enumerate(declared)
    ]
    check_versions("m", engines[:2])
    with pytest.raises(StartError, match="model m: feedback: its versions declare different ones"):
        check_versions("m", engines)
