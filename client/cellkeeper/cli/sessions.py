"""`cellkeeper sessions list | show | reset | fork | delete`."""

from __future__ import annotations

import argparse
import json
from typing import Any

from ..client import Client, Session
from ..errors import RecordDamaged
from ..position import Position
from ..types import SessionInfo


def add(commands: Any, shared: argparse.ArgumentParser) -> None:
    group = commands.add_parser("sessions", help="look after sessions")
    actions = group.add_subparsers(dest="action", required=True, metavar="ACTION")

    def action(name: str, run: Any, text: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = actions.add_parser(name, parents=[shared], help=text)
        parser.add_argument("--model", default="", help="may be left out while exactly one is served")
        parser.set_defaults(run=run)
        return parser

    listing = action("list", _list, "ids, steps and ages")
    listing.add_argument("--prefix", default="", help="only ids that start with this")
    listing.add_argument("--json", action="store_true", help="one JSON object a line")
    show = action("show", _show, "one session")
    show.add_argument("session")
    show.add_argument("--json", action="store_true", help="as a JSON object")
    reset = action("reset", _reset, "start another generation at step 0")
    reset.add_argument("session")
    fork = action("fork", _fork, "copy a session under another id")
    fork.add_argument("session")
    fork.add_argument("target")
    fork.add_argument("--at", type=_position, help="a position as `show` prints it; default: where it stands")
    delete = action("delete", _delete, "end a session")
    delete.add_argument("session")


def _list(client: Client, parsed: argparse.Namespace) -> None:
    for info in client.sessions(parsed.prefix, model=parsed.model):
        if parsed.json:
            print(_as_json(info))
        elif info.damage:
            print(f"{info.session}\tdamaged: {info.damage}")
        else:
            idle = f"idle {info.idle_ms / 1000:.1f} s"
            print(f"{info.session}\tstep {info.position.step}\t{idle}\t{'hot' if info.hot else 'cold'}")


def _show(client: Client, parsed: argparse.Namespace) -> None:
    info = client.session_info(parsed.session, model=parsed.model)
    if parsed.json:
        print(_as_json(info))
        return
    rows = (
        ("session", info.session),
        ("step", info.position.step),
        ("position", info.position),
        ("fingerprint", info.fingerprint.hex()),
        ("checkpoint", f"step {info.checkpoint_step}"),
        ("age", f"{info.age_ms / 1000:.3f} s"),
        ("idle", f"{info.idle_ms / 1000:.3f} s"),
        ("ttl", f"{info.ttl_ms / 1000:g} s" if info.ttl_ms else "none"),
        ("hot", "yes" if info.hot else "no"),
    )
    for name, value in rows:
        print(f"{name:<15} {value}")


def _reset(client: Client, parsed: argparse.Namespace) -> None:
    """Not through an open session: its model version may not be served any more, or its record may be damaged. One
    whose generation cannot be read any more is deleted and created again."""
    generation = _generation(client, parsed)
    if generation:
        print(client.reset(parsed.session, generation, model=parsed.model))
    else:
        client.delete(parsed.session, generation, model=parsed.model)
        print(client.session(parsed.session, model=parsed.model).position)


def _fork(client: Client, parsed: argparse.Namespace) -> None:
    print(_existing(client, parsed).fork(parsed.target, position=parsed.at).position)


def _delete(client: Client, parsed: argparse.Namespace) -> None:
    client.delete(parsed.session, _generation(client, parsed), model=parsed.model)


def _generation(client: Client, parsed: argparse.Namespace) -> bytes:
    """Of a session that stands there; empty where its record is damaged so that it cannot be read."""
    try:
        return client.session_info(parsed.session, model=parsed.model).position.generation
    except RecordDamaged as error:
        return b"" if error.position is None else error.position.generation


def _existing(client: Client, parsed: argparse.Namespace) -> Session:
    """Opens it where it stands, and never makes one."""
    info = client.session_info(parsed.session, model=parsed.model)
    return client.session(parsed.session, model=parsed.model, expect=info.position)


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
            "age_ms": info.age_ms,
            "idle_ms": info.idle_ms,
            "ttl_ms": info.ttl_ms,
            "hot": info.hot,
            "damage": info.damage,
        }
    )
