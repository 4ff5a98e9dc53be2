"""`cellkeeper model list` and `cellkeeper model show`."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import Any

from ..client import Client
from ..types import Model, TensorSpec
from .terminal import columns, print_table


def add(commands: Any, shared: argparse.ArgumentParser) -> None:
    group = commands.add_parser("model", help="show what the server serves")
    actions = group.add_subparsers(dest="action", required=True, metavar="ACTION")
    listing = actions.add_parser("list", parents=[shared], help="list every served version")
    listing.add_argument("--json", action="store_true", help="print one JSON object per line")
    listing.set_defaults(run=_list)
    show = actions.add_parser("show", parents=[shared], help="show one model in full")
    show.add_argument("model", nargs="?", default="", help="optional while exactly one model is served")
    show.add_argument("--json", action="store_true", help="print a JSON object")
    show.set_defaults(run=_show)


def _list(client: Client, parsed: argparse.Namespace) -> None:
    for model in client.models():
        if parsed.json:
            print(_as_json(model))
        else:
            exact = "exact" if model.exact else f"within {model.tolerance:g}"
            print(columns(model.name, model.fingerprint.hex()[:12], _inputs(model), exact, model.numerics))


def _show(client: Client, parsed: argparse.Namespace) -> None:
    model = client.model(parsed.model)
    if parsed.json:
        print(_as_json(model))
        return
    rows: list[tuple[str, object]] = [
        ("name", model.name),
        ("fingerprint", model.fingerprint.hex()),
        ("engine", f"{model.engine} on {model.device}"),
        ("numerics", model.numerics),
        ("exact", "yes" if model.exact else f"no, within {model.tolerance:g}"),
    ]
    if model.exact and model.tolerance:
        rows.append(("tolerance", f"{model.tolerance:g} from float64"))
    rows += [("input", _spec(spec)) for spec in model.inputs or (model.input,)]
    if model.vocabulary:
        rows.append(("vocabulary", model.vocabulary))
    rows += [("vocabulary", f"{spec.vocabulary} of {spec.name}") for spec in model.inputs if spec.vocabulary]
    if model.feature_names:
        rows.append(("features", ", ".join(model.feature_names)))
    rows.append(("missing values", "accepted" if model.missing_values else "refused"))
    rows += [("output", _spec(spec)) for spec in model.outputs]
    rows += [("state", _spec(spec)) for spec in model.states]
    rows.append(("chunk", f"at most {model.max_chunk_steps} steps"))
    print_table(rows)


def _inputs(model: Model) -> str:
    return ", ".join(_spec(spec) for spec in model.inputs or (model.input,))


def _spec(spec: TensorSpec) -> str:
    return f"{spec.name} {spec.dtype} [{', '.join(map(str, spec.shape))}]"


def _as_json(model: Model) -> str:
    values = asdict(model)
    values["fingerprint"] = model.fingerprint.hex()
    return json.dumps(values)
