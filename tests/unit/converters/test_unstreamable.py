"""Graphs that cannot be streamed are refused at import and, inside a bundle, at load. Each error names the cause."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from cellkeeper_service.converters import import_onnx
from cellkeeper_service.engine.load import load_engine
from cellkeeper_service.engine.user_graph import UserGraphEngine
from cellkeeper_service.errors import StartError
from cellkeeper_service.model.write import write_bundle

from .leftovers import refused
from .small_graphs import Graph
from .test_unbounded_work import BOUNDED
from .unstreamable_graphs import AHEAD, COUPLED, LENGTH, REFUSED, SERVED, SLIGHT


@pytest.mark.parametrize("max_batch", [5, 256])
@pytest.mark.parametrize("title", REFUSED)
def test_is_refused_at_import_and_at_load(title: str, max_batch: int, tmp_path: Path) -> None:
    graph = REFUSED[title]
    options = {"layout": graph.layout, "max_batch": max_batch, "report": str}
    refused(tmp_path, graph.words, import_onnx, graph.model, tmp_path / "m", **options)
    with pytest.raises(StartError, match=graph.words) as caught:
        load_engine(write_bundle(tmp_path / "m", graph.config(), {}, graph=graph.model), "cpu", max_batch)
    text = str(caught.value)
    assert text.startswith(f"{tmp_path / 'm' / 'model.onnx'}: ")
    assert len(text.splitlines()) == 1


@pytest.mark.parametrize("title", [t for t, graph in REFUSED.items() if not graph.words.startswith(COUPLED)])
def test_with_one_session_a_call_too(title: str, tmp_path: Path) -> None:
    """A batch of one only protects against other sessions."""
    graph = REFUSED[title].with_one_session()
    options = {"layout": graph.layout, "max_batch": 5, "report": str}
    refused(tmp_path, graph.words, import_onnx, graph.model, tmp_path / "m", **options)
    if graph.words in (AHEAD, LENGTH):
        with pytest.raises(StartError, match=graph.words):
            load_engine(write_bundle(tmp_path / "m", graph.config(), {}, graph=graph.model), "cpu", 5)


@pytest.mark.parametrize("title", SLIGHT)
def test_the_proof_tells_where_a_slight_difference_begins(title: str, tmp_path: Path) -> None:
    graph, words = SLIGHT[title]
    options = {"layout": graph.layout, "max_batch": 5, "report": str}
    refused(tmp_path, words, import_onnx, graph.model, tmp_path / "m", **options)


def test_the_server_does_not_start_with_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], run_here: Callable[[list[str]], int]
) -> None:
    graph = REFUSED["mean over the batch"]
    write_bundle(tmp_path / "m", graph.config(), {}, graph=graph.model)
    assert run_here(["serve", str(tmp_path / "m"), "--listen=127.0.0.1:0", "--metrics-listen=127.0.0.1:0"]) == 1
    told = capsys.readouterr().err
    assert re.search("model.onnx: rows of a batch depend on each other", told), told


@pytest.mark.parametrize("title", SERVED)
def test_what_can_be_streamed_is_served(title: str, tmp_path: Path) -> None:
    graph: Graph = SERVED[title]
    bundle = write_bundle(tmp_path / "m", graph.config(), {}, graph=graph.model)
    engine = load_engine(bundle, "cpu", 16)
    assert engine.exact or engine.tolerance < 1e-5
    assert isinstance(engine, UserGraphEngine)
    assert engine.rows_proved


@pytest.mark.parametrize(("batch", "max_batch"), [("free", 1), ("one", 4)])
def test_sessions_that_never_share_a_call_cannot_be_coupled(batch: str, max_batch: int, tmp_path: Path) -> None:
    graph = REFUSED["mean over the batch after 250 steps"]
    if batch == "one":
        graph = graph.with_one_session()
    bundle = write_bundle(tmp_path / "m", graph.config(), {}, graph=graph.model)
    assert load_engine(bundle, "cpu", max_batch).exact


@pytest.mark.parametrize(
    ("graph", "words"),
    [
        (SERVED["running sums"], "independent, by the graph's operators and by trials"),
        (
            BOUNDED["a condition that a shape bounds"],
            "independent in all trials; some operators of the graph do not prove it",
        ),
    ],
)
def test_an_import_tells_how_it_is_known_that_sessions_are_independent(
    graph: Graph, words: str, tmp_path: Path
) -> None:
    told: list[str] = []
    import_onnx(graph.model, tmp_path / "m", layout=graph.layout, batch="free", max_batch=4, report=told.append)
    assert f"sessions of a batch: {words}" in told[0]


def test_an_import_tells_nothing_of_a_batch_that_there_is_not(tmp_path: Path) -> None:
    told: list[str] = []
    graph = SERVED["of positive values only"].with_one_session()
    import_onnx(graph.model, tmp_path / "m", layout=graph.layout, max_batch=4, report=told.append)
    assert "served stream: exact" in told[0]
    assert "sessions of a batch" not in told[0]
