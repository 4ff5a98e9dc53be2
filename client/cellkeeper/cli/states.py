"""`cellkeeper sessions state` and `cellkeeper sessions set-state`: a session's state as JSON, every bit of it."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from .._session.arguments import step_number
from .._session.inputs import convert_state
from ..client import Client
from ..types import Array, Model

SAFE_INTEGER = 2**53
"""Up to this value, all JSON readers agree on integers; larger ones are strings of digits, as in the JSON API."""

FORMAT = "one JSON object, as `cellkeeper sessions state` prints it"


def add_arguments(setting: argparse.ArgumentParser) -> None:
    """Adds the arguments of set-state."""
    setting.add_argument("session", help="its id; the session is created if it does not exist")
    setting.add_argument("file", nargs="?", default="-", metavar="FILE", help=f"{FORMAT}; - is stdin (the default)")
    setting.add_argument(
        "--step", type=int, metavar="N", help="the new generation starts at this step (default: that of the file)"
    )
    setting.add_argument(
        "--other-version", action="store_true", help="set the state even if it is of another version of the model"
    )


def print_state(client: Client, parsed: argparse.Namespace) -> None:
    """Prints the state. The session is not opened: that needs the right `step`."""
    reply = client.session_state(parsed.session, model=parsed.model)
    info = client.session_info(parsed.session, model=parsed.model)
    if reply.position.generation != info.position.generation:
        raise ValueError("another generation of the session has started meanwhile; run the command again")
    model = client.model(parsed.model, info.fingerprint)
    made = {
        "session": parsed.session,
        "model": model.name,
        "fingerprint": model.fingerprint.hex(),
        "step": reply.position.step,
        "position": str(reply.position),
        "states": {name: _written(values) for name, values in reply.state.items()},
    }
    print(json.dumps(made))


def set_state(client: Client, parsed: argparse.Namespace) -> None:
    given = _read(parsed.file)
    model = client.model(parsed.model)
    step = given.get("step") if parsed.step is None else parsed.step
    if type(step) is not int:
        raise ValueError(f"step: got {json.dumps(step)}, expected the number of time steps; --step gives it")
    fingerprint = given.get("fingerprint")
    if fingerprint != model.fingerprint.hex() and not parsed.other_version:
        raise ValueError(
            f"fingerprint: got {json.dumps(fingerprint)}, expected {model.fingerprint.hex()}: another version of the "
            f"model {model.name!r} has computed this state; --other-version sets it even so"
        )
    state = _read_states(given.get("states"), model)
    convert_state(model, state, "state")  # checked before the session is opened, which may create it
    step_number(step, "step")
    session = client.session(parsed.session, model=parsed.model)
    print(session.set_state(state, step=step))


def _written(values: Array) -> dict[str, Any]:
    data = values.tolist()
    if values.dtype.kind == "i" and values.size and max(abs(int(values.min())), abs(int(values.max()))) > SAFE_INTEGER:
        data = _each(data, lambda number: number if abs(number) <= SAFE_INTEGER else str(number))
    return {"dtype": values.dtype.name, "shape": list(values.shape), "data": data}


def _read(file: str) -> dict[str, Any]:
    """Returns the object in the file. Raises OSError, and ValueError for anything else."""
    name = "stdin" if file == "-" else file
    try:
        if file == "-":
            given = json.load(sys.stdin)
        else:
            with open(file, encoding="utf-8") as text:
                given = json.load(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name}: expected {FORMAT}: {error}") from None
    if not isinstance(given, dict):
        raise ValueError(f"{name}: got a {type(given).__name__}, expected {FORMAT}")
    return given


def _read_states(given: Any, model: Model) -> Mapping[str, Any]:
    """Returns the tensors by name. The client checks later whether they are the model's."""
    if not isinstance(given, dict) or not all(isinstance(one, dict) and "data" in one for one in given.values()):
        raise ValueError('states: expected tensors by name, each an object with "data"')
    integers = {spec.name for spec in model.states if np.dtype(spec.dtype).kind == "i"}
    return {name: _each(one["data"], _integer) if name in integers else one["data"] for name, one in given.items()}


def _each(data: Any, convert: Any) -> Any:
    """Converts each number of nested lists, or one number."""
    return [_each(item, convert) for item in data] if isinstance(data, list) else convert(data)


def _integer(number: Any) -> Any:
    try:
        return int(number) if isinstance(number, str) else number
    except ValueError:
        raise ValueError(f"states: got {json.dumps(number)[:40]}, expected a whole number or its digits") from None
