"""A meter that records what it is told."""

from __future__ import annotations

from cellkeeper_service.domain.meter import Meter, StepTimes

from .world import World


class Counts(Meter):
    """rejections: their reasons. outcomes: each with its number of commits. times: those of each finished step."""

    def __init__(self) -> None:
        self.rejections: list[str] = []
        self.outcomes: list[tuple[str, int]] = []
        self.times: list[StepTimes] = []
        self.steps = self.non_finite_rows = self.checkpoints = 0

    def rejected(self, reason: str) -> None:
        self.rejections.append(reason)

    def committed(self, outcome: str, count: int) -> None:
        self.outcomes.append((outcome, count))

    def steps_done(self, model: str, steps: int, times: StepTimes, replayed: bool, count: int) -> None:
        self.steps += steps * count
        self.times += [times] * count

    def non_finite(self, model: str) -> None:
        self.non_finite_rows += 1

    def checkpointed(self, model: str) -> None:
        self.checkpoints += 1


def counted(world: World) -> Counts:
    """Returns a meter that records what the first replica reports from now on."""
    counts = Counts()
    world.replicas[0].count_with(counts)
    return counts
