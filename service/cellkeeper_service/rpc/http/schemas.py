"""The schemas of the OpenAPI document: bodies, replies and messages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cellkeeper_service.access.rights import Right
from cellkeeper_service.core.generation_requests import Policy
from cellkeeper_service.domain.position import GENERATION_BYTES, HEAD_BYTES
from cellkeeper_service.domain.record import ORIGIN_BYTES
from cellkeeper_service.rpc.tensors import WIRE_DTYPES

from .fields import FINGERPRINT_BYTES

Schema = dict[str, Any]


def _object(required: Mapping[str, Schema], optional: Mapping[str, Schema] | None = None, **more: Any) -> Schema:
    return {
        "type": "object",
        "properties": {**required, **(optional or {})},
        "required": list(required),
        "additionalProperties": False,
        **more,
    }


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def _map(values: Schema) -> Schema:
    return {"type": "object", "additionalProperties": values}


def _hex(count: int) -> Schema:
    return {"type": "string", "pattern": f"^[0-9a-fA-F]{{{2 * count}}}$"}


def ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


TEXT: Schema = {"type": "string"}
FLAG: Schema = {"type": "boolean"}
NUMBER: Schema = {"type": "number"}
NUMBERS = [NUMBER, {"type": "string", "pattern": "^(NaN|-?Infinity|-?[0-9]{1,19})$"}]
ID: Schema = {"type": ["string", "number"]}
COUNT: Schema = {"type": "integer", "minimum": 0}
GENERATION = _hex(GENERATION_BYTES)
FINGERPRINT = _hex(FINGERPRINT_BYTES)
RATES = _map(NUMBER)
INTEGER = ref("Integer")
ARRAY = ref("Array")
GIVEN = ref("Given")
POSITION = ref("Position")
REQUEST_ID = {
    **_hex(ORIGIN_BYTES),
    "description": "Random, the same for every retry. Without it, a retry is another request.",
}
OR_NULL = {"type": "null"}
QUANTILES = {"oneOf": [_object({"p50": NUMBER, "p90": NUMBER, "p99": NUMBER}), OR_NULL]}

STANDS = {"session": TEXT, "model": TEXT, "position": POSITION}
HELD = {
    "fingerprint": FINGERPRINT,
    "checkpoint_step": INTEGER,
    "age_ms": INTEGER,
    "idle_ms": INTEGER,
    "ttl_ms": {**INTEGER, "description": "0: never expires"},
    "hot": {**FLAG, "description": "the engine of the process that answers holds its state"},
}
LOG_SIZE = {"log": _object({"steps": COUNT, "bytes": COUNT})}
STEPS = {"first_step": INTEGER, "inputs": ref("Inputs"), "outputs": _map(ARRAY)}
MISSED = {
    "outputs_error": {**ref("Error"), "description": "why there are none: the session advanced faster than it was read"}
}
CHUNK = {"inputs": {**GIVEN, "description": "One time step, or a list of T of them."}}
WANTED = {
    "outputs": {**_list(TEXT), "description": 'default: "prediction"; "state": the state tensors'},
    "position": {**POSITION, "description": "Where the chunk belongs; if omitted: wherever the session is."},
}
ACKED = {"acked": {**INTEGER, "description": "The client has every reply up to this step."}}
STEPPED = {
    "outputs": _map(ARRAY),
    "position": POSITION,
    "replayed": FLAG,
    "created": FLAG,
    "queued_seconds": NUMBER,
    "computed_seconds": NUMBER,
}
STATES = {"states": ref("States")}
TENSOR_SPEC = _object({"name": TEXT, "dtype": TEXT, "shape": _list(COUNT)})

SCHEMAS: dict[str, Schema] = {
    "Integer": {
        "description": "A whole number; a string of digits if it is above 2^53. Both forms are accepted.",
        "oneOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": "^[0-9]{1,20}$"}],
    },
    "Array": {
        "description": 'Nested lists of numbers. "NaN", "Infinity" and "-Infinity" are strings, and so are integers '
        "beyond 2^53. A float32 is written as the float64 of the same value.",
        "oneOf": [*NUMBERS, {"type": "array", "items": ARRAY}],
    },
    "Given": {
        "description": "An array. By name: an array for each input of a model with several, or for each feature of a "
        "model whose features have names, for which a list of T objects with a number for each feature is a chunk, "
        "too. null is a missing value, if the model accepts missing values.",
        "oneOf": [*NUMBERS, OR_NULL, {"type": "array", "items": GIVEN}, _map(GIVEN)],
    },
    "Inputs": {
        "description": "An array; by name if the model has several inputs.",
        "oneOf": [ARRAY, _map(ARRAY)],
    },
    "Position": _object(
        {"generation": GENERATION, "step": INTEGER, "head": _hex(HEAD_BYTES)},
        description="One point of one history, exactly.",
    ),
    "States": _map(
        _object(
            {"data": ARRAY},
            {
                "dtype": {"enum": list(WIRE_DTYPES)},
                "shape": _list(COUNT),
            },
        )
    ),
    "Error": _object(
        {
            "code": {**TEXT, "description": "of google.rpc.Code"},
            "reason": {**TEXT, "description": "as in gRPC: docs/errors.md"},
            "message": TEXT,
            "details": _object({}, {"field": TEXT, "position": POSITION, "retry_delay_ms": COUNT}),
        }
    ),
    "Refusal": _object({"error": ref("Error")}, {"id": ID}),
    "Server": _object(
        {
            "version": TEXT,
            "uptime_seconds": NUMBER,
            "tokens": {**FLAG, "description": "whether tokens are required"},
            "tenant": TEXT,
            "rights": {**_list({"enum": [right.value for right in Right]}), "description": "of the caller"},
            "store": TEXT,
            "engines": _list(_object({"name": TEXT, "device": TEXT})),
            "limits": _map(COUNT),
        }
    ),
    "Now": _object({"sample_seconds": NUMBER, "samples": _list(ref("Sample"))}),
    "Sample": _object(
        {
            "age_seconds": NUMBER,
            "seconds": {**NUMBER, "description": "its length"},
            "steps_per_second": NUMBER,
            "chunks_per_second": NUMBER,
            "latency_seconds": {**_map(QUANTILES), "description": "by phase"},
            "batches_per_second": NUMBER,
            "batch_size_mean": {"oneOf": [NUMBER, OR_NULL]},
            "queue_depth": NUMBER,
            "hot_sessions": {**RATES, "description": "by model"},
            "rejections_per_second": {**RATES, "description": "by reason"},
            "commits_per_second": {**RATES, "description": "by result"},
            "store": _map(_object({"calls_per_second": NUMBER, "errors_per_second": NUMBER, "seconds": QUANTILES})),
        }
    ),
    "Models": _object({"models": _list(ref("Model"))}),
    "Model": _object(
        {
            "name": TEXT,
            "fingerprint": FINGERPRINT,
            "numerics": {**TEXT, "description": "what decides the bits"},
            "exact": FLAG,
            "tolerance": NUMBER,
            "engine": TEXT,
            "device": TEXT,
            "input": {"oneOf": [TENSOR_SPEC, OR_NULL], "description": "null: the model has several inputs"},
            "inputs": _list(_object({"name": TEXT, "dtype": TEXT, "shape": _list(COUNT), "vocabulary": COUNT})),
            "feature_names": _list(TEXT),
            "vocabulary": {**COUNT, "description": "token ids are below it; 0: features"},
            "missing_values": {**FLAG, "description": 'null and "NaN" are accepted'},
            "outputs": _list(TENSOR_SPEC),
            "states": _list(TENSOR_SPEC),
            "feedback": {
                "oneOf": [
                    _object({"sources": _list({"type": "integer", "minimum": -1})}),
                    _object({"inputs": _map(_list(COUNT))}),
                    OR_NULL,
                ]
            },
            "max_chunk_steps": COUNT,
            "max_frame_items": COUNT,
            "max_log_steps": COUNT,
        }
    ),
    "Listing": _object(
        {
            "sessions": _list({"oneOf": [ref("Listed"), ref("Damaged")]}),
            "next_page_token": {**TEXT, "description": "empty on the last page"},
        }
    ),
    "Listed": _object({**STANDS, **HELD}),
    "Damaged": _object({"session": TEXT, "model": TEXT, "damage": TEXT}, {"position": POSITION}),
    "Session": _object(
        {
            **STANDS,
            **HELD,
            **LOG_SIZE,
            "numerics": {"oneOf": [TEXT, OR_NULL], "description": "null if its version is not served"},
            "served": FLAG,
        }
    ),
    "Open": _object(
        {},
        {
            "request_id": REQUEST_ID,
            "ttl_ms": INTEGER,
            "initial_state": ref("States"),
            "expect": {**POSITION, "description": "require this history; nothing is created"},
        },
    ),
    "Opened": _object({"position": POSITION, "created": FLAG, "fingerprint": FINGERPRINT, "ttl_ms": INTEGER}),
    "Step": _object(CHUNK, {**WANTED, **ACKED}),
    "Peek": _object(CHUNK, WANTED),
    "Forecast": _object(
        {**CHUNK, "steps": {**COUNT, "description": "time steps after the chunk"}},
        {
            **WANTED,
            "known": {**GIVEN, "description": "[steps, K]: what the caller supplies; by name: [steps, ...]"},
        },
    ),
    "Stepped": _object(STEPPED, STATES),
    "State": _object({"position": POSITION, **STATES}),
    "SetState": _object(
        {"generation": GENERATION, "step": {**INTEGER, "description": "counting starts here"}, **STATES},
        {"request_id": REQUEST_ID},
    ),
    "Log": _object({"position": POSITION, "checkpoint_step": INTEGER, **STEPS}, MISSED),
    "Reset": _object({"generation": GENERATION}, {"request_id": REQUEST_ID}),
    "Fork": _object(
        {"target": TEXT},
        {
            "position": POSITION,
            "request_id": REQUEST_ID,
            "ttl_ms": {**INTEGER, "description": "of the copy; 0: never expires; if omitted: the session's"},
        },
    ),
    "Moved": _object({"position": POSITION}),
    "Deleted": _object({"deleted": {**FLAG, "description": "false: that generation had already ended"}}),
    "CarryOver": _object(
        {
            "items": _list(
                _object(
                    {
                        "session": TEXT,
                        "generation": GENERATION,
                        "policy": {"enum": [policy.value for policy in Policy]},
                    },
                    {
                        "inputs": {**GIVEN, "description": "rerun only: the window"},
                        "position": POSITION,
                        "request_id": REQUEST_ID,
                    },
                )
            )
        },
        {"fingerprint": {**FINGERPRINT, "description": "of the version that takes over"}},
    ),
    "Results": _object({"results": _list({"oneOf": [ref("Moved"), ref("Refusal")]})}),
    "StreamStep": _object(
        CHUNK,
        {
            **WANTED,
            **ACKED,
            "id": {**ID, "description": "returned with the reply"},
            "timeout_ms": COUNT,
            "peek": FLAG,
        },
    ),
    "StreamReply": {"oneOf": [_object(STEPPED, {**STATES, "id": ID}), ref("Refusal")]},
    "WatchUpdate": {
        "oneOf": [
            _object({**STANDS, **HELD, **LOG_SIZE, **STEPS}, {**STATES, "state_position": POSITION, **MISSED}),
            _object({**STANDS, **HELD, **LOG_SIZE, "error": ref("Error")}),
            ref("Refusal"),
        ]
    },
}
