"""What other threads read of the core, at each scrape of the metrics."""

from __future__ import annotations

from cellkeeper_service.core.limits import Limits
from cellkeeper_service.domain.position import Position

from .counting_engine import expected
from .world import World


def test_a_scrape_makes_no_cache() -> None:
    """Between any two of its lines, the loop's thread may make the cache of the same version."""
    scraping: list[None] = []

    class Scraped(Limits):
        def log_steps(self, step_bytes: int) -> int:  # called when a cache is made
            if scraping:
                scraping.clear()
                step("a", 1)
            return super().log_steps(step_bytes)

    world = World(limits=Scraped(max_slice_steps=4, max_long_steps=8))
    core = world.replicas[0].core
    positions: dict[str, Position] = {}

    def step(name: str, value: int) -> list[int]:
        reply = world.send([value], positions.get(name), session=name)
        world.settle()
        positions[name] = reply.result.position
        return reply.outputs

    scraping.append(None)
    assert core.cached_count("m") == 0
    if scraping:
        scraping.clear()
        step("a", 1)
    assert step("b", 5) == expected([5])
    assert step("a", 2) == expected([1, 2])[-1:]
    assert core.cached_count("m") == 2
