"""`cellkeeper sessions list | show | state | set-state | reset | fork | delete`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from itertools import chain
from typing import Any

from ..client import Client
from ..errors import RecordDamaged
from ..position import Position
from ..types import SessionInfo
from .states import add_arguments, print_state, set_state
from .terminal import Progress, columns, print_failures, print_table, printable

SHOWN_IDS = 3


def add(commands: Any, shared: argparse.ArgumentParser) -> None:
    group = commands.add_parser("sessions", help="manage sessions")
    actions = group.add_subparsers(dest="action", required=True, metavar="ACTION")

    def action(name: str, run: Any, text: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = actions.add_parser(name, parents=[shared], help=text)
        parser.add_argument("--model", default="", help="optional while exactly one model is served")
        parser.set_defaults(run=run)
        return parser

    listing = action("list", _list, "list sessions with their steps and ages")
    listing.add_argument("--prefix", default="", help="only ids that start with this")
    listing.add_argument("--json", action="store_true", help="print one JSON object per line")
    show = action("show", _show, "show one session")
    show.add_argument("session", help="its id")
    show.add_argument("--json", action="store_true", help="print a JSON object")
    state = action("state", print_state, "print a session's state as JSON")
    state.add_argument("session", help="its id")
    add_arguments(action("set-state", set_state, "start a new generation from a state, as `state` prints it"))
    reset = action("reset", _reset, "start a new generation at step 0")
    reset.add_argument("session", help="its id")
    fork = action("fork", _fork, "copy a session under another id")
    fork.add_argument("session", help="its id")
    fork.add_argument("target", help="the copy's id")
    fork.add_argument("--at", type=_position, help="a position as `show` prints it (default: the current one)")
    fork.add_argument(
        "--ttl",
        type=float,
        metavar="SECONDS",
        help="delete the copy after this much idle time; 0: never (default: the session's)",
    )
    delete = action("delete", _delete, "delete a session, or all whose ids start with a prefix")
    which = delete.add_mutually_exclusive_group(required=True)
    which.add_argument("session", nargs="?", help="its id")
    which.add_argument(
        "--prefix", help="delete all sessions whose ids start with this, after asking; '' means every session"
    )
    delete.add_argument("--yes", action="store_true", help="delete without asking")


def _list(client: Client, parsed: argparse.Namespace) -> None:
    found = client.sessions(parsed.prefix, model=parsed.model)
    first = next(found, None)  # asked for before the header is printed: an error has none
    if not parsed.json:
        print(columns("SESSION", "STEP", "IDLE", "TTL", "STATE", "VERSION"))
    for info in () if first is None else chain([first], found):
        if parsed.json:
            print(_as_json(info))
        elif info.damage:
            print(columns(info.session, "-", "-", "-", f"damaged: {info.damage}", "-"))
        else:
            state, version = "hot" if info.hot else "cold", info.fingerprint.hex()[:12]
            print(columns(info.session, info.position.step, f"{info.idle_seconds:.1f} s", _ttl(info), state, version))


def _show(client: Client, parsed: argparse.Namespace) -> None:
    info = client.session_info(parsed.session, model=parsed.model)
    if parsed.json:
        print(_as_json(info))
        return
    print_table(
        (
            ("session", info.session),
            ("step", info.position.step),
            ("position", info.position),
            ("fingerprint", info.fingerprint.hex()),
            ("checkpoint", f"step {info.checkpoint_step}"),
            ("age", f"{info.age_seconds:.3f} s"),
            ("idle", f"{info.idle_seconds:.3f} s"),
            ("ttl", _ttl(info)),
            ("hot", "yes" if info.hot else "no"),
        )
    )


def _reset(client: Client, parsed: argparse.Namespace) -> None:
    """Resets by generation, not through an open session.

    The session's model version may no longer be served, or its record may be damaged. A session whose generation cannot
    be read is deleted and created again.
    """
    generation = _generation(client, parsed)
    if generation:
        print(client.reset(parsed.session, generation, model=parsed.model))
    else:
        client.delete(parsed.session, generation, model=parsed.model)
        print(client.session(parsed.session, model=parsed.model).position)


def _fork(client: Client, parsed: argparse.Namespace) -> None:
    """Opens the session at its present position, so that it is not created."""
    info = client.session_info(parsed.session, model=parsed.model)
    session = client.session(parsed.session, model=parsed.model, expect=info.position)
    print(session.fork(parsed.target, position=parsed.at, ttl=parsed.ttl).position)


def _delete(client: Client, parsed: argparse.Namespace) -> None:
    if parsed.session is not None:
        client.delete(parsed.session, _generation(client, parsed), model=parsed.model)
        return
    found = list(client.sessions(parsed.prefix, model=parsed.model))
    if not found:
        print(f"no session id starts with {parsed.prefix!r}")
        return
    if not parsed.yes:
        _confirm(f"Delete {len(found)} sessions whose ids start with {parsed.prefix!r} ({_some_of(found)})? [y/N] ")
    progress = Progress("sessions")
    done = client.delete_many(found, model=parsed.model, on_progress=lambda deleted: progress.at(deleted.total))
    progress.end()
    print(f"deleted\t{done.deleted}\ngone\t{done.gone}\nfailed\t{done.failed}")
    print_failures(done.failures)
    if done.failed:
        raise ValueError(f"{done.failed} sessions were not deleted")


def _confirm(question: str) -> None:
    """Raises ValueError unless a person at a terminal agrees."""
    if not sys.stdin.isatty():
        raise ValueError("--yes is required: there is no terminal to ask on")
    print(printable(question), end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise ValueError("nothing was deleted")


def _some_of(infos: Sequence[SessionInfo]) -> str:
    shown = [info.session for info in infos[:SHOWN_IDS]]
    return ", ".join([*shown, "..."] if len(infos) > SHOWN_IDS else shown)


def _ttl(info: SessionInfo) -> str:
    return f"{info.ttl_seconds:g} s" if info.ttl_seconds else "none"


def _generation(client: Client, parsed: argparse.Namespace) -> bytes:
    """Returns the generation of the session's record; empty if the damage makes it unreadable."""
    try:
        return client.session_info(parsed.session, model=parsed.model).position.generation
    except RecordDamaged as error:
        return b"" if error.position is None else error.position.generation


def _position(text: str) -> Position:
    try:
        return Position.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{error}; `cellkeeper sessions show` prints positions") from None


def _as_json(info: SessionInfo) -> str:
    return json.dumps(
        {
            "session": info.session,
            "step": info.position.step,
            "position": str(info.position),
            "fingerprint": info.fingerprint.hex(),
            "checkpoint_step": info.checkpoint_step,
            "age_seconds": info.age_seconds,
            "idle_seconds": info.idle_seconds,
            "ttl_seconds": info.ttl_seconds,
            "hot": info.hot,
            "damage": info.damage,
        }
    )
