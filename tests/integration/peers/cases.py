"""The requests to both servers, and whether their answers have to be the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from cellkeeper_proto.kserve import inference_pb2 as pb

from tests.integration.kserve.calls import END, START, Array, Value, request, set_parameter

MODEL, FEATURES = "2x128", 32
ID, TEXT = "an int64", "the same number as a string"
"""Placeholders for ids that no other case has."""

Edit = Callable[[pb.ModelInferRequest], Any]


@dataclass(frozen=True)
class Ask:
    """One ModelInfer.

    sequence: ID, TEXT, or the id itself; None: the parameter is not sent. edit: changes the request. timeout_s: how
    long the client waits; 0: as long as the others. says: the text in the table.
    """

    says: str
    sequence: int | str | None = ID
    parameters: dict[str, Value] = field(default_factory=dict)
    steps: int = 1
    edit: Edit | None = None
    timeout_s: float = 0.0


@dataclass(frozen=True)
class Case:
    """Requests sent in turn, whose answers are all shown.

    differs: why the answers may differ; empty: they must be the same. stream: over one ModelStreamInfer instead of
    unary calls.
    """

    group: str
    asks: Sequence[Ask]
    differs: str = ""
    stream: bool = False


def message(ask: Ask, sequence: int | str | None) -> pb.ModelInferRequest:
    made = request(MODEL, ones(ask.steps), sequence, ask.parameters, outputs=["Y"])
    made.inputs[0].name = "X"
    if ask.edit is not None:
        ask.edit(made)
    return made


def ones(steps: int) -> Array:
    """Returns the only kind of input, so that an output reveals at which step of a sequence it was computed."""
    return np.ones((1, steps, FEATURES), np.float32)


def shape(*sizes: int) -> Edit:
    def edit(made: pb.ModelInferRequest) -> None:
        made.inputs[0].shape[:] = sizes

    return edit


def raw(*parts: bytes) -> Edit:
    def edit(made: pb.ModelInferRequest) -> None:
        made.raw_input_contents[:] = parts

    return edit


def as_type(name: str, dtype: str) -> Edit:
    def edit(made: pb.ModelInferRequest) -> None:
        made.inputs[0].datatype = name
        made.raw_input_contents[:] = [ones(1).astype(dtype).tobytes()]

    return edit


def contents(name: str, *values: Any) -> Edit:
    def edit(made: pb.ModelInferRequest) -> None:
        del made.raw_input_contents[:]
        getattr(made.inputs[0].contents, name).extend(values)

    return edit


def outputs(*names: str) -> Edit:
    def edit(made: pb.ModelInferRequest) -> None:
        del made.outputs[:]
        for name in names:
            made.outputs.add(name=name)

    return edit


def classified(value: Value) -> Edit:
    def edit(made: pb.ModelInferRequest) -> None:
        set_parameter(made.outputs[0].parameters["classification"], value)

    return edit


START_IT, GO_ON, END_IT = Ask("START", parameters=START), Ask("no flags"), Ask("END", parameters=END)
BOTH = Ask("START and END", parameters={**START, **END})

SEQUENCES = [
    Case("sequence", [Ask("no sequence id", None, START)]),
    Case("sequence", [Ask("id 0", 0, START)]),
    Case("sequence", [Ask('id ""', "", START)]),
    Case("sequence", [Ask("id of a bool", None, {"sequence_id": True, **START})]),
    Case("sequence", [Ask("id of a double", None, {"sequence_id": 7.0, **START})]),
    Case("sequence", [GO_ON]),
    Case("sequence", [Ask("END without START", parameters=END)]),
    Case("sequence", [START_IT, GO_ON, GO_ON]),
    Case("sequence", [START_IT, GO_ON, START_IT, GO_ON]),
    Case("sequence", [START_IT, END_IT, GO_ON]),
    Case("sequence", [START_IT, END_IT, END_IT]),
    Case("sequence", [BOTH, GO_ON]),
    Case("sequence", [START_IT, END_IT, START_IT]),
    Case("sequence", [Ask("START, id 7n", ID, START), Ask('no flags, id "7n"', TEXT)]),
    Case("sequence", [Ask("START of a negative id", -5, START)]),
    Case(
        "sequence",
        [Ask("START, an id of 200 characters", "x" * 200, START)],
        "Triton takes 128 characters; a session's id here has up to 256 bytes",
    ),
    Case("sequence", [START_IT, Ask("three time steps", steps=3), GO_ON]),
    Case("parameters", [Ask("sequence_start of an int", parameters={"sequence_start": 1})]),
    Case("parameters", [Ask("sequence_end of a string", parameters={"sequence_end": "true"})]),
    Case("parameters", [Ask("START, priority 3", parameters={**START, "priority": 3})]),
    Case("parameters", [Ask("priority of a string", parameters={**START, "priority": "x"})]),
    Case("parameters", [Ask("START, timeout 10 s", parameters={**START, "timeout": 10_000_000})]),
    Case("parameters", [Ask("timeout of a string", parameters={**START, "timeout": "x"})]),
    Case("parameters", [Ask("START, a parameter nobody knows", parameters={**START, "own": 5})]),
    Case("parameters", [Ask("a triton_ parameter nobody knows", parameters={**START, "triton_x": 5})]),
    Case(
        "parameters",
        [Ask("empty final response", parameters={**START, "triton_enable_empty_final_response": True})],
    ),
    Case(
        "exactly once",
        [
            Ask("START, step 0", parameters={**START, "step": 0}),
            Ask("step 1", parameters={"step": 1}),
            Ask("step 1 again", parameters={"step": 1}),
            Ask("step 2", parameters={"step": 2}),
        ],
        "`step` is Cellkeeper's: a repeated request gets its answer again; Triton applies it twice",
    ),
]

LONG_STEPS, SHORT_S = 120_000, 0.3
"""A chunk, nearly as long as a message may be, and a timeout that is too short for its answer: an idle machine takes
twice as long."""
LATE = Ask(f"{LONG_STEPS} time steps, client_timeout {SHORT_S} s", steps=LONG_STEPS, timeout_s=SHORT_S)
DEADLINES = [
    Case(
        "deadlines",
        [START_IT, LATE, GO_ON],
        "Triton applies what its client no longer waits for, and the client cannot know; here nothing is sent to the "
        "store after the deadline",
    ),
    Case(
        "deadlines",
        [START_IT, Ask("timeout 1 us", parameters={"timeout": 1}), GO_ON],
        "`timeout` bounds the request, and nothing of it is stored later; Triton's sequence batcher ignores it",
    ),
    Case("deadlines", [START_IT, Ask("timeout 0", parameters={"timeout": 0}), GO_ON]),
    Case(
        "deadlines",
        [START_IT, Ask("timeout -1", parameters={"timeout": -1}), GO_ON],
        "a timeout that is none is refused",
    ),
]

TENSORS = [
    Case("tensors", [Ask("batch of 2", steps=2, parameters=START, edit=shape(2, 1, FEATURES))]),
    Case(
        "tensors",
        [Ask("one step as [1, F]", parameters=START, edit=shape(1, FEATURES))],
        "the time dimension may be left out of single steps; Triton takes the one shape of its configuration",
    ),
    Case(
        "tensors",
        [Ask("no batch dimension", parameters=START, edit=shape(FEATURES))],
        "refused by both; the text tells both shapes",
    ),
    Case(
        "tensors",
        [Ask("another number of features", parameters=START, edit=shape(1, 1, FEATURES + 1))],
        "refused by both; the text tells both shapes",
    ),
    Case("tensors", [Ask("a negative dimension", parameters=START, edit=shape(1, -1, FEATURES))]),
    Case(
        "tensors",
        [Ask("no time steps", parameters=START, edit=lambda made: (shape(1, 0, FEATURES)(made), raw(b"")(made)))],
        "a chunk has one time step or more; what Triton's model makes of none is its own affair",
    ),
    Case("tensors", [Ask("too few bytes", parameters=START, edit=raw(b"abc"))]),
    Case(
        "tensors",
        [Ask("FP64", parameters=START, edit=as_type("FP64", "<f8"))],
        "floats of any width are converted",
    ),
    Case("tensors", [Ask("INT32 for FP32", parameters=START, edit=as_type("INT32", "<i4"))]),
    Case("tensors", [Ask("INT8 for FP32", parameters=START, edit=as_type("INT8", "<i1"))]),
    Case("tensors", [Ask("a type nobody knows", parameters=START, edit=as_type("FOO", "<f4"))]),
    Case("tensors", [Ask("BYTES", parameters=START, edit=as_type("BYTES", "<f4"))]),
    Case("tensors", [Ask("typed contents", parameters=START, edit=contents("fp32_contents", *[1.0] * FEATURES))]),
    Case("tensors", [Ask("too few typed contents", parameters=START, edit=contents("fp32_contents", 1.0))]),
    Case("tensors", [Ask("contents of another type", parameters=START, edit=contents("int_contents", 1))]),
    Case("tensors", [Ask("no contents", parameters=START, edit=raw())]),
    Case(
        "tensors",
        [
            Ask(
                "raw and typed contents",
                parameters=START,
                edit=lambda made: made.inputs[0].contents.fp32_contents.append(1),
            )
        ],
    ),
    Case(
        "tensors",
        [Ask("more raw contents than inputs", parameters=START, edit=raw(ones(1).tobytes(), b""))],
        "what is not understood is refused",
    ),
    Case(
        "tensors",
        [Ask("an unknown input", parameters=START, edit=lambda made: setattr(made.inputs[0], "name", "Z"))],
    ),
    Case("tensors", [Ask("no input", parameters=START, edit=lambda made: made.ClearField("inputs"))]),
    Case(
        "tensors",
        [Ask("NaN", parameters=START, edit=raw(np.full(FEATURES, np.nan, np.float32).tobytes()))],
        "refused, unless the model takes missing values: a NaN in a state stays there",
    ),
    Case("outputs", [Ask("no output asked for", parameters=START, edit=outputs())]),
    Case("outputs", [Ask("an unknown output", parameters=START, edit=outputs("Z"))]),
    Case("outputs", [Ask("an output twice", parameters=START, edit=outputs("Y", "Y"))]),
    Case("outputs", [Ask("classification 1", parameters=START, edit=classified(1))]),
    Case("outputs", [START_IT, Ask("three time steps, classification 2", steps=3, edit=classified(2)), GO_ON]),
    Case("outputs", [Ask("three time steps, classification 9", steps=3, parameters=START, edit=classified(9))]),
    Case("outputs", [Ask("classification 0", parameters=START, edit=classified(0))]),
    Case("outputs", [Ask("classification of a string", parameters=START, edit=classified("1"))]),
]

MODELS = [
    Case("models", [Ask("an unknown model", parameters=START, edit=lambda made: setattr(made, "model_name", "nope"))]),
    Case("models", [Ask("no model", parameters=START, edit=lambda made: setattr(made, "model_name", ""))]),
    Case("models", [Ask("version 1", parameters=START, edit=lambda made: setattr(made, "model_version", "1"))]),
    Case("models", [Ask("version 01", parameters=START, edit=lambda made: setattr(made, "model_version", "01"))]),
    Case("models", [Ask("version 0", parameters=START, edit=lambda made: setattr(made, "model_version", "0"))]),
    Case("models", [Ask("version -1", parameters=START, edit=lambda made: setattr(made, "model_version", "-1"))]),
    Case("models", [Ask("version 9", parameters=START, edit=lambda made: setattr(made, "model_version", "9"))]),
    Case("models", [Ask("version x", parameters=START, edit=lambda made: setattr(made, "model_version", "x"))]),
]

STREAMS = [
    Case("stream", [START_IT, GO_ON, END_IT], stream=True),
    Case("stream", [GO_ON, START_IT, GO_ON], stream=True),
    Case("stream", [START_IT, Ask("an unknown output", edit=outputs("Z")), GO_ON], stream=True),
]

CASES = [*SEQUENCES, *DEADLINES, *TENSORS, *MODELS, *STREAMS]
