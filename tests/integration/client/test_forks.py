"""Forked processes never hang. The tests run separate programs, since a fork would copy the test run's threads."""

from __future__ import annotations

import subprocess
import sys

import pytest

from .conftest import ServerThread

HEAD = """
import asyncio, os, select, sys, warnings
warnings.simplefilter("ignore")
from cellkeeper import AsyncClient, Client, ForkedProcess
target = sys.argv[1]
ONE = [1.0, 1.0]

def told(call):
    try:
        call()
    except ForkedProcess as error:
        return "ForkedProcess" if "spawn" in str(error) else str(error)
    return "nothing"

def in_child(*calls):
    # What each call raised in a forked process, which has to end by itself.
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(writer, " ".join(told(call) for call in calls).encode())
        os._exit(0)
    print(os.read(reader, 4096).decode() if select.select([reader], [], [], 20)[0] else "hung")
    os.kill(pid, 9)
    os.waitpid(pid, 0)
"""

USED = """
client = Client(target)
session = client.session("a")
session.step(ONE)
stream = session.stream(ONE for _ in range(9))
next(stream)
in_child(lambda: session.step(ONE), lambda: client.models(), lambda: next(stream), lambda: session.state(),
         lambda: Client(target), lambda: AsyncClient(target), lambda: (session.unsettled, client.close()))
"""

CLOSED = """
with Client(target) as client:
    client.session("a").step(ONE)
in_child(lambda: Client(target))
in_child(lambda: Client(target))
"""

ASYNC = """
loop = asyncio.new_event_loop()
client = AsyncClient(target)
session = loop.run_until_complete(client.open("a"))
loop.run_until_complete(session.step(ONE))
works = [lambda: session.step(ONE), lambda: session.state(), lambda: client.open("b")]
in_child(*(lambda work=work: work().send(None) for work in works))
loop.run_until_complete(session.step(ONE))
loop.run_until_complete(client.close())
"""

IMPORTS = """
before = set(sys.modules)
with Client(target) as client:
    session, group = client.session("a"), client.group(["b"])
    calls = session.step(ONE), session.peek(ONE), list(session.stream([ONE])), session.state(), group.step([ONE])
print(sorted(set(sys.modules) - before))  # while a thread imports a module, a child that is forked cannot
"""

EXITS = """
client = Client(target)
client.session("a").step(ONE)
pid = os.fork()
if pid == 0:
    sys.exit(0)  # the whole of Python's end
print(os.waitpid(pid, 0)[1])
print(client.session("a").step(ONE).tolist())  # the parent's goes on
"""

BEFORE = """
def work():
    with Client(target) as client:
        client.session(f"child-{os.getpid()}").step(ONE)

unused = AsyncClient(target)
idle = Client(target)
in_child(work, lambda: idle.models())
"""


def run(text: str, target: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", HEAD + text, target], capture_output=True, text=True, timeout=110, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        pytest.param(USED, ["ForkedProcess " * 6 + "nothing"], id="inherited"),
        pytest.param(CLOSED, ["ForkedProcess"] * 2, id="new after a closed one"),
        pytest.param(ASYNC, ["ForkedProcess ForkedProcess ForkedProcess"], id="asyncio"),
        pytest.param(IMPORTS, ["[]"], id="nothing is imported at the first call"),
        pytest.param(EXITS, ["0", "[2.0, 2.0]"], id="the child ends, the parent goes on"),
        pytest.param(BEFORE, ["nothing ForkedProcess"], id="forked before anything connected"),
    ],
)
def test_forked(threaded: ServerThread, text: str, lines: list[str]) -> None:
    assert run(text, threaded.target) == lines
