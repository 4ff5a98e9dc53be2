"""What every store must do, tested on each of them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from cellkeeper_service.domain.position import Position
from cellkeeper_service.domain.record import Record
from cellkeeper_service.domain.store import Commit, CommitResult, Delete, Load, Outcome, Store

from tests.contract.store.records import (
    UNICODE_ID,
    append,
    committed,
    create,
    generation,
    header,
    inputs,
    key,
    log_of,
    replace,
    start,
)


def load(store: Store, *sessions: str) -> list[object]:
    return list(store.load_many([Load(key(session), touch=False) for session in sessions]))


def test_what_is_not_there_loads_as_none(store: Store) -> None:
    assert load(store, "pump-17", "pump-18") == [None, None]


def test_no_items_no_results(store: Store) -> None:
    assert store.load_many([]) == []
    assert store.commit_many([]) == []
    assert store.delete_many([]) == []


def test_the_check_passes_and_leaves_nothing(store: Store) -> None:
    store.check()
    assert store.scan("", "weather", "", "", 10).sessions == []


@pytest.mark.parametrize("checkpoint", [b"", b"\x00" * 17, b"12345", bytes(range(256)) * 80])
@pytest.mark.parametrize("log", [b"", inputs(3, 1), inputs(4, 5000)])
def test_a_first_record_comes_back_as_it_was(store: Store, checkpoint: bytes, log: bytes) -> None:
    commit = create(key(), log=log, checkpoint=checkpoint, ttl_ms=0)
    committed(store, commit)
    assert load(store, "pump-17") == [Record(commit.header, checkpoint, log)]


def test_appends_follow_each_other(store: Store) -> None:
    first = create(key(), log=inputs(1, 2), checkpoint=b"state")
    second = append(key(), first.header, inputs(2, 3))
    third = append(key(), second.header, inputs(3, 1))
    committed(store, first, second, third)
    assert load(store, "pump-17") == [Record(third.header, b"state", inputs(1, 2) + inputs(2, 3) + inputs(3, 1))]


def test_an_append_of_nothing_writes_the_header(store: Store) -> None:
    first = create(key(), log=inputs(1, 2), checkpoint=b"state")
    again = append(key(), first.header, b"", ttl_ms=77_000)
    committed(store, first, again)
    assert load(store, "pump-17") == [Record(again.header, b"state", inputs(1, 2))]
    assert again.header != first.header


@pytest.mark.parametrize("log", [b"", inputs(9, 2)])
def test_a_checkpoint_replaces_state_and_log(store: Store, log: bytes) -> None:
    first = create(key(), log=inputs(1, 2), checkpoint=b"a long first state")
    second = append(key(), first.header, inputs(2, 3))
    third = replace(key(), second.header, b"short", log)
    fourth = append(key(), third.header, inputs(5))
    committed(store, first, second, third, fourth)
    assert load(store, "pump-17") == [Record(fourth.header, b"short", log + inputs(5))]


def test_another_generation_can_replace_a_record(store: Store) -> None:
    first = committed(store, create(key(), seed=1, log=inputs(1, 4)))
    reset = Commit(key(), first, header(start(2), 0), b"", b"reset")
    committed(store, reset)
    assert load(store, "pump-17") == [Record(reset.header, b"reset", b"")]


@pytest.mark.parametrize("part", ["generation", "step", "head", "checkpoint", "ttl", "absent"])
@pytest.mark.parametrize("kind", ["append", "replace"])
def test_every_part_of_the_header_is_compared(store: Store, part: str, kind: str) -> None:
    first = create(key(), log=inputs(1, 3))
    standing = committed(store, first)
    good = standing.position
    expected = {
        "generation": standing.replace(position=Position(generation(2), good.step, good.head)),
        "step": standing.replace(position=Position(good.generation, good.step + 1, good.head)),
        "head": standing.replace(position=Position(good.generation, good.step, bytes(7) + b"\x01")),
        "checkpoint": standing.replace(checkpoint_step=1),
        "ttl": standing.replace(ttl_ms=5),
        "absent": None,
    }[part]
    commit = append(key(), standing, inputs(2))
    checkpoint = b"new" if kind == "replace" else None
    (result,) = store.commit_many([Commit(key(), expected, commit.header, commit.log, checkpoint)])
    assert result == CommitResult(Outcome.CONFLICT, standing)
    assert load(store, "pump-17") == [Record(standing, b"state 0", inputs(1, 3))]


@pytest.mark.parametrize("kind", ["append", "replace"])
def test_nothing_stands_where_something_was_expected(store: Store, kind: str) -> None:
    before = header(start(), 0)
    commit = append(key(), before, inputs(1)) if kind == "append" else replace(key(), before, b"state")
    assert store.commit_many([commit]) == [CommitResult(Outcome.CONFLICT)]
    assert load(store, "pump-17") == [None]


def test_a_first_commit_needs_a_checkpoint(store: Store) -> None:
    commit = create(key())
    (result,) = store.commit_many([Commit(key(), None, commit.header, b"", None)])
    assert result.outcome is Outcome.REFUSED
    assert "checkpoint" in result.message
    assert load(store, "pump-17") == [None]


def test_a_commit_repeated_conflicts_with_itself(store: Store) -> None:
    standing = committed(store, create(key()))
    commit = append(key(), standing, inputs(1))
    committed(store, commit)
    assert store.commit_many([commit]) == [CommitResult(Outcome.CONFLICT, commit.header)]
    assert load(store, "pump-17") == [Record(commit.header, b"state 0", inputs(1))]


def test_many_items_have_results_of_their_own(store: Store) -> None:
    standing = {
        session: committed(store, create(key(session), seed=seed, log=inputs(seed)))
        for seed, session in enumerate(["appended", "replaced", "stale", "taken"])
    }
    commits = [
        append(key("appended"), standing["appended"], inputs(10, 2)),
        append(key("stale"), header(start(99), 0), inputs(11)),
        create(key("created"), seed=7, log=inputs(12), checkpoint=b"fresh"),
        create(key("taken"), seed=8),
        replace(key("replaced"), standing["replaced"], b"replacement", inputs(13)),
        append(key("missing"), header(start(98), 0), inputs(14)),
    ]
    assert store.commit_many(commits) == [
        CommitResult(Outcome.COMMITTED),
        CommitResult(Outcome.CONFLICT, standing["stale"]),
        CommitResult(Outcome.COMMITTED),
        CommitResult(Outcome.CONFLICT, standing["taken"]),
        CommitResult(Outcome.COMMITTED),
        CommitResult(Outcome.CONFLICT),
    ]
    assert load(store, "created", "missing", "stale", "replaced", "taken", "appended") == [
        Record(commits[2].header, b"fresh", inputs(12)),
        None,
        Record(standing["stale"], b"state 0", inputs(2)),
        Record(commits[4].header, b"replacement", inputs(13)),
        Record(standing["taken"], b"state 0", inputs(3)),
        Record(commits[0].header, b"state 0", inputs(0) + inputs(10, 2)),
    ]


def test_a_thousand_items_in_one_call(store: Store) -> None:
    commits = [create(key(f"s{n}"), seed=n, log=inputs(n), ttl_ms=60_000) for n in range(1000)]
    assert store.commit_many(commits) == [CommitResult(Outcome.COMMITTED)] * 1000
    loads = [Load(commit.key, touch=True) for commit in commits]
    assert store.load_many(loads) == [Record(commit.header, b"state 0", commit.log) for commit in commits]


NAMES = ["a", "a*", 'quoted "\\', "'", "%", UNICODE_ID, "\x7f", "[]"]


@pytest.mark.parametrize("kind", [append, replace])
@pytest.mark.parametrize("stale", [None, 0, 3, 7])
@pytest.mark.parametrize("last_name", ["[]", "zero \x00"])
def test_many_of_one_kind_in_one_call(
    store: Store, kind: Callable[..., Commit], stale: int | None, last_name: str
) -> None:
    """Stores may make such commits all at once."""
    names = [*NAMES[:-1], last_name]
    heads = [committed(store, create(key(name), seed=seed)) for seed, name in enumerate(names)]
    for turn in (1, 2):
        commits = []
        for seed, (name, head) in enumerate(zip(names, heads, strict=True)):
            checkpoint = (b"state %d" % seed,) if kind is replace else ()
            commits.append(kind(key(name), head, *checkpoint, inputs(10 * turn + seed)))
        if turn == 2 and stale is not None:
            old = commits[stale]
            commits[stale] = old._replace(expected=header(start(99), 0))
        results = store.commit_many(commits)
        expected = [CommitResult(Outcome.COMMITTED)] * len(names)
        if turn == 2 and stale is not None:
            expected[stale] = CommitResult(Outcome.CONFLICT, heads[stale])
        assert results == expected
        heads = [
            commit.header if result.outcome is Outcome.COMMITTED else head
            for commit, result, head in zip(commits, results, heads, strict=True)
        ]
    for seed, (name, head) in enumerate(zip(names, heads, strict=True)):
        turns = (1,) if seed == stale else (1, 2)
        logs = [inputs(10 * turn + seed) for turn in turns]
        state, log = (b"state %d" % seed, logs[-1]) if kind is replace else (b"state 0", b"".join(logs))
        assert load(store, name) == [Record(head, state, log)]


@pytest.mark.parametrize("ttl_ms", [0, 60_000])
@pytest.mark.parametrize("taken", [None, 0, 7])
@pytest.mark.parametrize("log", [b"", inputs(3)], ids=["no log", "log"])
def test_many_new_records_in_one_call(store: Store, taken: int | None, log: bytes, ttl_ms: int) -> None:
    """Only the existing one conflicts. Ids are kept to the byte."""
    names = [*NAMES, "zero \x00", "\x00", "not \\xff", "e\u0301", "\xe9"]
    standing = None if taken is None else committed(store, create(key(names[taken]), seed=90))
    commits = [
        create(key(name), seed=seed, log=log, checkpoint=b"state %2d" % seed, ttl_ms=ttl_ms)
        for seed, name in enumerate(names)
    ]
    expected = [CommitResult(Outcome.COMMITTED)] * len(names)
    records = [Record(commit.header, b"state %2d" % seed, log) for seed, commit in enumerate(commits)]
    if taken is not None and standing is not None:
        expected[taken] = CommitResult(Outcome.CONFLICT, standing)
        records[taken] = Record(standing, b"state 0", b"")
    assert store.commit_many(commits) == expected
    assert load(store, *names) == records
    page = store.scan(commits[0].key.tenant, commits[0].key.model, "", "", 100)
    assert sorted(at.session for at, _ in page.sessions) == sorted(names)


def test_a_new_session_twice_in_one_call_is_created_once(store: Store) -> None:
    commits = [create(key(name), seed=seed) for seed, name in enumerate([*NAMES, NAMES[3]])]
    results = store.commit_many(commits)
    assert [result.outcome for result in results] == [Outcome.COMMITTED] * len(NAMES) + [Outcome.CONFLICT]
    assert load(store, NAMES[3]) == [Record(commits[3].header, b"state 0", b"")]


def test_many_empty_states_in_one_call(store: Store) -> None:
    heads = {name: committed(store, create(key(name), seed=seed)) for seed, name in enumerate(NAMES)}
    commits = [replace(key(name), head, b"", inputs(seed)) for seed, (name, head) in enumerate(heads.items())]
    assert store.commit_many(commits) == [CommitResult(Outcome.COMMITTED)] * len(NAMES)
    for seed, (name, commit) in enumerate(zip(NAMES, commits, strict=True)):
        assert load(store, name) == [Record(commit.header, b"", inputs(seed))]


def test_a_session_twice_in_one_call_is_committed_once(store: Store) -> None:
    heads = {name: committed(store, create(key(name), seed=seed)) for seed, name in enumerate(NAMES)}
    commits = [append(key(name), head, inputs(seed)) for seed, (name, head) in enumerate(heads.items())]
    results = store.commit_many([*commits, commits[0]])
    assert [result.outcome for result in results] == [Outcome.COMMITTED] * len(NAMES) + [Outcome.CONFLICT]
    assert log_of(store, key(NAMES[0])) == inputs(0)


def test_keys_do_not_run_into_each_other(store: Store) -> None:
    keys = [
        key("c", "b", "a"),
        key("b:c", "", "a"),
        key(":c", "b", "a"),
        key("c", "a:b", ""),
        key("c", "b", "a:"),
        key("c", "b%3A", "a"),
        key("c", "b:", "a"),
        key("c\x00", "b", "a"),
        key("C", "b", "a"),
        key(" c", "b", "a"),
        key("}c{", "b", "{a}"),
        key("€" * 85, "b", "a"),
        key(UNICODE_ID, "b", "a"),
    ]
    commits = [create(at, seed=n, checkpoint=b"%d" % n) for n, at in enumerate(keys)]
    assert store.commit_many(commits) == [CommitResult(Outcome.COMMITTED)] * len(keys)
    for n, at in enumerate(keys):
        assert store.load_many([Load(at, False)]) == [Record(commits[n].header, b"%d" % n, b"")]
        assert (at, commits[n].header) in store.scan(at.tenant, at.model, at.session, "", 100).sessions


def test_a_delete_names_its_generation(store: Store) -> None:
    standing = committed(store, create(key("kept"), seed=1, log=inputs(1, 2)))
    committed(store, create(key("gone"), seed=2, log=inputs(1, 2)))
    committed(store, append(key("gone"), create(key("gone"), seed=2, log=inputs(1, 2)).header, inputs(3)))
    assert store.delete_many(
        [
            Delete(key("kept"), generation(2)),
            Delete(key("gone"), generation(2)),
            Delete(key("never"), generation(3)),
        ]
    ) == [CommitResult(Outcome.CONFLICT, standing), CommitResult(Outcome.COMMITTED), CommitResult(Outcome.CONFLICT)]
    assert load(store, "kept", "gone") == [Record(standing, b"state 0", inputs(1, 2)), None]


def test_nothing_is_left_of_a_deleted_record(store: Store) -> None:
    committed(store, create(key(), seed=1, log=inputs(1, 2), checkpoint=b"old", ttl_ms=60_000))
    store.delete_many([Delete(key(), generation(1))])
    again = create(key(), seed=2, log=inputs(5), checkpoint=b"new")
    committed(store, again)
    assert load(store, "pump-17") == [Record(again.header, b"new", inputs(5))]
