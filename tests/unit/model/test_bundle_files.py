"""The files of a bundle: links, mounts, paths that are no bundle, and files that change while they are read."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cellkeeper_service.errors import StartError
from cellkeeper_service.model.bundle import CONFIG_FILE, read_bundle
from cellkeeper_service.model.parsing import parse_config

from testing.bundles import make_bundle


def mounted(folder: Path, source: Path) -> Path:
    """Mounts a bundle as Kubernetes mounts a ConfigMap: files link through `..data`, a link to the current data."""
    folder.mkdir()
    shutil.copytree(source, folder / "..2026_01_01")
    (folder / "..data").symlink_to("..2026_01_01", target_is_directory=True)
    for name in ("config.json", "model.safetensors"):
        (folder / name).symlink_to(f"..data/{name}")
    return folder


def test_a_mounted_config_map(tmp_path: Path) -> None:
    plain = read_bundle(make_bundle(tmp_path / "plain"))
    assert read_bundle(mounted(tmp_path / "m", plain.path)).spec == plain.spec
    (tmp_path / "m" / "..data").unlink()
    (tmp_path / "m" / "..data").symlink_to(tmp_path / "plain", target_is_directory=True)
    with pytest.raises(StartError, match="points outside the bundle"):
        read_bundle(tmp_path / "m")


@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
def test_links_that_lead_to_themselves(file: str, tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "m")
    (folder / file).unlink()
    (folder / file).symlink_to(file)
    with pytest.raises(StartError, match=f"{file}: a link that points to itself; put the file itself there"):
        read_bundle(folder)
    (tmp_path / "round").symlink_to("round")
    with pytest.raises(StartError, match="round: no such folder: a link that points nowhere, or to itself"):
        read_bundle(tmp_path / "round")


def test_what_is_no_bundle_is_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_bundle(tmp_path / "models" / "pump")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pump.keras").touch()
    (tmp_path / "notes.txt").touch()
    (tmp_path / "empty").mkdir()
    told = {
        "pump.keras": "a file, expected the folder of a bundle; `cellkeeper-server import keras pump.keras pump` makes",
        "notes.txt": "a file, expected the folder of a bundle; `cellkeeper-server import --help` says",
        str(folder / "config.json"): f"a file, expected the folder of a bundle; give its folder, {folder}",
        "b": rf"no such folder \(looked for {tmp_path / 'b'}\); give the folder of a model bundle",
        "models": "not a bundle, it has no config.json; name a bundle within it, such as models/pump",
        "empty": "not a bundle, it has no config.json; `cellkeeper-server import --help` says",
        "n" * 5000: "cannot be read .*name too long",
    }
    for path, words in told.items():
        with pytest.raises(StartError, match=words) as caught:
            read_bundle(Path(path))
        assert len(str(caught.value).splitlines()) == 1
        assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("inner", ["[{}]", '{{"a": {}}}'], ids=["lists", "objects"])
@pytest.mark.parametrize("depth", [200, 60_000, 120_000])
def test_a_config_that_is_nested_too_deeply(tmp_path: Path, inner: str, depth: int) -> None:
    folder = make_bundle(tmp_path / "m")
    config = folder / CONFIG_FILE
    begin, end = inner.format("@").split("@")
    config.write_text(config.read_text().replace('"lstm"', begin * depth + "1" + end * depth))
    with pytest.raises(
        StartError, match=r"not JSON \(it has lists or objects that are nested deeper than 100\)"
    ) as caught:
        read_bundle(folder)
    assert len(str(caught.value)) < 1000


def change_while_reading(monkeypatch: pytest.MonkeyPatch, change: Callable[[], Any]) -> None:
    """Lets another program change the files after the config was read, and before the weights are."""

    def parse(*arguments: Any) -> Any:
        change()
        return parse_config(*arguments)

    monkeypatch.setattr("cellkeeper_service.model.bundle.parse_config", parse)


def test_files_of_different_versions_are_not_read_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = make_bundle(tmp_path / "old"), make_bundle(tmp_path / "new", seed=1)
    current, other = tmp_path / "current", tmp_path / "other"
    current.symlink_to(old)
    mount = mounted(tmp_path / "mount", old)
    shutil.copytree(new, mount / "..2026_01_02")
    (mount / "other").symlink_to("..2026_01_02", target_is_directory=True)
    copied = shutil.copytree(old, tmp_path / "copied")

    def deploy(folder: Path, link: Path) -> None:
        other.symlink_to(folder)
        other.rename(link)

    changes: dict[Path, Callable[[], Any]] = {
        current: lambda: deploy(new, current),
        mount: lambda: (mount / "other").rename(mount / "..data"),
        copied: lambda: shutil.copytree(new, copied, dirs_exist_ok=True),
    }
    for path, change in changes.items():
        with monkeypatch.context() as patch:
            change_while_reading(patch, change)
            with pytest.raises(StartError, match=r"config\.json: changed while the bundle was read; try again when it"):
                read_bundle(path)
        assert read_bundle(path).spec == read_bundle(new).spec


def test_a_file_that_vanishes_while_the_bundle_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_bundle(tmp_path / "m")
    change_while_reading(monkeypatch, (folder / CONFIG_FILE).unlink)
    with pytest.raises(StartError, match=r"config\.json: changed while the bundle was read"):
        read_bundle(folder)


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    """Whoever opens a named pipe to read it waits for a writer."""
    folder = make_bundle(tmp_path / "m")
    (folder / CONFIG_FILE).unlink()
    os.mkfifo(folder / CONFIG_FILE)
    writer = os.open(folder / CONFIG_FILE, os.O_RDWR)  # without the check, the test would fail instead of waiting
    try:
        with pytest.raises(StartError, match=r"config\.json: not a file; put the file there"):
            read_bundle(folder)
    finally:
        os.close(writer)
    (folder / CONFIG_FILE).unlink()
    (folder / CONFIG_FILE).mkdir()
    with pytest.raises(StartError, match=r"config\.json: not a file"):
        read_bundle(folder)
