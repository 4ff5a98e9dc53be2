"""Event loops, and how programs end: users' scripts, each in its own process, whose stderr must stay empty."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cellkeeper_service.access.command import new_token, token_line

from testing.bundles import counting_bundle
from testing.forked_server import ForkedServer

HEAD = """
import asyncio, gc, os, signal, socket, sys, threading, warnings
from cellkeeper import AsyncClient, CellkeeperError, Client, WrongEventLoop
target, token, session = sys.argv[1:]
ONE = [1.0, 1.0]
where = {"target": target, "token": token}

async def told(work):
    # What came of it; nothing may hang.
    try:
        await asyncio.wait_for(work, 10)
    except CellkeeperError as error:
        return type(error).__name__
    return "nothing"

def interrupt():
    os.kill(os.getpid(), signal.SIGINT)
"""

MODULE_LEVEL = """
client = AsyncClient(**where)
sessions = []
async def opens():
    sessions.append(await client.open(session))
    await sessions[0].step(ONE)
asyncio.run(opens())

async def streams():
    async for _ in sessions[0].stream([ONE]):
        pass
uses = [lambda: client.open("b"), lambda: client.models(), lambda: client.session_info(session)]
uses += [lambda: sessions[0].step(ONE), lambda: sessions[0].step_reply(ONE), streams, lambda: sessions[0].settle()]
uses += [lambda: sessions[0].peek(ONE), lambda: sessions[0].state(), lambda: sessions[0].info()]
uses += [lambda: sessions[0].reset(), lambda: sessions[0].fork("c"), lambda: sessions[0].delete()]
print(*{asyncio.run(told(use())) for use in uses})
print(asyncio.run(told(sessions[0].close())), asyncio.run(told(client.close())), asyncio.run(told(client.close())))
print(asyncio.run(told(client.models())))
"""

TWO_RUNS = """
seen = []
async def main():
    async with AsyncClient(**where) as client:
        last = (await (await client.open(session)).step(ONE)).tolist()
        # Instead of the client's filter: closing leaves nothing behind.
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: seen.append(context))
        return last
for _ in range(20):
    last = asyncio.run(main())
print(last, *seen)
"""

OTHER_THREAD = """
loop = asyncio.new_event_loop()
thread = threading.Thread(target=loop.run_forever)
thread.start()
def there(work):
    return asyncio.run_coroutine_threadsafe(work, loop).result(10)
client = AsyncClient(**where)
one = there(client.open(session))
print(asyncio.run(told(one.step(ONE))), asyncio.run(told(one.close())), asyncio.run(told(client.close())))
print(there(one.step(ONE)).tolist())
there(client.close())
loop.call_soon_threadsafe(loop.stop)
thread.join()
loop.close()
"""

MANY_LOOPS = """
def blocks(name):
    with Client(**where) as client:
        one = client.session(name)
        for _ in range(40):
            one.step(ONE)

def runs(name):
    async def main():
        async with AsyncClient(**where) as client:
            one = await client.open(name)
            for _ in range(40):
                await one.step(ONE)
    asyncio.run(main())

threads = [threading.Thread(target=run, args=(f"{session}-{i}",)) for i, run in enumerate((runs, blocks, runs, runs))]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print("done")
"""

OWN_HANDLER = """
told = []
async def main():
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda loop, context: told.append(context["message"]))
    async with AsyncClient(**where) as client:
        await (await client.open(session)).step(ONE)
        loop.call_soon(lambda: 1 / 0)
        def fails():
            raise RuntimeError("Event loop is closed")
        loop.call_soon(fails)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
asyncio.run(main())
print(len(told))
"""

UNCLOSED = """
async def main():
    global client, one
    client = AsyncClient(**where)
    one = await client.open(session)
    waiting = [asyncio.ensure_future(one.step(ONE)) for _ in range(20)]
    await waiting[0]
asyncio.run(main())
blocking = Client(**where)
two = blocking.session(session + "b")
stream = two.stream(ONE for _ in range(100))
next(stream)
print("done")
"""

DAEMON = """
client = Client(**where)
one = client.session(session)
stepped = threading.Event()
def work(use):
    while True:
        use()
        stepped.set()
for use in (lambda: one.step(ONE), lambda: one.info()):
    threading.Thread(target=work, args=(use,), daemon=True).start()
stepped.wait()
print("done")
"""

COLLECTED = """
warnings.simplefilter("always")
noticed = []
warnings.showwarning = lambda message, kind, *rest: noticed.append(kind.__name__)

def use():
    client = Client(**where)
    client.session(session).step(ONE)

def threads():
    return [thread for thread in threading.enumerate() if thread.name == "cellkeeper-client"]

use()
gc.collect()
for thread in threads():
    thread.join(10)
print(len(threads()), *noticed)

async def main():
    async def use():
        client = AsyncClient(**where)
        await (await client.open(session)).step(ONE)
    await use()
    gc.collect()
    others = asyncio.all_tasks() - {asyncio.current_task()}
    if others:
        await asyncio.wait(others, timeout=10)
    print(len(asyncio.all_tasks()) - 1, *noticed[1:])
