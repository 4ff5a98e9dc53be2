"""Redis refuses while the server serves: a client's step waits, counts once when it is over, and the log says what to
do."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
import redis
from cellkeeper import Client

from testing.redis_server import RedisServer
from testing.server_process import ServerProcess

Undo = Callable[[], object]


def client_of(server: RedisServer, stack: ExitStack) -> redis.Redis:
    client = redis.Redis(host="127.0.0.1", port=server.port, socket_timeout=5.0)
    stack.callback(client.close)
    return client


def cut_off_others(client: redis.Redis) -> None:
    send(client, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")


def send(client: redis.Redis, *words: str) -> None:
    client.execute_command(*words)  # type: ignore[no-untyped-call]


def full(server: RedisServer, stack: ExitStack) -> Undo:
    client = client_of(server, stack)
    client.config_set("maxmemory", "1mb")
    return lambda: client.config_set("maxmemory", "0")


def snapshots_fail(server: RedisServer, stack: ExitStack) -> Undo:
    client = client_of(server, stack)
    client.config_set("save", "3600 1000000")
    in_the_way = server.folder / "dump.rdb" / "file"
    in_the_way.parent.mkdir()
    in_the_way.write_text("")

    def save_until(status: str) -> None:
        while client.info("persistence")["rdb_last_bgsave_status"] != status:
            with suppress(redis.ResponseError):  # the one before still runs
                client.bgsave()
            time.sleep(0.01)  # between two checks of the condition

    def undo() -> None:
        shutil.rmtree(in_the_way.parent)
        save_until("ok")

    save_until("err")
    return undo


def replica(server: RedisServer, stack: ExitStack) -> Undo:
    client = client_of(server, stack)
    send(client, "REPLICAOF", "127.0.0.1", "1")
    return lambda: send(client, "REPLICAOF", "NO", "ONE")


def new_password(server: RedisServer, stack: ExitStack) -> Undo:
    client = client_of(server, stack)
    client.config_set("requirepass", "new")
    cut_off_others(client)  # a connection that exists goes on
    return lambda: client.config_set("requirepass", "")


def no_more_clients(server: RedisServer, stack: ExitStack) -> Undo:
    client = client_of(server, stack)
    client.config_set("maxclients", "1")
    cut_off_others(client)
    return lambda: client.config_set("maxclients", "10000")


def endless_script(server: RedisServer, stack: ExitStack) -> Undo:
    client, busy = client_of(server, stack), client_of(server, stack)
    client.config_set("busy-reply-threshold", "1")

    def run() -> None:
        with suppress(redis.RedisError):
            busy.eval("while true do end", 0)

    thread = threading.Thread(target=run)
    thread.start()
    stack.callback(thread.join)
    with suppress(redis.ResponseError):
        while True:
            client.ping()
    return client.script_kill


@pytest.mark.parametrize(
    ("refuse", "advice"),
    [
        (full, "used memory > 'maxmemory'; raise its maxmemory, or delete sessions"),
        (snapshots_fail, "; make room on its disk, see redis-cli info persistence"),
        (replica, "read only replica; it has become a replica; name the primary in the URL, or use redis+sentinel://"),
        (new_password, "Authentication required; name its password in the store's URL"),
        (no_more_clients, "max number of clients reached; raise its maxclients"),
        (endless_script, "; another program's script runs in it; redis-cli script kill ends it"),
    ],
)
def test_a_step_counts_once_when_redis_takes_it(
    counting_model: Path, refuse: Callable[[RedisServer, ExitStack], Undo], advice: str
) -> None:
    with ExitStack() as stack:
        store = stack.enter_context(RedisServer())
        options = ["--store-timeout-ms", "500"]
        server = stack.enter_context(ServerProcess([counting_model], store.url, options))
        session = stack.enter_context(Client(server.target, timeout=60)).session("s")
        assert session.step([1.0]) == [1.0]
        undo = refuse(store, stack)
        with ThreadPoolExecutor(1) as thread:
            step = thread.submit(session.step, [1.0])
            line = server.wait_for(r"the store failed: .* call=\w+$")
            assert not step.done()
            undo()
            assert step.result(60) == [2.0]
        assert advice in line
        assert "did not trim" not in server.output()  # nothing was committed when it refused
        assert session.step([1.0]) == [3.0]
        assert session.position.step == 3
