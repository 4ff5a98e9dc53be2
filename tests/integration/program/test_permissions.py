"""Files that the server's user may not read or write: it ends in one line, which says what to do."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from cellkeeper_service.store.sqlite.store import SqliteStore

from .launch import END_TIMEOUT_S, Ended, command, environment

NOBODY = 65534


@pytest.fixture
def public(counting_model: Path) -> Iterator[Path]:
    """A folder that everybody may read, with a bundle in it; pytest's own folders are for one user."""
    folder = Path(tempfile.mkdtemp(prefix="cellkeeper-"))
    folder.chmod(0o755)
    shutil.copytree(counting_model, folder / "bundle")
    yield folder
    for path in (folder, folder / "bundle"):
        path.chmod(0o755)
    shutil.rmtree(folder)


def unprivileged(*words: object) -> Ended:
    """Runs `cellkeeper-server` as a user who is not root, to whom permissions mean nothing."""
    ids = [f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    prefix = ["setpriv", *ids] if os.geteuid() == 0 else []
    if prefix and shutil.which("setpriv") is None:
        pytest.skip("root may read everything, and there is no setpriv to be another user")
    options: dict[str, Any] = {"env": environment(), "capture_output": True, "text": True, "cwd": "/"}
    if subprocess.run([*prefix, *command("--version")], timeout=END_TIMEOUT_S, check=False, **options).returncode:
        pytest.skip("the program is where only root may read it")
    done = subprocess.run([*prefix, *command(*words)], timeout=END_TIMEOUT_S, check=False, **options)
    return Ended(done.returncode, done.stdout, done.stderr)


def hide_config(bundle: Path) -> str:
    (bundle / "config.json").chmod(0)
    return f"{bundle / 'config.json'}: cannot be read (Permission denied); let the server read it"


def hide_weights(bundle: Path) -> str:
    (bundle / "model.safetensors").chmod(0)
    return f"{bundle / 'model.safetensors'}: cannot be read (Permission denied); let the server read it"


def hide_folder(bundle: Path) -> str:
    bundle.chmod(0)
    return f"{bundle}: cannot be read ([Errno 13] Permission denied: '{bundle}'); let the server read it"


@pytest.mark.parametrize("hide", [hide_config, hide_weights, hide_folder])
def test_a_bundle_that_may_not_be_read(public: Path, hide: Callable[[Path], str]) -> None:
    expected = hide(public / "bundle")
    ports = ["--listen=127.0.0.1:0", "--metrics-listen=127.0.0.1:0"]
    assert unprivileged("serve", public / "bundle", "--store=memory:", *ports).line == expected


def test_a_sqlite_file_that_may_not_be_written(public: Path) -> None:
    path = public / "sessions.db"
    with closing(SqliteStore(path, timeout_ms=200)):
        pass
    path.chmod(0o444)
    public.chmod(0o555)
    ports = ["--listen=127.0.0.1:0", "--metrics-listen=127.0.0.1:0"]
    line = unprivileged("serve", public / "bundle", f"--store=sqlite:{path}", *ports).line
    advice = f"let the server write to it and to its folder, '{public}', and mount them for writing"
    assert line == f"SQLite cannot use '{path}': attempt to write a readonly database; {advice}"
