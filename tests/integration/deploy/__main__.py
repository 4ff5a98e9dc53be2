"""`make check-compose`: checks the compose project from outside, by stepping sessions through faults.

Starts the project, kills a replica and then Redis, replaces the replicas, restores Redis, and stops the project. Needs
Docker with compose; takes a few minutes.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from cellkeeper import Client

from tests.integration.deploy.dashboard import queries
from tests.integration.deploy.journey import Journey
from tests.integration.deploy.others import hot_where_asked
from tests.integration.deploy.prometheus import Prometheus
from tests.integration.deploy.stack import ROOT, CheckFailed, Stack, docker, wait_until

BUNDLE = ROOT / "examples" / "co2" / "bundle"
CLIENTS, SESSIONS_EACH, REPLICAS = 6, 4, 3
SCALED = REPLICAS + 1
OTHERS = 20
STEPS = 100  # per session, before and after each fault
# dashboard panels without data in a run of less than a day without refusals
MAY_BE_EMPTY = ("Norm of states", "Rejections a second by reason", "Evictions a second", "Alerts")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.integration.deploy", description=__doc__)
    parser.add_argument("--store", default="redis", help="the service of compose that is killed as the store")
    parser.add_argument("make_words", nargs="*", metavar="NAME=VALUE", help="further words for make up and make down")
    options = parser.parse_args()
    # Grafana would be another image to fetch, only to be ignored: its queries go to Prometheus directly.
    stack = Stack(tuple(options.make_words), {"COMPOSE_PROFILES": "", "REPLICAS": str(REPLICAS)})
    failed: CheckFailed | None = None
    try:
        stack.up()
        check(stack, options.store)
    except CheckFailed as error:
        failed = error
        for service in ("cellkeeper", "haproxy", options.store):
            print(stack.logs(service), file=sys.stderr)
    finally:
        stack.down()
    if failed is None and stack.left():
        failed = CheckFailed(f"make down left {', '.join(stack.left())}")
    if failed is not None:
        print(f"check-compose: {failed}", file=sys.stderr)
        return 1
    say("make down: no container, volume or network is left")
    return 0


def check(stack: Stack, store: str) -> None:
    """Runs all checks. Raises CheckFailed."""
    replicas = stack.containers("cellkeeper")
    prometheus = Prometheus(stack.prometheus_port)
    say(f"make up: {', '.join(stack.containers())}")
    use_all = 'haproxy_backend_active_servers{proxy="by_load"}'
    wait_until(lambda: prometheus.value(use_all) == REPLICAS, "the proxy to use every replica")
    with Journey(stack.target, CLIENTS, SESSIONS_EACH) as journey:
        journey.wait_steps(STEPS)
        by_steps = "count(sum by (instance) (cellkeeper_steps_total) > 0)"
        wait_until(lambda: prometheus.value(by_steps) == REPLICAS, "every replica to have answered steps")
        stepped = f"{len(journey.logs)} sessions of {CLIENTS} clients step"
        say(f"{stepped} through the proxy at {REPLICAS} replicas: {journey.steps} steps")

        if (hot := hot_where_asked(stack.target, OTHERS, 3)) < OTHERS:
            raise CheckFailed(f"{hot} of {OTHERS} sessions are hot where calls with their metadata arrive")
        say(f"{OTHERS} sessions by unary calls with the metadata cellkeeper-session: each stays at one replica")

        waited = kill(replicas[0], journey)
        say(f"docker kill {replicas[0]}: every session goes on, {STEPS} steps more after {waited:.1f} s")
        docker("start", replicas[0])
        wait_until(lambda: prometheus.replicas_up() == REPLICAS, "the killed replica to be scraped again")
        stack.wait_healthy("cellkeeper")
        for proxy in stack.containers("haproxy"):
            docker("kill", "--signal=USR2", proxy)
        wait_until(lambda: prometheus.value(by_steps) == REPLICAS, "every replica to have answered steps")
        say(f"docker start {replicas[0]}, SIGUSR2 to the proxy: its streams are spread over {REPLICAS} replicas again")

        killed = stack.containers(store)[0]
        docker("kill", killed)
        at_kill = journey.steps
        docker("start", killed)
        stack.wait_healthy(store)
        started = time.monotonic()
        journey.wait_steps(STEPS)
        waited = time.monotonic() - started
        say(f"docker kill {killed} at {at_kill} steps, docker start: {STEPS} more of each {waited:.1f} s later")

        scale(stack, journey)
        roll(stack, journey)
        if store == "redis":
            go_back(stack, journey)
        check_prometheus(prometheus, journey)
        journey.end()
    check_outcome(stack, journey)


def kill(container: str, journey: Journey) -> float:
    """Kills a container. Returns the seconds until every session has advanced by STEPS."""
    started = time.monotonic()
    docker("kill", container)
    journey.wait_steps(STEPS)
    return time.monotonic() - started


def scale(stack: Stack, journey: Journey) -> None:
    """Adds a replica, and checks that the others are left alone."""
    before = set(stack.ids("cellkeeper"))
    stack.scale(SCALED)
    stack.wait_healthy("cellkeeper")
    after = set(stack.ids("cellkeeper"))
    if not before <= after or len(after) != SCALED:
        raise CheckFailed(f"make scale: {len(after)} replicas, {len(before - after)} of those from before are gone")
    journey.wait_steps(STEPS)
    say(f"make scale REPLICAS={SCALED}: one more replica, and the others run on")


def roll(stack: Stack, journey: Journey) -> None:
    """Replaces every replica by a new container, and checks that the sessions continue."""
    before, at_start = set(stack.ids("cellkeeper")), journey.steps
    stack.roll()
    after = set(stack.ids("cellkeeper"))
    if before & after or len(after) != SCALED:
        raise CheckFailed(f"make roll: {len(before & after)} of {len(after)} replicas are those from before")
    during = journey.steps - at_start
    journey.wait_steps(STEPS)
    say(f"make roll: {SCALED} other replicas, {during} steps meanwhile, {STEPS} more of each after that")


def go_back(stack: Stack, journey: Journey) -> None:
    """Restores Redis to a snapshot; the clients replay the steps since then."""
    with TemporaryDirectory() as folder:
        snapshot = Path(folder) / "redis.rdb"
        stack.back_up(snapshot)
        journey.wait_steps(STEPS // 10)
        stack.restore(snapshot)
    if (left := len(stack.ids("cellkeeper"))) != SCALED:
        raise CheckFailed(f"make restore: {left} replicas, expected the {SCALED} from before")
    journey.wait_steps(STEPS)
    if not (replayed := journey.replayed_steps):
        raise CheckFailed("make restore: no client replayed a step, so Redis was not at the snapshot")
    say(f"make backup, {STEPS // 10} steps of each, make restore: {replayed} steps replayed, {STEPS} more of each")


def check_prometheus(prometheus: Prometheus, journey: Journey) -> None:
    """Checks targets, rules and all queries of the dashboard, while the sessions continue."""
    wait_until(lambda: prometheus.replicas_up() == SCALED, "every replica to be scraped")
    wait_until(lambda: set(prometheus.rules().values()) == {"ok"}, "every rule to have been evaluated")
    targets = prometheus.targets()
    if set(targets.values()) != {"up"}:
        raise CheckFailed(f"targets: {targets}")
    for name, health in sorted(targets.items()):
        say(f"target {name}: {health}")
    say(f"{len(prometheus.rules())} rules, all ok")

    asked = queries()
    wait_until(lambda: not empty(prometheus, asked), "data for every panel: " + ", ".join(empty(prometheus, asked)))
    say(f"{len(asked)} queries of the dashboard answered")


def empty(prometheus: Prometheus, asked: list[tuple[str, str]]) -> list[str]:
    """Returns the titles of panels that lack expected data. Raises ValueError if Prometheus refuses a query."""
    with_data = {title for title, expression in asked if prometheus.query(expression)}
    return sorted({title for title, _ in asked} - with_data - set(MAY_BE_EMPTY))


def check_outcome(stack: Stack, journey: Journey) -> None:
    """Checks that every answer equals an offline run's, and that a later client finds the sessions where they were."""
    if different := journey.differing(BUNDLE):
        raise CheckFailed(f"{different} of {journey.steps} answers are not those of an offline run")
    with Client(stack.target) as client:
        for log in journey.logs:
            stands = client.session_info(log.session).position.step
            if stands != len(log.answers):
                raise CheckFailed(f"{log.session} stands at {stands}, its client was answered {len(log.answers)} steps")
    say(f"{journey.steps} answers: each bit for bit that of one offline run; every session stands where its client is")


def say(text: str) -> None:
    print(f"== {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
