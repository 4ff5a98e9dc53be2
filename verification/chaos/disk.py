"""A small disk that can be filled up: a tmpfs, if this process may mount one."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType

SIZE_MIB = 256


class SmallDisk:
    """A folder; use as a context manager. limited: it is a disk of `size_mib`, and `fill` works."""

    def __init__(self, size_mib: int = SIZE_MIB) -> None:
        self._size_mib = size_mib
        self.folder = Path(tempfile.mkdtemp(prefix="cellkeeper-disk-"))
        self.limited = False

    def fill(self) -> None:
        """Takes up all remaining space."""
        usage = os.statvfs(self.folder)
        with (self.folder / "ballast").open("wb") as ballast:
            try:
                os.posix_fallocate(ballast.fileno(), 0, max(1, usage.f_bavail * usage.f_frsize))
            except OSError:
                return  # another process was faster: as good as full

    def free(self) -> None:
        (self.folder / "ballast").unlink(missing_ok=True)

    def __enter__(self) -> SmallDisk:
        if os.geteuid() == 0:
            words = ["mount", "-t", "tmpfs", "-o", f"size={self._size_mib}m", "tmpfs", str(self.folder)]
            self.limited = subprocess.run(words, capture_output=True, check=False).returncode == 0
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.limited:
            subprocess.run(["umount", "-l", str(self.folder)], check=False)
        subprocess.run(["rm", "-rf", str(self.folder)], check=False)
