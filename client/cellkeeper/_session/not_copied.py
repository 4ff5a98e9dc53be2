"""What belongs to one process and exists once in it."""

from __future__ import annotations

from typing import NoReturn


class NotCopied:
    """Refuses to be pickled, which takes an object to another process, and to be copied."""

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"{type(self).__name__} objects cannot be pickled or copied, because their connections, and the steps that "
            "they send, belong to this process: make a client in each process, and open the session or the group there "
            "by id; within this process, use the same object everywhere"
        )
