"""The append-only file of a Redis server: finds it, cuts it, and finds the transaction that is open at its end."""

from __future__ import annotations

from pathlib import Path

MULTI = b"*1\r\n$5\r\nMULTI\r\n"
EXEC = b"*1\r\n$4\r\nEXEC\r\n"


def newest_file(folder: Path) -> Path:
    """Returns the file that a server with this folder appends to, according to its manifest.

    Raises OSError if there is no manifest, RuntimeError if it names no such file.
    """
    manifest = folder / "appendonlydir" / "appendonly.aof.manifest"
    for line in reversed(manifest.read_text().splitlines()):
        words = line.split()
        if words[4:6] == ["type", "i"]:
            return manifest.parent / words[1]
    raise RuntimeError(f"{manifest} names no incremental file")


def cut(path: Path, size_bytes: int) -> bool:
    """Truncates the file. Returns True if the cut is in the middle of a command within a transaction.

    Redis 7.0 then drops the command, and leaves the transaction without its end.
    """
    with path.open("r+b") as file:
        file.truncate(size_bytes)
    found = open_transaction(path.read_bytes())
    return found is not None and found.is_torn


class OpenTransaction:
    """MULTI and what follows it up to the end of a file, without an EXEC.

    commands: the number of complete ones. is_torn: an incomplete one follows.
    """

    def __init__(self, tail: bytes) -> None:
        at, count = len(MULTI), 0
        while (end := command_end(tail, at)) is not None:
            at, count = end, count + 1
        self.commands = count
        self.is_torn = at < len(tail)


def open_transaction(data: bytes) -> OpenTransaction | None:
    """Returns the transaction that is open at the end of a file; None if every transaction has its end."""
    begins = data.rfind(MULTI)
    return None if begins < 0 or data.rfind(EXEC) > begins else OpenTransaction(data[begins:])


def command_end(data: bytes, at: int) -> int | None:
    """Returns where the command that starts at `at` ends; None if it is incomplete. ValueError: none starts there."""
    words, at = _number(data, at, b"*")
    for _ in range(words or 0):
        length, at = _number(data, at, b"$")
        if length is None:
            return None
        at += length + 2
    return None if words is None or at > len(data) else at


def _number(data: bytes, at: int, mark: bytes) -> tuple[int | None, int]:
    """Returns the number in a line that starts with `mark`, and where the next line starts; None if incomplete."""
    if at >= len(data):
        return None, at
    if data[at : at + 1] != mark:
        raise ValueError(f"at byte {at} of an append-only file: got {data[at : at + 16]!r}, expected {mark!r}")
    end = data.find(b"\r\n", at)
    return (None, at) if end < 0 else (int(data[at + 1 : end]), end + 2)
