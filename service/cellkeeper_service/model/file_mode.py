"""What is at a path. From Python 3.14 on, Path.is_dir and its like answer False where they could not look."""

from __future__ import annotations

from errno import ELOOP, ENOENT, ENOTDIR
from pathlib import Path


def file_mode(path: Path, *, follow_links: bool = True) -> int:
    """Returns st_mode, for `stat.S_ISDIR` and its like; 0 if nothing is there, as behind a link that leads nowhere.

    Raises OSError if that cannot be found out, as without the right or for a name that is too long; and ValueError for
    a path with a zero byte.
    """
    try:
        return path.stat(follow_symlinks=follow_links).st_mode
    except OSError as error:
        if error.errno in (ENOENT, ENOTDIR, ELOOP):
            return 0
        raise
