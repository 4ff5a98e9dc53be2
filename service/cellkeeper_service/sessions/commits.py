"""What one session's next commit writes: chunks appended to the log, or a checkpoint and the chunks after it."""

from __future__ import annotations

from cellkeeper_service.domain.store import Commit, Delete

from .hot import Hot
from .line import Applied, Changing, Erasing, Flight, Line, Pending


def build_flight(line: Line, items: list[Pending], now_ms: int) -> Flight:
    """One commit over `items`: either computed chunks, all of them, in order, or one change or erasure."""
    first = items[0]
    if isinstance(first, Changing):
        return Flight(line, items, first.write.commit)
    if isinstance(first, Erasing):
        return Flight(line, items, Delete(line.key, first.generation))
    chunks = [item for item in items if isinstance(item, Applied)]
    hot = line.hot
    if hot is None:
        raise RuntimeError("chunks wait for their commit, but their hot copy is gone")
    return Flight(line, items, chunk_commit(line, hot, chunks, now_ms), hot)


def chunk_commit(line: Line, hot: Hot, chunks: list[Applied], now_ms: int) -> Commit:
    """Appends, or replaces the checkpoint where one is due and every chunk's sender holds the replies before it:
    the reply to a step that the log has lost cannot be computed again."""
    after = chunks[-1].after
    header = hot.header.replace(position=after, updated_ms=now_ms, numerics=hot.served.numerics)
    expected = hot.header if hot.exists else None
    checkpoint = hot.checkpoint
    if checkpoint is not None and checkpoint.step <= min(chunk.acked for chunk in chunks):
        header = header.replace(checkpoint_step=checkpoint.step, checkpoint_head=checkpoint.head)
        log = bytes(checkpoint.tail[: (after.step - checkpoint.step) * header.step_bytes])
        return Commit(line.key, expected, header, log, checkpoint.state)
    return Commit(line.key, expected, header, b"".join([chunk.request.data for chunk in chunks]), None)