asyncio.run(main())
"""

FAILED_OPEN = """
nobody = socket.create_server(("127.0.0.1", 0))
port = nobody.getsockname()[1]
nobody.close()
nowhere = {"target": f"127.0.0.1:{port}", "token": token, "connect_timeout": 0.05}
stranger = {"target": target, "token": "x" * 40}
cases = [(nowhere, {}), (stranger, {}), (where, {"model": "nope"})]
kept = []

async def opens(options, arguments, closes):
    client = AsyncClient(**options)
    if not closes:
        kept.append(client)
    print(await told(client.open(session, **arguments)), end=" ")
    if closes:
        await client.close()

for options, arguments in cases:
    for closes in (True, False):
        asyncio.run(opens(options, arguments, closes))
        client = Client(**options)
        try:
            client.session(session, **arguments)
        except CellkeeperError as error:
            print(type(error).__name__)
        if closes:
            client.close()
        else:
            kept.append(client)
"""

INTERRUPTED = """
async def steps(closes):
    client = AsyncClient(**where)
    try:
        ones = [await client.open(f"{session}-{i}") for i in range(4)]
        await ones[0].step(ONE)
        asyncio.get_running_loop().call_later(0.01, interrupt)
        async def goes_on(one):
            while True:
                await one.step(ONE)
        await asyncio.gather(*map(goes_on, ones))
    finally:
        if closes:
            await client.close()

async def streams():
    client = AsyncClient(**where)
    one = await client.open(session)
    count = 0
    async for _ in one.stream(ONE for _ in range(10**9)):
        count += 1
        if count == 20:
            interrupt()

def blocks():
    one = Client(**where).session(session)
    threading.Timer(0.01, interrupt).start()
    while True:
        one.step(ONE)

def blocks_in_stream():
    with Client(**where) as client:
        for count, _ in enumerate(client.session(session).stream(ONE for _ in range(10**9))):
            if count == 20:
                interrupt()

silent = socket.create_server(("127.0.0.1", 0))  # takes connections, and says nothing on them

def waits(run):
    def interrupts():
        silent.accept()
        interrupt()
    threading.Thread(target=interrupts).start()
    run(f"127.0.0.1:{silent.getsockname()[1]}")

async def opens(target):
    async with AsyncClient(target) as client:
        await client.open(session)

programs = [lambda: asyncio.run(steps(True)), lambda: asyncio.run(steps(False)), lambda: asyncio.run(streams())]
programs += [blocks, blocks_in_stream, lambda: waits(lambda target: asyncio.run(opens(target)))]
programs += [lambda: waits(lambda target: Client(target).session(session))]
for program in programs:
    try:
        program()
    except KeyboardInterrupt:
        print("interrupted")
"""

UVLOOP = (
    """
import uvloop
uvloop.install()
"""
    + TWO_RUNS
)

WRONG = "WrongEventLoop"


@pytest.fixture(scope="module")
def where(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """Target and token of a real server."""
    folder: Path = tmp_path_factory.mktemp("loops")
    bundle, tokens, token = counting_bundle(folder / "count", features=2), folder / "tokens", new_token()
    tokens.write_text(token_line(token, "acme", "step,read,admin") + "\n")
    with ForkedServer([bundle], "memory:", ["--tokens", str(tokens)]) as server:
        yield [server.target, token]


@pytest.mark.parametrize(
    ("script", "lines"),
    [
        pytest.param(
            MODULE_LEVEL, [WRONG, "nothing nothing nothing", "Closed"], id="a client at module level, in several runs"
        ),
        pytest.param(TWO_RUNS, ["[20.0, 20.0]"], id="a client in each run"),
        pytest.param(UVLOOP, ["[20.0, 20.0]"], id="a client in each run of uvloop"),
        pytest.param(OTHER_THREAD, [f"{WRONG} {WRONG} {WRONG}", "[1.0, 1.0]"], id="used and closed from another loop"),
        pytest.param(MANY_LOOPS, ["done"], id="loops in several threads"),
        pytest.param(OWN_HANDLER, ["2"], id="the loop's own exception handler"),
        pytest.param(UNCLOSED, ["done"], id="never closed"),
        pytest.param(DAEMON, ["done"], id="in use by daemon threads at exit"),
        pytest.param(COLLECTED, ["0 ResourceWarning", "0 ResourceWarning"], id="collected unclosed"),
        pytest.param(
            FAILED_OPEN,
            [f"{error} {error}" for error in ("Unavailable", "AccessDenied", "InvalidArgument") for _ in range(2)],
            id="opens that fail",
        ),
        pytest.param(INTERRUPTED, ["interrupted"] * 7, id="Ctrl-C"),
    ],
)
def test_script(where: list[str], script: str, lines: list[str], request: pytest.FixtureRequest) -> None:
    command = [sys.executable, "-c", HEAD + script, *where, request.node.callspec.id.replace(" ", "-")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)
    assert done.stderr == ""
    assert (done.returncode, done.stdout.splitlines()) == (0, lines)
