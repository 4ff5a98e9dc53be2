"""import_onnx: from a graph (input, constants, states) -> (outputs, states) to a bundle."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from cellkeeper_service.engine.exactness import MOST_TRIAL_CALL_MS, TRIAL_CALL_MS
from cellkeeper_service.engine.limited_session import LimitedSession
from cellkeeper_service.engine.ort import open_session
from cellkeeper_service.errors import StartError
from cellkeeper_service.model.bundle import MAX_GRAPH_BYTES
from cellkeeper_service.model.config import Features, GraphConfig, GraphOutput, Missing, Tokens, config_json
from cellkeeper_service.model.feedback import Sources
from cellkeeper_service.model.missing import as_numbers
from cellkeeper_service.model.named_inputs import NamedInput, NamedInputs
from cellkeeper_service.model.parsing import parse_config

from ..files import TRITON_SETTINGS, file_of, read_bytes
from ..imported import Imported, Report, Target, check_target, write_imported
from ..lower import Lowered
from ..parity import MAX_BATCH, TOLERANCE
from ..processing import checked
from ..proof import Source
from ..refusal import ImportRefused
from ..stack import Array
from .axes import LAYOUT_OF
from .constants import check_start
from .declare import declare, probe
from .graph import Graph, read_graph
from .inputs import draw_inputs
from .source import Declaration, OnnxSource


def import_onnx(
    model: Path | str | bytes,
    folder: Path | str,
    *,
    name: str | None = None,
    input: str | Sequence[str] | None = None,
    input_shape: Sequence[int] | Mapping[str, Sequence[int]] | None = None,
    vocabulary: int | Mapping[str, int] = 0,
    layout: str | None = None,
    batch: str | None = None,
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

    model: a file, or its bytes. All other arguments may be omitted if the graph's names and shapes are unambiguous.
    input: the name of the input, or the names of a time step's several inputs. In that case input_shape and vocabulary
    are by name, and integer inputs need a vocabulary.
    input_shape: of one time step of one session, if that is more than the last axis, or free in the graph.
    vocabulary: token ids are below it.
    layout: of the input and the outputs: "step" [B, ...], "time_first" [T, B, ...] or "batch_first" [B, T, ...].
    batch: "free", any number of sessions a call, by default if the graph permits it; "one", one session a call. A graph
    with a condition that the sessions of a call decide together is refused unless one of them is passed.
    states: from input names to output names. batch_axes: of states, by input name.
    outputs: names. The first is served as "prediction", which clients get if they ask for nothing else, unless another
    output has that name.
    constants: values of further inputs, in their shapes; a number for [1], [1, 1] ..., and for [B], [B, 1] ..., which
    every session then gets.
    initial: states of a new session by input name, without the batch axis (with one session a call: as the graph takes
    them); zeros by default.
    missing: as in config.json.
    feedback: as in config.json, for forecasts: for each feature, the index of the prediction it becomes, or "known".
    feature_names: a list, or a DataFrame with such columns.
    name: the model's; by default the folder's.
    tolerance: the largest permitted difference, relative to the largest output.
    trial_call_ms: the longest that one call of the graph may take.

    A time axis whose length is fixed to 1 is removed: the bundle's graph takes [B, ...]. Outputs may lack it.
    Raises ImportRefused with a one-line message that says where; nothing is left behind then.
    """
    name = check_target(folder, name)
    if isinstance(model, bytes):
        place, data, beside = "model", model, None
    else:
        path = file_of(model, "an .onnx file, or its bytes")
        place, data, beside = str(path), read_bytes(path, MAX_GRAPH_BYTES), path.parent
    processing = checked(None, missing, (), feature_names)
    graph = read_graph(data, place, beside)
    if graph.external:
        data = graph.bytes()
    declaration = declare(
        graph,
        place,
        input_name=input,
        layout=layout,
        states=states,
        batch_axes=batch_axes,
        outputs=outputs,
        constants=constants,
        input_shape=input_shape,
        vocabulary=vocabulary,
        batch=batch,
    )
    target = Target(
        Path(folder), name, processing, feedback, tolerance, max_batch, report, trial_call_ms, batch == "free"
    )
    settings = None if beside is None else beside.parent / TRITON_SETTINGS
    if settings is not None and settings.is_file() and not initial:
        report(
            f"{settings} is not read: initial states and the values of control inputs in it are to be passed as "
            "--initial and --constant, see docs/triton.md"
        )
    return import_graph(data, graph, declaration, target, place=place, initial=initial or {}, source=OnnxSource)


