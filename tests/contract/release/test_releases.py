"""The current version reads what each release has written, and answers its clients' requests.

freeze.py writes a release's files once; frozen.py describes them. These tests keep the promise of
docs/compatibility.md.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cellkeeper_service.domain.position import advance
from cellkeeper_service.domain.record import Record, SessionKey
from cellkeeper_service.domain.store import COMMITTED, Commit, Delete, Load, Store
from cellkeeper_service.engine.load import offline
from cellkeeper_service.model.bundle import read_bundle
from cellkeeper_service.store.open import open_store
from cellkeeper_service.store.sqlite.store import SqliteStore
from google.protobuf import message_factory

from testing.redis_server import RedisServer
from tests.contract.golden.recording import FOLDER as TODAY
from tests.contract.release.contract import MODULES, Peer, broken, today
from tests.contract.release.frozen import RELEASES, fill_redis, records, sessions, spelled
from tests.contract.release.names import names

FROZEN = sorted(RELEASES.glob("v*_*_*"))


@pytest.fixture(params=FROZEN, ids=lambda folder: folder.name)
def release(request: pytest.FixtureRequest) -> Path:
    folder: Path = request.param
    return folder


@pytest.fixture(params=["sqlite", "redis"])
def kept(request: pytest.FixtureRequest, release: Path, tmp_path: Path) -> Iterator[tuple[Store, list[dict[str, Any]]]]:
    """A store with the release's records, and what the release's own code read from it."""
    expected = sessions(release, request.param)
    if request.param == "sqlite":
        file = tmp_path / "sessions.db"
        shutil.copy(release / "sessions.db", file)
        then_ms = max(one["updated_ms"] for one in expected)  # some have expired by today's clock
        store: Store = SqliteStore(file, clock_ms=lambda: then_ms)
        yield store, expected
        store.close()
        return
    with RedisServer() as server:
        with server.client() as client:
            fill_redis(release, client)
        store = open_store(server.url)
        store.check()
        yield store, expected
        store.close()


def test_there_are_files_of_every_kind(release: Path) -> None:
    kinds = {element[:1] for element in _elements(release / "redis.txt")}
    assert kinds == {b"C", b"D", b"B", b"S", b"W"}
    for store in ("sqlite", "redis"):
        found = sessions(release, store)
        assert {bool(one["ttl_ms"]) for one in found} == {False, True}
        assert {bool(one["log"]) for one in found} == {False, True}
        assert {one["checkpoint_step"] > 0 for one in found} == {False, True}
        assert len({one["key"][0] for one in found}) > 1


def _elements(file: Path) -> Iterator[bytes]:
    for line in file.read_text().splitlines():
        yield from map(bytes.fromhex, line.split(" ")[2:])


def test_records_are_read_as_the_release_read_them(kept: tuple[Store, list[dict[str, Any]]]) -> None:
    store, expected = kept
    assert [spelled(key, record) for key, record in records(store)] == expected


def test_sessions_go_on(kept: tuple[Store, list[dict[str, Any]]]) -> None:
    """Appends to, checkpoints and deletes every record."""
    store, expected = kept
    for one in expected:
        key = SessionKey(*one["key"])
        before = _load(store, key)
        width = before.header.step_bytes
        appended = before.header.advanced(advance(before.position, bytes(width), width), 1 << 40, bytes(8))
        assert store.commit_many([Commit(key, before.header, appended, bytes(width), None)]) == [COMMITTED]
        assert _load(store, key) == Record(appended, before.checkpoint, before.log + bytes(width))
        compacted = appended.with_checkpoint(appended.position.step, appended.position.head)
        assert store.commit_many([Commit(key, appended, compacted, b"", b"a state")]) == [COMMITTED]
        assert _load(store, key) == Record(compacted, b"a state", b"")
        assert store.delete_many([Delete(key, before.position.generation)]) == [COMMITTED]
    assert list(records(store)) == []


def _load(store: Store, key: SessionKey) -> Record:
    (found,) = store.load_many([Load(key, touch=True)])
    assert isinstance(found, Record), found
    return found


def test_bundles_have_their_fingerprint_and_predict_what_they_did(release: Path) -> None:
    told = json.loads((release / "bundles.json").read_text())
    assert set(told) == {path.name for path in (release / "bundles").iterdir()}
    for name, one in told.items():
        path = release / "bundles" / name
        bundle = read_bundle(path)
        assert bundle.spec.fingerprint.hex() == one["fingerprint"], name  # records refer to it
        inputs = np.array(one["inputs"], bundle.spec.input.numpy_dtype)
        expected = np.array(one["prediction"], np.float32)
        np.testing.assert_allclose(offline(path, inputs)["prediction"], expected, rtol=1e-5, atol=1e-6, err_msg=name)


def test_nothing_of_the_contract_is_gone_or_has_changed(release: Path) -> None:
    then = Peer(release / "contract.binpb").contract
    assert broken(then, today()) == []
    changed = today()
    changed.file[0].message_type[0].field[0].number += 40
    assert len(broken(then, changed)) == 1


@pytest.mark.parametrize("file", ["wire.txt", "tenants.txt", "client.txt"])
def test_every_message_of_the_release_is_understood_whole(release: Path, file: str) -> None:
    """Its clients' requests, and its servers' replies to today's clients."""
    service = MODULES[0].DESCRIPTOR.services_by_name["Cellkeeper"]
    methods = set()
    for line in (release / file).read_text().splitlines():
        sign, _, rest = line.partition(" ")
        if sign == ">":
            name, data = rest.split(" ")
            method = service.methods_by_name[name]
            methods.add(name)
        elif line.startswith("< OK"):
            data = rest.split(" ")[1]
        else:
            continue
        message = message_factory.GetMessageClass(method.input_type if sign == ">" else method.output_type)
        raw = bytes.fromhex(data)
        read = message.FromString(raw)
        read.DiscardUnknownFields()
        assert read.SerializeToString(deterministic=True) == raw
    if file == "wire.txt":
        assert methods == set(service.methods_by_name)
    if file == "client.txt":
        assert set(service.methods_by_name) - methods == {"StepBatch"}  # the client streams frames instead


@pytest.mark.parametrize("file", ["wire.txt", "tenants.txt"])
def test_requests_of_the_release_are_answered_as_they_were(release: Path, file: str) -> None:
    """tests/contract/golden compares the current server's replies with its own files.

    This test compares those files with the release's, as the release's client reads them.
    """
    peer = Peer(release / "contract.binpb")
    then, now = peer.exchanges((release / file).read_text()), peer.exchanges((TODAY / file).read_text())
    assert then == {title: now.get(title) for title in then}


def test_metrics_and_settings_have_kept_their_names(release: Path) -> None:
    then, now = json.loads((release / "names.json").read_text()), names()
    assert then["metrics"].items() <= now.metrics.items()
    assert set(then["settings"]) <= set(now.settings)
