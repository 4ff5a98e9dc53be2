"""Bundles that the server refuses to start with: status 1, and one line that says what to do."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from testing.bundles import counting_bundle, make_bundle

from .launch import serve


@pytest.fixture
def damaged(counting_model: Path, tmp_path: Path) -> Path:
    """A copy of a bundle, to be damaged."""
    return Path(shutil.copytree(counting_model, tmp_path / "copy"))


def test_no_such_folder(tmp_path: Path) -> None:
    line = serve(tmp_path / "nowhere").line
    assert line == f"{tmp_path / 'nowhere'}: no such folder; give the folder of a model bundle"


def cut_weights(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-3])


def no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def cut_config(folder: Path) -> None:
    file = folder / "config.json"
    file.write_text(file.read_text()[:-9])


def unknown_key(folder: Path) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "dropout": 0.5}))


def two_ways(folder: Path) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "bidirectional": True}))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (cut_weights, ("model.safetensors",)),
        (no_weights, ("model.safetensors",)),
        (cut_config, ("config.json", "JSON")),
        (unknown_key, ("config.json", "dropout")),
        (two_ways, ("bidirectional",)),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_damaged_bundle(damaged: Path, damage: Callable[[Path], None], words: tuple[str, ...]) -> None:
    damage(damaged)
    line = serve(damaged, "--store=memory:").line
    for word in (str(damaged), *words):
        assert word in line


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_workers_say_once_why_they_do_not_start(damaged: Path, tmp_path: Path, log_format: str) -> None:
    cut_config(damaged)
    store = f"--store=sqlite:{tmp_path / 's.db'}"
    ended = serve(damaged, store, "--workers=4", f"--log-format={log_format}")
    (line,) = ended.err.splitlines()
    assert ended.status == 1
    assert f"{damaged / 'config.json'}: not JSON" in line
    assert line.startswith("{") == (log_format == "json")


def test_the_same_version_twice(counting_model: Path) -> None:
    line = serve(counting_model, counting_model, "--store=memory:").line
    assert line == "model count: got the same version twice; name each folder once"


def test_two_versions_that_look_different_from_outside(counting_model: Path, tmp_path: Path) -> None:
    other = counting_bundle(tmp_path / "other", features=2)
    line = serve(counting_model, other, "--store=memory:").line
    assert line.startswith("model count: versions ")
    assert line.endswith("have different tensors; serve them under different names")


def test_no_room_for_one_batch(tmp_path: Path) -> None:
    large = make_bundle(tmp_path / "large", hidden_size=512, num_layers=2, head=())
    line = serve(large, "--store=memory:", "--arena-mib=1").line
    assert line.startswith(
        "arena_mib: 1 MiB hold 64 hot sessions of m, expected at least max_batch (256); raise --arena-mib"
    )
