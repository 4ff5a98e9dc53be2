"""The bytes on the wire and in the stores are those of the golden files.

Fixed requests (script.py) go to a real server that serves a fixed bundle (bundle/), on SQLite and on Redis. Each reply
is compared with wire.txt, the same for both stores. Each record, after every call that changed it, is compared with
records-STORE.txt. Requests to a server with authentication (tenants.py) have tenants.txt and tenants-STORE.txt.

Only what differs from run to run is replaced by a fixed value (names.py, stored.py, transcript.py): generations and
what derives from them, times, durations of steps, the engine's name and numerics.

After an intended change, run

    .venv/bin/python -m tests.contract.golden

and commit what `git diff` shows, with the reason. Wire and stored bytes are promises to existing clients and records.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from zlib import crc32

import pytest
import redis

from .differences import differences
from .names import Names
from .recording import FOLDER, STORES, Texts, record
from .stored import RedisLists, SqliteFile, now_ms

GENERATION = bytes(range(16))


@pytest.fixture(scope="module", params=STORES)
def recorded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Texts:
    return record(request.param, tmp_path_factory.mktemp("golden"))


def golden(name: str) -> str:
    return (FOLDER / name).read_text()


@pytest.mark.parametrize("name", ["wire.txt", "tenants.txt"])
def test_replies_have_the_same_bytes_as_ever(recorded: Texts, name: str) -> None:
    found = differences(golden(name), recorded[name])
    assert not found, found


@pytest.mark.parametrize("kind", ["records", "tenants"])
def test_records_have_the_same_bytes_as_ever(recorded: Texts, kind: str) -> None:
    (name,) = (name for name in recorded if name.startswith(f"{kind}-"))
    found = differences(golden(name), recorded[name])
    assert not found, found


@pytest.mark.parametrize("name", ["wire.txt", "tenants.txt", *(f"records-{store}.txt" for store in STORES)])
def test_a_changed_byte_is_found_and_its_entry_named(name: str) -> None:
    text = golden(name)
    at = text.rindex("00")
    title = text[:at].split("## ")[-1].splitlines()[0]
    found = differences(text, f"{text[:at]}01{text[at + 2 :]}")
    assert found.startswith(f"1 entries differ:\n## {title}\n- ")
    assert differences(text, text) == ""


def test_an_entry_that_is_missing_and_another_order_are_found() -> None:
    text = golden("records-sqlite.txt")
    head, first, second, *rest = text.split("## ")
    assert differences(text, "## ".join([head, second, *rest])).startswith("1 entries differ:\n## 3 open\n- ")
    assert differences(text, "## ".join([head, second, first, *rest])) == "the entries come in another order"


def test_a_reply_is_spelled_out() -> None:
    text = golden("wire.txt")
    found = differences(text, text.replace("no such session", "no such dession"))
    assert "NOT_FOUND" in found
    assert 'message: "session: no such session (never opened, deleted or expired)"' in found


def header(started_ms: int, head: bytes) -> bytes:
    position = struct.pack("<16sQ8s", GENERATION, 1, head)
    return position + struct.pack(
        "<QQ8sQQ32s8s16sI", started_ms, 1, head, started_ms, 5, bytes(32), bytes(8), bytes(16), 8
    )


def undetected(data: bytes, fixed: Callable[[bytes], bytes]) -> list[int]:
    """Returns the bytes that can change without being noticed."""
    right, found = fixed(data), []
    for at in range(len(data)):
        changed = bytearray(data)
        changed[at] ^= 1
        try:
            if fixed(bytes(changed)) == right:
                found.append(at)
        except AssertionError:
            pass  # an impossible time
    return found


def test_of_a_header_only_the_times_may_differ(tmp_path: Path) -> None:
    started_ms, names = now_ms() - 60_000, Names()
    file = SqliteFile(tmp_path, started_ms)
    packed = header(started_ms + 30_000, names.generation(GENERATION).head)
    found = undetected(packed, lambda changed: file.fixed("header", changed + struct.pack("<I", crc32(changed)), names))
    assert set(found) < {*range(32, 40), *range(56, 64)}  # their high bytes are of another year
    assert 32 in found
    data = packed + struct.pack("<I", crc32(packed))
    assert undetected(data, lambda changed: file.fixed("header", changed, names)) == []


def test_of_an_element_only_the_times_may_differ() -> None:
    started_ms, names = now_ms() - 60_000, Names()
    run = b"abcd"
    lists = RedisLists(redis.Redis(), started_ms, run)
    head = names.generation(GENERATION).head
    packed = header(started_ms + 30_000, head)
    fixed, rest = packed[:16] + packed[20:24] + packed[38:], packed[16:20] + packed[24:38]
    crc = struct.pack("<I", crc32(fixed))
    moving = crc + rest
    link = bytes(3) + bytes(one ^ other for one, other in zip(crc, head[:4], strict=True))
    elements = {
        b"B" + run + fixed + moving: {*range(43, 51), *range(135, 141)},
        b"W" + link + run + fixed + moving: {*range(50, 58), *range(142, 148)},
        b"S" + link + run + moving: set(range(28, 34)),
        b"D" + b"inputs": set(),
        b"C" + bytes(4) + b"state": set(),
    }
    for element, times in elements.items():
        found = undetected(element, lambda changed: lists.fixed("element", changed, names))
        assert set(found) <= times, element
        assert bool(found) == bool(times), element