def import_graph(
    data: bytes,
    graph: Graph,
    declaration: Declaration,
    target: Target,
    *,
    place: str,
    initial: Mapping[str, Array],
    source: Callable[[Any, Declaration, Mapping[str, Array]], Source],
) -> Imported:
    """Writes the bundle of a declared graph.

    source: called with an onnxruntime session, the declaration and the initial states.
    """
    if not 1 <= target.trial_call_ms <= MOST_TRIAL_CALL_MS:
        raise ImportRefused("trial_call_ms", f"got {target.trial_call_ms}, expected 1 to {MOST_TRIAL_CALL_MS}")
    first = _initial(declaration, initial, place)
    (one, *others) = declaration.inputs
    if not others and (np.dtype(one.dtype).kind != "f") != (one.vocabulary > 0):
        raise ImportRefused(
            f"{place}: input {one.name}",
            f"got {one.dtype} and a vocabulary of {one.vocabulary}; pass one for token ids, and only for them",
        )
    try:
        session = open_session(data, 1, place)
    except StartError as error:
        raise ImportRefused(place, str(error).removeprefix(f"{place}: ")) from error
    drawn = draw_inputs(graph, declaration)
    with closing(LimitedSession(session, target.trial_call_ms, place)) as limited:
        declaration, shapes = probe(limited, declaration, place)
        check_start(limited, declaration, first, drawn.sequences[0], place)
        lowered = _lowered(graph, declaration, shapes, target, first, place)
        return write_imported(target, lowered, source(limited, declaration, first), drawn, place)


def _initial(declaration: Declaration, initial: Mapping[str, Array], place: str) -> dict[str, Array]:
    first = {}
    states = {state.input: state for state in declaration.states}
    for name, value in initial.items():
        array, state = as_numbers(value), states.get(name)
        kinds = "f" if state is None or np.dtype(state.dtype).kind == "f" else "iu"
        if state is None or array.shape != state.shape or array.dtype.kind not in kinds:
            raise ImportRefused(
                f"{place}: initial state {name}",
                f"got {array.dtype} {list(array.shape)}, expected one of "
                f"{ {one.input: f'{one.dtype} {list(one.shape)}' for one in declaration.states} }",
            )
        first[name] = array.astype(state.dtype)
        if kinds != "f" and not np.array_equal(first[name], array):
            raise ImportRefused(f"{place}: initial state {name}", f"got {array!r}, expected values of {state.dtype}")
    return first


def _lowered(
    graph: Graph,
    declaration: Declaration,
    shapes: Mapping[str, tuple[int, ...]],
    target: Target,
    initial: Mapping[str, Array],
    place: str,
) -> Lowered:
    """Returns the bundle's contents.

    Puts constants other than float32 into the graph, because bundles hold float32 only, and those of one number for
    each session.
    """
    free = declaration.batch == "free"
    taken = {spec.name: spec.name for spec in declaration.inputs}
    tensors = {f"initial.{state}": value for state, value in initial.items()}
    constants = []
    for constant, value in declaration.constants.items():
        if constant in declaration.repeated and free:
            like = declaration.inputs[0].name, declaration.batch_axis
            graph.bake_repeated(constant, value, declaration.repeated[constant], like)
        elif value.dtype == np.float32:
            constants.append(constant)
            tensors[f"constant.{constant}"] = value
        else:
            graph.bake(constant, value)
    of_states = declaration.state_outputs
    renamed = {output: output for output in declaration.outputs if output not in of_states}
    if declaration.single and declaration.time_axis is not None:
        timed = [name for name in renamed if name not in declaration.untimed]
        new_names = graph.without_time(list(taken), timed, declaration.time_axis)
        taken, renamed = ({old: new_names.get(old, old) for old in names} for names in (taken, renamed))
    ranks = {state.output: len(state.shape) + free for state in declaration.states}
    renamed |= {name: graph.with_batch_first(name, axis, ranks[name]) for name, axis in of_states.items()}
    config = GraphConfig(
        name=target.name,
        graph="model.onnx",
        layout=LAYOUT_OF[None if declaration.single else declaration.time_axis],
        input_name="" if len(taken) > 1 else taken[declaration.inputs[0].name],
        input=_input(declaration, taken, target.processing.missing, place),
        states=declaration.states,
        outputs=tuple(
            GraphOutput(name, renamed[output], shapes[output]) for output, name in declaration.served.items()
        ),
        constants=tuple(constants),
        batch=declaration.batch,
    )
    try:
        parse_config(config_json(config), "declaration")
    except StartError as error:
        raise ImportRefused(place, str(error)) from error
    return Lowered(config, tensors, graph.bytes())


def _input(
    declaration: Declaration, renamed: Mapping[str, str], missing: Missing, place: str
) -> Features | Tokens | NamedInputs:
    """Returns the config of the input. renamed: the names of the inputs in the bundle's graph."""
    (one, *others) = declaration.inputs
    if (others or one.vocabulary) and missing != Missing():
        why = "several inputs do not take missing values" if others else "token ids are never missing"
        raise ImportRefused(f"{place}: missing", f"got {missing.policy}, expected reject: {why}")
    if others:
        return NamedInputs(
            tuple(
                NamedInput(spec.name, renamed[spec.name], spec.shape, spec.dtype, spec.vocabulary)
                for spec in declaration.inputs
            )
        )
    if one.vocabulary:
        return Tokens(one.vocabulary, 0)
    return Features(prod(one.shape), None, missing, one.shape if len(one.shape) > 1 else ())
