"""A reply that cannot be built fails only its own request: its neighbours are answered, and the stream continues."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from testing.server_process import ServerProcess

from .calls import Api, Chunk, Way, frame_message, numbers

# Runs first in the server's process: outputs of sessions whose id ends with "broken" get lost before the reply.
SPOILS = """
from cellkeeper_service.rpc.frame_replies import FrameReplies

done = FrameReplies._done

def spoiled_done(self, steps):
    for step in steps:
        if step.key.session.endswith("broken") and step.result is None:
            step.pieces = [(batch, 10_000, first, last) for batch, _, first, last in step.pieces]
    done(self, steps)

FrameReplies._done = spoiled_done
"""


@pytest.fixture(scope="module")
def api(counting_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    folder = tmp_path_factory.mktemp("spoils")
    (folder / "sitecustomize.py").write_text(SPOILS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder))
        with ServerProcess([counting_model], "memory:") as server, server.channel() as channel:
            yield Api(server.stub(channel))


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("frame_way", ["batch", "stream"])
def test_the_others_of_the_same_frame_are_answered(api: Api, session: str, frame_way: Way, steps: int) -> None:
    names = [f"{session}-{name}" for name in ("a", "b", "broken", "c")]
    at = [api.send("unary", Chunk(name, numbers(1), api.open(name))).after for name in names]
    chunks = [Chunk(name, numbers(*[2] * steps), place) for name, place in zip(names, at, strict=True)]
    got = api.send_frame(frame_way, frame_message("count", chunks))
    broken = got.pop(2)
    assert (broken.code, broken.reason) == ("INTERNAL", "INTERNAL_ERROR")
    assert [result.sums for result in got] == [[1.0 + 2 * (step + 1) for step in range(steps)]] * 3
    assert api.position(names[2]).step == 1 + steps  # it was applied: a retry in another way gets its outputs
    assert api.send("unary", chunks[2]).sums == [1.0 + 2 * (step + 1) for step in range(steps)]
