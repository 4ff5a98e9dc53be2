"""scripts/load-snapshot: a Redis server with an append-only file starts with what the script leaves."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import redis

from testing.redis_server import RedisServer
from tests.integration.deploy.stack import ROOT

# A snapshot with a part that the module "searchaux" wrote; redis-check-rdb takes it, and Redis without it does not.
OF_A_MODULE = bytes.fromhex("524544495330303130f781b1e6ab7216aec401") + b"\2\2\0\xff" + bytes(8)


def load_snapshot(folder: Path, snapshot: bytes) -> subprocess.CompletedProcess[bytes]:
    words = ["sh", str(ROOT / "scripts" / "load-snapshot"), str(folder)]
    return subprocess.run(words, input=snapshot, capture_output=True, check=False, timeout=60)


def stand_in(folder: Path, lines: str) -> Path:
    """Returns a program in the place of compose."""
    compose = folder / "compose"
    compose.write_text(f"#!/bin/bash\n{lines}\n")
    compose.chmod(0o755)
    return compose


def snapshot_of(server: RedisServer) -> bytes:
    file = server.folder / "backup.rdb"
    command = ["redis-cli", "-u", server.url, "--rdb", str(file)]
    subprocess.run(command, capture_output=True, check=True)
    return file.read_bytes()


@pytest.fixture
def server() -> RedisServer:
    return RedisServer({"repl-diskless-sync-delay": "0"})  # a snapshot waits for others who may want one: 5 s


def test_redis_starts_with_the_snapshot_and_keeps_what_follows(server: RedisServer) -> None:
    with server, redis.Redis.from_url(server.url) as client:
        client.rpush("session", b"header", b"\x00\xff")
        snapshot = snapshot_of(server)
        client.rpush("session", b"after the snapshot")
        client.set("later", 1)
        server.kill()
        ran = load_snapshot(server.folder, snapshot)
        assert ran.returncode == 0, ran.stderr
        server.restart()
        assert client.lrange("session", 0, -1) == [b"header", b"\x00\xff"]
        assert not client.exists("later")
        client.rpush("session", b"next")
        server.kill()
        server.restart()
        assert client.lrange("session", 0, -1) == [b"header", b"\x00\xff", b"next"]


@pytest.mark.parametrize("snapshot", [b"", b"no snapshot", b"REDIS0010\xfa"], ids=["empty", "other", "cut"])
def test_what_is_no_snapshot_changes_nothing(server: RedisServer, snapshot: bytes) -> None:
    with server, redis.Redis.from_url(server.url) as client:
        client.set("key", "value")
        server.kill()
        before = sorted(server.folder.iterdir())
        ran = load_snapshot(server.folder, snapshot)
        assert ran.returncode == 1
        assert b"the input is no snapshot of Redis; nothing was changed" in ran.stderr
        assert sorted(server.folder.iterdir()) == before
        server.restart()
        assert client.get("key") == b"value"


def test_what_redis_cannot_load_changes_nothing(server: RedisServer) -> None:
    with server, redis.Redis.from_url(server.url) as client:
        client.set("key", "value")
        server.kill()
        before = sorted(server.folder.iterdir())
        ran = load_snapshot(server.folder, OF_A_MODULE)
        assert ran.returncode == 1
        assert b"no matching module 'searchaux'" in ran.stderr
        assert ran.stderr.endswith(b"could not load the snapshot, for the reason above; nothing was changed\n")
        assert sorted(server.folder.iterdir()) == before
        server.restart()
        assert client.get("key") == b"value"


def test_an_interruption_at_the_end_leaves_the_data_as_it_was(server: RedisServer, tmp_path: Path) -> None:
    """A program in the place of mv fails once the data is to be replaced."""
    (tmp_path / "mv").write_text('#!/bin/sh\n[ "$1" != restoring/appendonlydir ] && exec /bin/mv "$@"\n')
    (tmp_path / "mv").chmod(0o755)
    with server, redis.Redis.from_url(server.url) as client:
        snapshot = snapshot_of(server)
        client.set("key", "value")
        server.kill()
        environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
        words = ["sh", str(ROOT / "scripts" / "load-snapshot"), str(server.folder)]
        ran = subprocess.run(words, input=snapshot, capture_output=True, check=False, env=environment)
        assert ran.returncode != 0
        server.restart()
        assert client.get("key") == b"value"


def test_what_cannot_be_restored_stops_nothing(tmp_path: Path) -> None:
    """compose: a program in its place, which records its commands and answers as Redis Cluster."""
    asked, snapshot = tmp_path / "asked", tmp_path / "redis.rdb"
    compose = stand_in(tmp_path, f'echo "$1" >>{asked}\necho cluster_enabled:1')
    script = ROOT / "scripts" / "restore-redis"

    def restored(file: Path = snapshot) -> str:
        ran = subprocess.run([script, file, compose], capture_output=True, text=True, check=False)
        assert ran.returncode == 1
        return ran.stderr

    for other in (b"", b"cellkeeper", b"\0\0REDIS"):
        snapshot.write_bytes(other)
        assert restored() == f"restore-redis: '{snapshot}' is no snapshot of Redis; nothing was stopped\n"
    assert restored(tmp_path).startswith(f"restore-redis: cannot read '{tmp_path}'; ")
    assert not asked.exists()
    snapshot.write_bytes(b"REDIS0010")
    assert "this Redis is one node of a cluster" in restored()
    assert asked.read_text().split() == ["exec"]


def test_a_snapshot_may_come_through_a_pipe(tmp_path: Path) -> None:
    """compose: a program in its place, which takes all that comes, as `exec` does, and notes it."""
    taken = tmp_path / "taken"
    compose = stand_in(tmp_path, f'[[ $1 != exec && $1 != run ]] || echo "$1 $(cat)" >>{taken}')
    words = [str(ROOT / "scripts" / "restore-redis"), "/dev/stdin", str(compose)]
    subprocess.run(words, input=b"REDIS0010", capture_output=True, check=False, timeout=60)
    assert taken.read_text().splitlines() == ["exec ", "run REDIS0010"]


def test_an_interrupted_restore_says_what_is_left_to_do(tmp_path: Path) -> None:
    """compose: a program in its place, which fails to load the snapshot, and to start what was stopped."""
    snapshot = tmp_path / "redis.rdb"
    snapshot.write_bytes(b"REDIS0010")
    compose = stand_in(tmp_path, "case $1 in ps) echo one; echo two ;; run | up) exit 1 ;; esac")
    words = [str(ROOT / "scripts" / "restore-redis"), str(snapshot), str(compose)]
    ran = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    assert ran.returncode == 1
    unfinished, stopped = ran.stderr.splitlines()
    assert unfinished.endswith("all of its former data or all of the snapshot, and this can be repeated")
    assert stopped.endswith(f" start them: {compose} up --detach --no-recreate --scale cellkeeper=2")


def test_only_its_owner_may_read_a_backup(tmp_path: Path) -> None:
    backup = tmp_path / "redis.rdb"
    words = [str(ROOT / "scripts" / "backup-redis"), str(backup), str(stand_in(tmp_path, "echo REDIS0010"))]
    subprocess.run(words, check=True, timeout=60, umask=0o022)
    assert backup.read_text() == "REDIS0010\n"
    assert backup.stat().st_mode & 0o777 == 0o600


def test_a_backup_is_not_written_into_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "backups"
    folder.mkdir()
    words = [str(ROOT / "scripts" / "backup-redis"), str(folder), str(stand_in(tmp_path, "echo REDIS0010"))]
    ran = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    assert (ran.returncode, list(folder.iterdir())) == (1, [])
    assert ran.stderr == f"backup-redis: '{folder}' is a folder; make backup BACKUP=FILE names a file\n"
