"""The server sends no reports of its use."""

from __future__ import annotations

from pathlib import Path

import pytest

from testing.server_process import ServerProcess


def test_onnx_runtime_keeps_no_events_to_report(
    counting_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ONNX Runtime collects them in the home directory before it sends them."""
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY", raising=False)
    home = tmp_path / "home"
    home.mkdir()
    places = {"HOME": str(home), "XDG_CACHE_HOME": str(home / "cache")}
    with ServerProcess([counting_model], f"sqlite:{tmp_path / 's.db'}", variables=places):
        assert not list(home.rglob("*onnxruntime*"))
