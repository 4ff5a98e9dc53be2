"""import_onnx: a graph (input, constants, states) -> (outputs, states) to a bundle."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from cellkeeper_service.engine.exactness import TRIAL_CALL_MS
from cellkeeper_service.engine.limited_session import LimitedSession
from cellkeeper_service.engine.ort import open_session
from cellkeeper_service.errors import StartError
from cellkeeper_service.model.bundle import MAX_GRAPH_BYTES
from cellkeeper_service.model.config import Features, GraphConfig, GraphOutput, GraphState, Missing, Tokens, config_json
from cellkeeper_service.model.feedback import Sources
from cellkeeper_service.model.missing import as_numbers
from cellkeeper_service.model.parsing import parse_config

from .files import file_of, read_bytes
from .landing import Imported, Report, check_target, land
from .lower import Lowered
from .onnx_declare import declare, probe
from .onnx_graph import Graph, read_graph
from .onnx_source import Declaration, OnnxSource
from .parity import MAX_BATCH, TOLERANCE
from .processing import checked
from .proof import SEQUENCES, STEPS, Source
from .refusal import ImportRefused
from .stack import Array


def import_onnx(
    model: Path | str | bytes,
    folder: Path | str,
    *,
    name: str | None = None,
    input: str | None = None,
    vocabulary: int = 0,
    layout: str | None = None,
    states: Mapping[str, str] | None = None,
    batch_axes: Mapping[str, int] | None = None,
    outputs: Sequence[str] | None = None,
    constants: Mapping[str, Array] | None = None,
    initial: Mapping[str, Array] | None = None,
    missing: Missing | None = None,
    feedback: Sources | None = None,
    feature_names: object = None,
    tolerance: float = TOLERANCE,
    max_batch: int = MAX_BATCH,
    trial_call_ms: int = TRIAL_CALL_MS,
    report: Report = print,
) -> Imported:
    """Writes the bundle `folder`, which must not exist yet, and compares it with onnxruntime on random sequences.

    model: a file, or its bytes. Everything else may be left out where the graph's names and shapes are certain:
    input: the name of the input. vocabulary: of token ids. layout: "step" [B, ...], "time_first" [T, B, ...] or
    "batch_first" [B, T, ...], of the input and the outputs. states: input names to output names. batch_axes: of
    states, by input name. outputs: names; the first is served as "prediction", which clients get where they ask for
    nothing else, unless another one has that name. constants: values of further inputs, in their shapes. initial:
    states of a new session by input name, without the batch axis; zeros otherwise. missing: as in config.json.
    feedback: as in config.json, for forecasts; for each feature the index of the prediction it becomes, or "known".
    feature_names: a list, or a DataFrame with such columns.
    name: the model's; the folder's otherwise. tolerance: the largest difference, relative to the largest output.
    trial_call_ms: the longest that one call of the graph may take.

    A time axis whose length is fixed to 1 is taken away: the bundle's graph takes [B, ...].
    Raises ImportRefused: one line with the place. Nothing is left behind.
    """
    folder = Path(folder)
    name = check_target(folder, name)
    if isinstance(model, bytes):
        place, data = "model", model
    else:
        path = file_of(model, "an .onnx file, or its bytes")
        place, data = str(path), read_bytes(path, MAX_GRAPH_BYTES)
    processing = checked(None, missing, (), feature_names)
    graph = read_graph(data, place)
    declaration = declare(
        graph,
        place,
        input_name=input,
        layout=layout,
        states=states,
        batch_axes=batch_axes or {},
        outputs=outputs,
        constants=constants or {},
    )
    imported = import_graph(
        data,
        graph,
        declaration,
        folder,
        name=name,
        place=place,
        vocabulary=vocabulary,
        initial=initial or {},
        missing=processing.missing,
        feedback=feedback,
        feature_names=processing.feature_names,
        source=OnnxSource,
        tolerance=tolerance,
        max_batch=max_batch,
        trial_call_ms=trial_call_ms,
    )
    report(str(imported))
    return imported


def import_graph(
    data: bytes,
    graph: Graph,
    declaration: Declaration,
    folder: Path,
    *,
    name: str,
    place: str,
    vocabulary: int,
    initial: Mapping[str, Array],
    missing: Missing,
    feedback: Sources | None,
    feature_names: tuple[str, ...] = (),
    source: Callable[[Any, Declaration, Mapping[str, Array]], Source],
    tolerance: float,
    max_batch: int,
    trial_call_ms: int = TRIAL_CALL_MS,
) -> Imported:
    """A graph that was declared. source: made of an onnxruntime session, the declaration and initial states."""
    if trial_call_ms < 1:
        raise ImportRefused("trial_call_ms", f"got {trial_call_ms}, expected 1 or more")
    first = _initial(declaration, initial, place)
    if (declaration.dtype != "float32") != (vocabulary > 0):
        raise ImportRefused(
            f"{place}: input {declaration.input_name}",
            f"got {declaration.dtype} and a vocabulary of {vocabulary}; pass one for token ids, and only for them",
        )
    try:
        session = open_session(data, 1, place)
    except StartError as error:
        raise ImportRefused(place, str(error).removeprefix(f"{place}: ")) from error
    draw = np.random.default_rng(0)
    lengths = (STEPS, *declaration.input_shape)
    sequences = [
        draw.integers(0, vocabulary, lengths, dtype=np.int32)
        if vocabulary
        else draw.standard_normal(lengths).astype(np.float32)
        for _ in range(SEQUENCES)
    ]
    with closing(LimitedSession(session, trial_call_ms, place)) as limited:
        shapes = probe(limited, declaration, place)
        lowered = _lowered(graph, declaration, shapes, name, vocabulary, missing, first, place)
        original = source(limited, declaration, first)
        return land(
            folder,
            lowered,
            original,
            sequences,
            place,
            tolerance,
            max_batch,
            feedback,
            trial_call_ms=trial_call_ms,
            feature_names=feature_names,
        )


def _initial(declaration: Declaration, initial: Mapping[str, Array], place: str) -> dict[str, Array]:
    first = {}
    for name, value in initial.items():
        shape = declaration.state_shapes.get(name)
        array = as_numbers(value)
        if shape is None or array.shape != shape or array.dtype.kind != "f":
            raise ImportRefused(
                f"{place}: initial state {name}",
                f"got {array.dtype} {list(array.shape)}, expected floats for one of "
                f"{ {state: list(dims) for state, dims in declaration.state_shapes.items()} }",
            )
        first[name] = array.astype(np.float32)
    return first


def _lowered(
    graph: Graph,
    declaration: Declaration,
    shapes: Mapping[str, tuple[int, ...]],
    name: str,
    vocabulary: int,
    missing: Missing,
    initial: Mapping[str, Array],
    place: str,
) -> Lowered:
    """Constants that are not float32 become part of the graph: a bundle holds float32 tensors only."""
    tensors = {f"initial.{state}": value for state, value in initial.items()}
    constants = []
    for constant, value in declaration.constants.items():
        if value.dtype == np.float32:
            constants.append(constant)
            tensors[f"constant.{constant}"] = value
        else:
            graph.bake(constant, value)
    input_name, renamed = declaration.input_name, dict(zip(declaration.outputs, declaration.outputs, strict=True))
    if declaration.single and declaration.time_axis is not None:
        input_name, renamed = graph.without_time(input_name, list(declaration.outputs), declaration.time_axis)
    timed = None if declaration.single else declaration.time_axis
    config = GraphConfig(
        name=name,
        graph="model.onnx",
        layout="step" if timed is None else ("time_first", "batch_first")[timed],
        input_name=input_name,
        input=Tokens(vocabulary, 0) if vocabulary else Features(declaration.input_shape[0], None, missing),
        states=tuple(
            GraphState(before, before, after, declaration.state_shapes[before], declaration.state_axes[before])
            for before, after in declaration.states.items()
        ),
        outputs=tuple(
            GraphOutput(name, renamed[output], shapes[output]) for output, name in declaration.served.items()
        ),
        constants=tuple(constants),
    )
    try:
        parse_config(config_json(config), "declaration")
    except StartError as error:
        raise ImportRefused(place, str(error)) from error
    return Lowered(config, tensors, graph.bytes())
