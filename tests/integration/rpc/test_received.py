"""How many bytes the kernel has received on a connection, and what asking for it costs."""

from __future__ import annotations

import fcntl
import os
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

from cellkeeper_service.rpc.received import DESCRIPTORS, Received


def test_the_bytes_of_a_connection_are_counted() -> None:
    with ExitStack() as opened:
        listening = opened.enter_context(socket.create_server(("127.0.0.1", 0)))
        far = opened.enter_context(socket.create_connection(listening.getsockname()))
        near, (host, port) = listening.accept()
        opened.enter_context(near)
        peer, received = f"ipv4:{host}:{port}", Received()
        before = received.of([peer])[peer]
        far.sendall(bytes(1000))
        near.recv(1000, socket.MSG_WAITALL)
        assert received.of([peer])[peer] - before == 1000


def test_looking_for_a_connection_that_has_gone_leaves_nothing_open() -> None:
    """The look-up goes through all descriptors of the process, including files, pipes and unconnected sockets."""
    received = Received()
    with socket.create_server(("127.0.0.1", 0)), open(os.devnull, "rb"):  # an unconnected socket, and a file
        before = len(os.listdir(DESCRIPTORS))
        for _ in range(20):
            assert received.of(["ipv4:127.0.0.1:1"]) == {}
        assert len(os.listdir(DESCRIPTORS)) == before


def test_looking_for_a_connection_leaves_the_locks_of_files_alone(tmp_path: Path) -> None:
    """Closing a copy of a file's descriptor would lose all locks on the file: in a server, SQLite's."""
    taken = "import fcntl, sys; fcntl.lockf(open(sys.argv[1], 'r+b'), fcntl.LOCK_EX | fcntl.LOCK_NB)"
    with (tmp_path / "file").open("wb") as file:
        fcntl.lockf(file, fcntl.LOCK_EX)
        Received().of(["ipv4:127.0.0.1:1"])
        other = subprocess.run([sys.executable, "-c", taken, file.name], capture_output=True, text=True, check=False)
        assert "BlockingIOError" in other.stderr
