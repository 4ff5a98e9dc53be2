"""`cellkeeper-server import torch|keras|onnx SRC DST`: the functions of this package as a command."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from cellkeeper_service.command_line import Parser
from cellkeeper_service.engine.exactness import TRIAL_CALL_MS

from .files import read_arrays, read_json
from .keras.model import import_keras
from .onnx.model import import_onnx
from .parity import TOLERANCE
from .processing import Processing, parse_processing
from .refusal import ImportRefused
from .stack import Array
from .torch.model import import_torch

T = TypeVar("T")


def run_import(words: Sequence[str]) -> None:
    """Runs an import from the command line. Raises ImportRefused; exits on --help and usage errors."""
    given = import_parser().parse_args(words)
    processing = _processing(given.processing, normalized=given.kind != "onnx")
    common: dict[str, Any] = {
        "name": given.name,
        "tolerance": given.tolerance,
        "missing": processing.missing,
        "feedback": processing.feedback,
        "feature_names": list(processing.feature_names) or None,
    }
    around: dict[str, Any] = {"normalization": processing.normalization, "output": processing.output}
    if given.kind == "torch":
        import_torch(Path(given.source), given.target, layers=given.layers, **common, **around)
    elif given.kind == "keras":
        import_keras(given.source, given.target, trace=given.trace, **common, **around)
    else:
        numbers = _pairs("--constant", given.constant)
        constants = _arrays(given.constants) | {name: np.array(_number(name, text)) for name, text in numbers.items()}
        import_onnx(
            given.source,
            given.target,
            **common,
            input=given.input.split(",") if given.input and "," in given.input else given.input,
            input_shape=_shapes(given.input_shape),
            vocabulary=_vocabularies(given.vocabulary),
            layout=given.layout,
            batch=given.batch,
            states=_pairs("--states", given.states) or None,
            batch_axes=_numbers("--batch-axes", given.batch_axes),
            outputs=given.outputs.split(",") if given.outputs else None,
            constants=constants,
            initial=_arrays(given.initial),
            trial_call_ms=given.trial_call_ms,
        )


def import_parser() -> argparse.ArgumentParser:
    """Returns the argument parser of `cellkeeper-server import`."""
    parser = Parser(
        prog="cellkeeper-server import",
        description="Converts a trained model to a bundle, and compares both on random sequences.",
        allow_abbrev=False,
    )
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="torch|keras|onnx")
    texts = {
        "torch": "weights: a safetensors file, or a state_dict of torch.save",
        "keras": "a .keras or .h5 file",
        "onnx": "a graph (input, constants, states) -> (outputs, states)",
    }
    for kind, text in texts.items():
        one = kinds.add_parser(kind, help=text, description=text, allow_abbrev=False)
        one.add_argument("source", metavar="SRC", help=text)
        one.add_argument("target", metavar="DST", help="the bundle's folder, which must not exist yet")
        one.add_argument("--name", help="the model's name (default: the folder's)")
        one.add_argument(
            "--tolerance", type=float, default=TOLERANCE, help="relative difference allowed (default: %(default)s)"
        )
        one.add_argument(
            "--processing",
            metavar="FILE",
            help="JSON with normalization, missing, output, feedback and feature_names, as in config.json",
        )
        if kind == "torch":
            one.add_argument(
                "--layers", metavar="WORDS", help="in order, such as 'embedding=emb lstm=rnn dense=fc relu dense=out'"
            )
        if kind == "keras":
            one.add_argument(
                "--trace",
                action="store_true",
                help="for a model with layers that the import cannot read: load the file with Keras (on torch), which "
                "runs the classes that the file names, and export one time step",
            )
        if kind == "onnx":
            one.add_argument("--input", metavar="NAME,...", help="the input that is a time step, or its several inputs")
            one.add_argument(
                "--input-shape",
                metavar="N,...",
                help="shape of one time step, such as 576 or 9,41; for several inputs NAME=9x41,NAME=576",
            )
            one.add_argument("--vocabulary", metavar="N", help="token ids are below N; for several: NAME=N,NAME=N")
            one.add_argument(
                "--layout",
                choices=("step", "time_first", "batch_first"),
                help="axes of the input and the outputs: [B, ...], [T, B, ...] or [B, T, ...]",
            )
            one.add_argument("--batch", choices=("free", "one"), help="one: each call of the graph is for one session")
            one.add_argument("--states", default="", metavar="IN=OUT,...", help="each state's input and output")
            one.add_argument("--batch-axes", default="", metavar="IN=AXIS,...", help="batch axes of states")
            one.add_argument("--outputs", metavar="NAME,...", help="the outputs to serve, the default one first")
            one.add_argument("--constants", metavar="FILE", help="safetensors or npz: values of further inputs")
            one.add_argument("--constant", default="", metavar="NAME=NUMBER,...", help="further inputs of one number")
            one.add_argument(
                "--trial-call-ms",
                type=int,
                default=TRIAL_CALL_MS,
                metavar="MS",
                help="time limit for each trial call of the graph (default: %(default)s)",
            )
            one.add_argument("--initial", metavar="FILE", help="safetensors or npz: states of a new session")
    return parser


def _pairs(flag: str, text: str) -> dict[str, str]:
    pairs = {}
    for word in text.split(",") if text else ():
        name, equals, value = word.partition("=")
        if not name or not equals or not value or name in pairs:
            raise ImportRefused(flag, f"got {word!r}, expected NAME=VALUE, each name once")
        pairs[name] = value
    return pairs


def _arrays(path: str | None) -> dict[str, Array]:
    return {} if path is None else read_arrays(Path(path))


def _shapes(text: str | None) -> tuple[int, ...] | dict[str, tuple[int, ...]] | None:
    flag = "--input-shape"
    if text is None:
        return None
    if "=" not in text:
        return tuple(_converted(int, flag, "size", word) for word in text.split(","))
    pairs = _pairs(flag, text).items()
    return {name: tuple(_converted(int, flag, name, word) for word in sizes.split("x")) for name, sizes in pairs}


def _numbers(flag: str, text: str) -> dict[str, int]:
    return {name: _converted(int, flag, name, number) for name, number in _pairs(flag, text).items()}


def _vocabularies(text: str | None) -> int | dict[str, int]:
    flag = "--vocabulary"
    if text is None or "=" not in text:
        return _converted(int, flag, "size", text or "0")
    return _numbers(flag, text)


def _number(name: str, text: str) -> int | float | bool:
    if text in ("true", "false"):
        return text == "true"
    try:
        return int(text)
    except ValueError:
        return _converted(float, "--constant", name, text)


def _converted(kind: Callable[[str], T], flag: str, name: str, text: str) -> T:
    try:
        return kind(text)
    except ValueError as error:
        raise ImportRefused(flag, f"{name}: got {text!r}, expected a number") from error


def _processing(path: str | None, normalized: bool = True) -> Processing:
    if path is None:
        return Processing()
    processing = parse_processing(read_json(Path(path)), path)
    if not normalized and (processing.normalization is not None or processing.output):
        raise ImportRefused(
            path,
            "normalization, output: expected in the graph itself; missing, feedback and feature_names can be given",
        )
    return processing
