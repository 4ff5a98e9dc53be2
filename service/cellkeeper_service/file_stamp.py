"""Notices that a file has changed, so that it is read again."""

from __future__ import annotations

import os
import stat

Stamp = tuple[int, int, int]


def stamp_of(path: str | os.PathLike[str]) -> Stamp:
    """Returns a value that differs after every change of the file.

    Raises OSError if there is none, or if it is anything but a regular file. Opening a named pipe waits for its writer:
    the process would neither notice further changes nor end.
    """
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise OSError(f"{os.fspath(path)!r} is not a regular file, so it could not be read again when it changes")
    return status.st_ino, status.st_mtime_ns, status.st_size
