from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DataType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DATA_TYPE_UNSPECIFIED: _ClassVar[DataType]
    FLOAT32: _ClassVar[DataType]
    FLOAT64: _ClassVar[DataType]
    FLOAT16: _ClassVar[DataType]
    INT32: _ClassVar[DataType]
    INT64: _ClassVar[DataType]

class Reason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REASON_UNSPECIFIED: _ClassVar[Reason]
    INVALID_FIELD: _ClassVar[Reason]
    NON_FINITE_INPUT: _ClassVar[Reason]
    NON_FINITE_RESULT: _ClassVar[Reason]
    DUPLICATE_SESSION: _ClassVar[Reason]
    SESSION_NOT_FOUND: _ClassVar[Reason]
    MODEL_NOT_FOUND: _ClassVar[Reason]
    SESSION_EXISTS: _ClassVar[Reason]
    GENERATION_CHANGED: _ClassVar[Reason]
    MODEL_CHANGED: _ClassVar[Reason]
    NUMERICS_CHANGED: _ClassVar[Reason]
    STEP_GAP: _ClassVar[Reason]
    OUTCOME_UNKNOWN: _ClassVar[Reason]
    HISTORY_CHANGED: _ClassVar[Reason]
    STEP_CONFLICT: _ClassVar[Reason]
    COMMIT_CONFLICT: _ClassVar[Reason]
    STEP_COMPACTED: _ClassVar[Reason]
    QUEUE_FULL: _ClassVar[Reason]
    REPLY_TOO_LARGE: _ClassVar[Reason]
    ACK_BEHIND: _ClassVar[Reason]
    QUOTA_EXCEEDED: _ClassVar[Reason]
    STORE_UNAVAILABLE: _ClassVar[Reason]
    DRAINING: _ClassVar[Reason]
    DEADLINE_PASSED: _ClassVar[Reason]
    CALLER_GONE: _ClassVar[Reason]
    UNAUTHENTICATED: _ClassVar[Reason]
    PERMISSION_DENIED: _ClassVar[Reason]
    INTERNAL_ERROR: _ClassVar[Reason]
    DATA_LOSS: _ClassVar[Reason]
DATA_TYPE_UNSPECIFIED: DataType
FLOAT32: DataType
FLOAT64: DataType
FLOAT16: DataType
INT32: DataType
INT64: DataType
REASON_UNSPECIFIED: Reason
INVALID_FIELD: Reason
NON_FINITE_INPUT: Reason
NON_FINITE_RESULT: Reason
DUPLICATE_SESSION: Reason
SESSION_NOT_FOUND: Reason
MODEL_NOT_FOUND: Reason
SESSION_EXISTS: Reason
GENERATION_CHANGED: Reason
MODEL_CHANGED: Reason
NUMERICS_CHANGED: Reason
STEP_GAP: Reason
OUTCOME_UNKNOWN: Reason
HISTORY_CHANGED: Reason
STEP_CONFLICT: Reason
COMMIT_CONFLICT: Reason
STEP_COMPACTED: Reason
QUEUE_FULL: Reason
REPLY_TOO_LARGE: Reason
ACK_BEHIND: Reason
QUOTA_EXCEEDED: Reason
STORE_UNAVAILABLE: Reason
DRAINING: Reason
DEADLINE_PASSED: Reason
CALLER_GONE: Reason
UNAUTHENTICATED: Reason
PERMISSION_DENIED: Reason
INTERNAL_ERROR: Reason
DATA_LOSS: Reason

class Position(_message.Message):
    __slots__ = ("generation", "step", "head")
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    HEAD_FIELD_NUMBER: _ClassVar[int]
    generation: bytes
    step: int
    head: bytes
    def __init__(self, generation: _Optional[bytes] = ..., step: _Optional[int] = ..., head: _Optional[bytes] = ...) -> None: ...

class Tensor(_message.Message):
    __slots__ = ("name", "dtype", "shape", "data")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    name: str
    dtype: DataType
    shape: _containers.RepeatedScalarFieldContainer[int]
    data: bytes
    def __init__(self, name: _Optional[str] = ..., dtype: _Optional[_Union[DataType, str]] = ..., shape: _Optional[_Iterable[int]] = ..., data: _Optional[bytes] = ...) -> None: ...

class Error(_message.Message):
    __slots__ = ("code", "reason", "message", "field", "position", "retry_delay_ms")
    CODE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    FIELD_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    RETRY_DELAY_MS_FIELD_NUMBER: _ClassVar[int]
    code: int
    reason: Reason
    message: str
    field: str
    position: Position
    retry_delay_ms: int
    def __init__(self, code: _Optional[int] = ..., reason: _Optional[_Union[Reason, str]] = ..., message: _Optional[str] = ..., field: _Optional[str] = ..., position: _Optional[_Union[Position, _Mapping]] = ..., retry_delay_ms: _Optional[int] = ...) -> None: ...

class OpenRequest(_message.Message):
    __slots__ = ("model", "session", "request_id", "expect", "ttl_ms", "initial_state")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    EXPECT_FIELD_NUMBER: _ClassVar[int]
    TTL_MS_FIELD_NUMBER: _ClassVar[int]
    INITIAL_STATE_FIELD_NUMBER: _ClassVar[int]
    model: str
    session: str
    request_id: bytes
    expect: Position
    ttl_ms: int
    initial_state: _containers.RepeatedCompositeFieldContainer[Tensor]
    def __init__(self, model: _Optional[str] = ..., session: _Optional[str] = ..., request_id: _Optional[bytes] = ..., expect: _Optional[_Union[Position, _Mapping]] = ..., ttl_ms: _Optional[int] = ..., initial_state: _Optional[_Iterable[_Union[Tensor, _Mapping]]] = ...) -> None: ...

class OpenResponse(_message.Message):
    __slots__ = ("position", "created", "fingerprint", "ttl_ms")
    POSITION_FIELD_NUMBER: _ClassVar[int]
    CREATED_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    TTL_MS_FIELD_NUMBER: _ClassVar[int]
    position: Position
    created: bool
    fingerprint: bytes
    ttl_ms: int
    def __init__(self, position: _Optional[_Union[Position, _Mapping]] = ..., created: bool = ..., fingerprint: _Optional[bytes] = ..., ttl_ms: _Optional[int] = ...) -> None: ...

class OpenManyRequest(_message.Message):
    __slots__ = ("model", "items")
    class Item(_message.Message):
        __slots__ = ("session", "request_id", "expect", "ttl_ms", "initial_state")
        SESSION_FIELD_NUMBER: _ClassVar[int]
        REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
        EXPECT_FIELD_NUMBER: _ClassVar[int]
        TTL_MS_FIELD_NUMBER: _ClassVar[int]
        INITIAL_STATE_FIELD_NUMBER: _ClassVar[int]
        session: str
        request_id: bytes
        expect: Position
        ttl_ms: int
        initial_state: _containers.RepeatedCompositeFieldContainer[Tensor]
        def __init__(self, session: _Optional[str] = ..., request_id: _Optional[bytes] = ..., expect: _Optional[_Union[Position, _Mapping]] = ..., ttl_ms: _Optional[int] = ..., initial_state: _Optional[_Iterable[_Union[Tensor, _Mapping]]] = ...) -> None: ...
    MODEL_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    model: str
    items: _containers.RepeatedCompositeFieldContainer[OpenManyRequest.Item]
    def __init__(self, model: _Optional[str] = ..., items: _Optional[_Iterable[_Union[OpenManyRequest.Item, _Mapping]]] = ...) -> None: ...

class OpenManyResponse(_message.Message):
    __slots__ = ("results",)
    class Result(_message.Message):
        __slots__ = ("error", "opened")
        ERROR_FIELD_NUMBER: _ClassVar[int]
        OPENED_FIELD_NUMBER: _ClassVar[int]
        error: Error
        opened: OpenResponse
        def __init__(self, error: _Optional[_Union[Error, _Mapping]] = ..., opened: _Optional[_Union[OpenResponse, _Mapping]] = ...) -> None: ...
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[OpenManyResponse.Result]
    def __init__(self, results: _Optional[_Iterable[_Union[OpenManyResponse.Result, _Mapping]]] = ...) -> None: ...

class StepRequest(_message.Message):
    __slots__ = ("model", "session", "dtype", "shape", "inputs", "position", "acked", "peek", "outputs", "rollout_steps", "rollout_inputs", "named_inputs", "rollout_named_inputs")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    ACKED_FIELD_NUMBER: _ClassVar[int]
    PEEK_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    ROLLOUT_STEPS_FIELD_NUMBER: _ClassVar[int]
    ROLLOUT_INPUTS_FIELD_NUMBER: _ClassVar[int]
    NAMED_INPUTS_FIELD_NUMBER: _ClassVar[int]
    ROLLOUT_NAMED_INPUTS_FIELD_NUMBER: _ClassVar[int]
    model: str
    session: str
    dtype: DataType
    shape: _containers.RepeatedScalarFieldContainer[int]
    inputs: bytes
    position: Position
    acked: int
    peek: bool
    outputs: _containers.RepeatedScalarFieldContainer[str]
    rollout_steps: int
    rollout_inputs: bytes
    named_inputs: _containers.RepeatedCompositeFieldContainer[Tensor]
    rollout_named_inputs: _containers.RepeatedCompositeFieldContainer[Tensor]
    def __init__(self, model: _Optional[str] = ..., session: _Optional[str] = ..., dtype: _Optional[_Union[DataType, str]] = ..., shape: _Optional[_Iterable[int]] = ..., inputs: _Optional[bytes] = ..., position: _Optional[_Union[Position, _Mapping]] = ..., acked: _Optional[int] = ..., peek: bool = ..., outputs: _Optional[_Iterable[str]] = ..., rollout_steps: _Optional[int] = ..., rollout_inputs: _Optional[bytes] = ..., named_inputs: _Optional[_Iterable[_Union[Tensor, _Mapping]]] = ..., rollout_named_inputs: _Optional[_Iterable[_Union[Tensor, _Mapping]]] = ...) -> None: ...

class StepResponse(_message.Message):
    __slots__ = ("outputs", "position", "created", "replayed", "queued_seconds", "computed_seconds")
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    CREATED_FIELD_NUMBER: _ClassVar[int]
    REPLAYED_FIELD_NUMBER: _ClassVar[int]
    QUEUED_SECONDS_FIELD_NUMBER: _ClassVar[int]
    COMPUTED_SECONDS_FIELD_NUMBER: _ClassVar[int]
    outputs: _containers.RepeatedCompositeFieldContainer[Tensor]
    position: Position
    created: bool
    replayed: bool
    queued_seconds: float
    computed_seconds: float
    def __init__(self, outputs: _Optional[_Iterable[_Union[Tensor, _Mapping]]] = ..., position: _Optional[_Union[Position, _Mapping]] = ..., created: bool = ..., replayed: bool = ..., queued_seconds: _Optional[float] = ..., computed_seconds: _Optional[float] = ...) -> None: ...

class InputColumn(_message.Message):
    __slots__ = ("name", "dtype", "shape", "data")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    name: str
    dtype: DataType
    shape: _containers.RepeatedScalarFieldContainer[int]
    data: bytes
    def __init__(self, name: _Optional[str] = ..., dtype: _Optional[_Union[DataType, str]] = ..., shape: _Optional[_Iterable[int]] = ..., data: _Optional[bytes] = ...) -> None: ...

class StepFrame(_message.Message):
    __slots__ = ("frame_id", "model", "sessions", "steps", "dtype", "step_shape", "inputs", "positions", "acked", "peek", "outputs", "timeout_ms", "named_inputs")
    FRAME_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    SESSIONS_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    STEP_SHAPE_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    POSITIONS_FIELD_NUMBER: _ClassVar[int]
    ACKED_FIELD_NUMBER: _ClassVar[int]
    PEEK_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    NAMED_INPUTS_FIELD_NUMBER: _ClassVar[int]
    frame_id: int
    model: str
    sessions: _containers.RepeatedScalarFieldContainer[str]
    steps: _containers.RepeatedScalarFieldContainer[int]
    dtype: DataType
    step_shape: _containers.RepeatedScalarFieldContainer[int]
    inputs: bytes
    positions: bytes
    acked: bytes
    peek: bool
    outputs: _containers.RepeatedScalarFieldContainer[str]
    timeout_ms: int
    named_inputs: _containers.RepeatedCompositeFieldContainer[InputColumn]
    def __init__(self, frame_id: _Optional[int] = ..., model: _Optional[str] = ..., sessions: _Optional[_Iterable[str]] = ..., steps: _Optional[_Iterable[int]] = ..., dtype: _Optional[_Union[DataType, str]] = ..., step_shape: _Optional[_Iterable[int]] = ..., inputs: _Optional[bytes] = ..., positions: _Optional[bytes] = ..., acked: _Optional[bytes] = ..., peek: bool = ..., outputs: _Optional[_Iterable[str]] = ..., timeout_ms: _Optional[int] = ..., named_inputs: _Optional[_Iterable[_Union[InputColumn, _Mapping]]] = ...) -> None: ...

class OutputColumn(_message.Message):
    __slots__ = ("name", "dtype", "shape", "per_item", "data")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    PER_ITEM_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    name: str
    dtype: DataType
    shape: _containers.RepeatedScalarFieldContainer[int]
    per_item: bool
    data: bytes
    def __init__(self, name: _Optional[str] = ..., dtype: _Optional[_Union[DataType, str]] = ..., shape: _Optional[_Iterable[int]] = ..., per_item: bool = ..., data: _Optional[bytes] = ...) -> None: ...

class StepFrameReply(_message.Message):
    __slots__ = ("frame_id", "items", "positions", "steps", "outputs", "flags", "errors", "queued_seconds", "computed_seconds", "last", "frame_error")
    FRAME_ID_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    POSITIONS_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    FLAGS_FIELD_NUMBER: _ClassVar[int]
    ERRORS_FIELD_NUMBER: _ClassVar[int]
    QUEUED_SECONDS_FIELD_NUMBER: _ClassVar[int]
    COMPUTED_SECONDS_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    FRAME_ERROR_FIELD_NUMBER: _ClassVar[int]
    frame_id: int
    items: bytes
    positions: bytes
    steps: _containers.RepeatedScalarFieldContainer[int]
    outputs: _containers.RepeatedCompositeFieldContainer[OutputColumn]
    flags: bytes
    errors: _containers.RepeatedCompositeFieldContainer[ItemError]
    queued_seconds: float
    computed_seconds: float
    last: bool
    frame_error: Error
    def __init__(self, frame_id: _Optional[int] = ..., items: _Optional[bytes] = ..., positions: _Optional[bytes] = ..., steps: _Optional[_Iterable[int]] = ..., outputs: _Optional[_Iterable[_Union[OutputColumn, _Mapping]]] = ..., flags: _Optional[bytes] = ..., errors: _Optional[_Iterable[_Union[ItemError, _Mapping]]] = ..., queued_seconds: _Optional[float] = ..., computed_seconds: _Optional[float] = ..., last: bool = ..., frame_error: _Optional[_Union[Error, _Mapping]] = ...) -> None: ...

class ItemError(_message.Message):
    __slots__ = ("item", "error")
    ITEM_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    item: int
    error: Error
    def __init__(self, item: _Optional[int] = ..., error: _Optional[_Union[Error, _Mapping]] = ...) -> None: ...

class ResetRequest(_message.Message):
    __slots__ = ("model", "items")
    class Item(_message.Message):
        __slots__ = ("session", "generation", "request_id")
        SESSION_FIELD_NUMBER: _ClassVar[int]
        GENERATION_FIELD_NUMBER: _ClassVar[int]
        REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
        session: str
        generation: bytes
        request_id: bytes
        def __init__(self, session: _Optional[str] = ..., generation: _Optional[bytes] = ..., request_id: _Optional[bytes] = ...) -> None: ...
    MODEL_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    model: str
    items: _containers.RepeatedCompositeFieldContainer[ResetRequest.Item]
    def __init__(self, model: _Optional[str] = ..., items: _Optional[_Iterable[_Union[ResetRequest.Item, _Mapping]]] = ...) -> None: ...

class SetStateRequest(_message.Message):
    __slots__ = ("model", "items")
    class Item(_message.Message):
        __slots__ = ("session", "generation", "request_id", "step", "state")
        SESSION_FIELD_NUMBER: _ClassVar[int]
        GENERATION_FIELD_NUMBER: _ClassVar[int]
        REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
        STEP_FIELD_NUMBER: _ClassVar[int]
        STATE_FIELD_NUMBER: _ClassVar[int]
        session: str
        generation: bytes
        request_id: bytes
        step: int
        state: _containers.RepeatedCompositeFieldContainer[Tensor]
        def __init__(self, session: _Optional[str] = ..., generation: _Optional[bytes] = ..., request_id: _Optional[bytes] = ..., step: _Optional[int] = ..., state: _Optional[_Iterable[_Union[Tensor, _Mapping]]] = ...) -> None: ...
    MODEL_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    model: str
    items: _containers.RepeatedCompositeFieldContainer[SetStateRequest.Item]
    def __init__(self, model: _Optional[str] = ..., items: _Optional[_Iterable[_Union[SetStateRequest.Item, _Mapping]]] = ...) -> None: ...

class ForkRequest(_message.Message):
    __slots__ = ("model", "items")
    class Item(_message.Message):
        __slots__ = ("source", "position", "target", "request_id", "ttl_ms")
        SOURCE_FIELD_NUMBER: _ClassVar[int]
        POSITION_FIELD_NUMBER: _ClassVar[int]
        TARGET_FIELD_NUMBER: _ClassVar[int]
        REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
        TTL_MS_FIELD_NUMBER: _ClassVar[int]
        source: str
        position: Position
        target: str
        request_id: bytes
        ttl_ms: int
        def __init__(self, source: _Optional[str] = ..., position: _Optional[_Union[Position, _Mapping]] = ..., target: _Optional[str] = ..., request_id: _Optional[bytes] = ..., ttl_ms: _Optional[int] = ...) -> None: ...
    MODEL_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    model: str
    items: _containers.RepeatedCompositeFieldContainer[ForkRequest.Item]
    def __init__(self, model: _Optional[str] = ..., items: _Optional[_Iterable[_Union[ForkRequest.Item, _Mapping]]] = ...) -> None: ...

class DeleteRequest(_message.Message):
    __slots__ = ("model", "items")
    class Item(_message.Message):
        __slots__ = ("session", "generation")
        SESSION_FIELD_NUMBER: _ClassVar[int]
        GENERATION_FIELD_NUMBER: _ClassVar[int]
        session: str
        generation: bytes
        def __init__(self, session: _Optional[str] = ..., generation: _Optional[bytes] = ...) -> None: ...
    MODEL_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    model: str
    items: _containers.RepeatedCompositeFieldContainer[DeleteRequest.Item]
    def __init__(self, model: _Optional[str] = ..., items: _Optional[_Iterable[_Union[DeleteRequest.Item, _Mapping]]] = ...) -> None: ...

class CarryOverRequest(_message.Message):
    __slots__ = ("model", "items", "fingerprint")
    class Policy(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        POLICY_UNSPECIFIED: _ClassVar[CarryOverRequest.Policy]
        KEEP: _ClassVar[CarryOverRequest.Policy]
        RERUN: _ClassVar[CarryOverRequest.Policy]
        RESET: _ClassVar[CarryOverRequest.Policy]
    POLICY_UNSPECIFIED: CarryOverRequest.Policy
    KEEP: CarryOverRequest.Policy
    RERUN: CarryOverRequest.Policy
    RESET: CarryOverRequest.Policy
    class Item(_message.Message):
        __slots__ = ("session", "generation", "request_id", "policy", "dtype", "shape", "inputs", "named_inputs", "position")
        SESSION_FIELD_NUMBER: _ClassVar[int]
        GENERATION_FIELD_NUMBER: _ClassVar[int]
        REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
        POLICY_FIELD_NUMBER: _ClassVar[int]
        DTYPE_FIELD_NUMBER: _ClassVar[int]
        SHAPE_FIELD_NUMBER: _ClassVar[int]
        INPUTS_FIELD_NUMBER: _ClassVar[int]
        NAMED_INPUTS_FIELD_NUMBER: _ClassVar[int]
        POSITION_FIELD_NUMBER: _ClassVar[int]
        session: str
        generation: bytes
        request_id: bytes
        policy: CarryOverRequest.Policy
        dtype: DataType
        shape: _containers.RepeatedScalarFieldContainer[int]
        inputs: bytes
        named_inputs: _containers.RepeatedCompositeFieldContainer[Tensor]
        position: Position
        def __init__(self, session: _Optional[str] = ..., generation: _Optional[bytes] = ..., request_id: _Optional[bytes] = ..., policy: _Optional[_Union[CarryOverRequest.Policy, str]] = ..., dtype: _Optional[_Union[DataType, str]] = ..., shape: _Optional[_Iterable[int]] = ..., inputs: _Optional[bytes] = ..., named_inputs: _Optional[_Iterable[_Union[Tensor, _Mapping]]] = ..., position: _Optional[_Union[Position, _Mapping]] = ...) -> None: ...
    MODEL_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    model: str
    items: _containers.RepeatedCompositeFieldContainer[CarryOverRequest.Item]
    fingerprint: bytes
    def __init__(self, model: _Optional[str] = ..., items: _Optional[_Iterable[_Union[CarryOverRequest.Item, _Mapping]]] = ..., fingerprint: _Optional[bytes] = ...) -> None: ...

class SessionResults(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[SessionResult]
    def __init__(self, results: _Optional[_Iterable[_Union[SessionResult, _Mapping]]] = ...) -> None: ...

class SessionResult(_message.Message):
    __slots__ = ("error", "position", "deleted")
    ERROR_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    DELETED_FIELD_NUMBER: _ClassVar[int]
    error: Error
    position: Position
    deleted: bool
    def __init__(self, error: _Optional[_Union[Error, _Mapping]] = ..., position: _Optional[_Union[Position, _Mapping]] = ..., deleted: bool = ...) -> None: ...

class GetStateRequest(_message.Message):
    __slots__ = ("model", "session")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    model: str
    session: str
    def __init__(self, model: _Optional[str] = ..., session: _Optional[str] = ...) -> None: ...

class GetStateResponse(_message.Message):
    __slots__ = ("position", "state")
    POSITION_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    position: Position
    state: _containers.RepeatedCompositeFieldContainer[Tensor]
    def __init__(self, position: _Optional[_Union[Position, _Mapping]] = ..., state: _Optional[_Iterable[_Union[Tensor, _Mapping]]] = ...) -> None: ...

class GetSessionRequest(_message.Message):
    __slots__ = ("model", "session")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    model: str
    session: str
    def __init__(self, model: _Optional[str] = ..., session: _Optional[str] = ...) -> None: ...

class SessionInfo(_message.Message):
    __slots__ = ("session", "position", "fingerprint", "checkpoint_step", "age_ms", "idle_ms", "ttl_ms", "hot", "damage")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_STEP_FIELD_NUMBER: _ClassVar[int]
    AGE_MS_FIELD_NUMBER: _ClassVar[int]
    IDLE_MS_FIELD_NUMBER: _ClassVar[int]
    TTL_MS_FIELD_NUMBER: _ClassVar[int]
    HOT_FIELD_NUMBER: _ClassVar[int]
    DAMAGE_FIELD_NUMBER: _ClassVar[int]
    session: str
    position: Position
    fingerprint: bytes
    checkpoint_step: int
    age_ms: int
    idle_ms: int
    ttl_ms: int
    hot: bool
    damage: str
    def __init__(self, session: _Optional[str] = ..., position: _Optional[_Union[Position, _Mapping]] = ..., fingerprint: _Optional[bytes] = ..., checkpoint_step: _Optional[int] = ..., age_ms: _Optional[int] = ..., idle_ms: _Optional[int] = ..., ttl_ms: _Optional[int] = ..., hot: bool = ..., damage: _Optional[str] = ...) -> None: ...

class ListSessionsRequest(_message.Message):
    __slots__ = ("model", "prefix", "page_size", "page_token")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    PREFIX_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    model: str
    prefix: str
    page_size: int
    page_token: str
    def __init__(self, model: _Optional[str] = ..., prefix: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListSessionsResponse(_message.Message):
    __slots__ = ("sessions", "next_page_token")
    SESSIONS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    sessions: _containers.RepeatedCompositeFieldContainer[SessionInfo]
    next_page_token: str
    def __init__(self, sessions: _Optional[_Iterable[_Union[SessionInfo, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class ListModelsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListModelsResponse(_message.Message):
    __slots__ = ("models",)
    MODELS_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[ModelInfo]
    def __init__(self, models: _Optional[_Iterable[_Union[ModelInfo, _Mapping]]] = ...) -> None: ...

class GetModelRequest(_message.Message):
    __slots__ = ("model", "fingerprint")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    model: str
    fingerprint: bytes
    def __init__(self, model: _Optional[str] = ..., fingerprint: _Optional[bytes] = ...) -> None: ...

class TensorSpec(_message.Message):
    __slots__ = ("name", "dtype", "shape", "vocabulary")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    VOCABULARY_FIELD_NUMBER: _ClassVar[int]
    name: str
    dtype: DataType
    shape: _containers.RepeatedScalarFieldContainer[int]
    vocabulary: int
    def __init__(self, name: _Optional[str] = ..., dtype: _Optional[_Union[DataType, str]] = ..., shape: _Optional[_Iterable[int]] = ..., vocabulary: _Optional[int] = ...) -> None: ...

class ModelInfo(_message.Message):
    __slots__ = ("name", "fingerprint", "numerics", "exact", "tolerance", "engine", "device", "input", "vocabulary", "missing_values", "outputs", "states", "max_chunk_steps", "max_frame_items", "max_log_steps", "feedback", "feature_names", "inputs", "max_message_bytes")
    NAME_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    NUMERICS_FIELD_NUMBER: _ClassVar[int]
    EXACT_FIELD_NUMBER: _ClassVar[int]
    TOLERANCE_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    INPUT_FIELD_NUMBER: _ClassVar[int]
    VOCABULARY_FIELD_NUMBER: _ClassVar[int]
    MISSING_VALUES_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    STATES_FIELD_NUMBER: _ClassVar[int]
    MAX_CHUNK_STEPS_FIELD_NUMBER: _ClassVar[int]
    MAX_FRAME_ITEMS_FIELD_NUMBER: _ClassVar[int]
    MAX_LOG_STEPS_FIELD_NUMBER: _ClassVar[int]
    FEEDBACK_FIELD_NUMBER: _ClassVar[int]
    FEATURE_NAMES_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    MAX_MESSAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    name: str
    fingerprint: bytes
    numerics: str
    exact: bool
    tolerance: float
    engine: str
    device: str
    input: TensorSpec
    vocabulary: int
    missing_values: bool
    outputs: _containers.RepeatedCompositeFieldContainer[TensorSpec]
    states: _containers.RepeatedCompositeFieldContainer[TensorSpec]
    max_chunk_steps: int
    max_frame_items: int
    max_log_steps: int
    feedback: Feedback
    feature_names: _containers.RepeatedScalarFieldContainer[str]
    inputs: _containers.RepeatedCompositeFieldContainer[TensorSpec]
    max_message_bytes: int
    def __init__(self, name: _Optional[str] = ..., fingerprint: _Optional[bytes] = ..., numerics: _Optional[str] = ..., exact: bool = ..., tolerance: _Optional[float] = ..., engine: _Optional[str] = ..., device: _Optional[str] = ..., input: _Optional[_Union[TensorSpec, _Mapping]] = ..., vocabulary: _Optional[int] = ..., missing_values: bool = ..., outputs: _Optional[_Iterable[_Union[TensorSpec, _Mapping]]] = ..., states: _Optional[_Iterable[_Union[TensorSpec, _Mapping]]] = ..., max_chunk_steps: _Optional[int] = ..., max_frame_items: _Optional[int] = ..., max_log_steps: _Optional[int] = ..., feedback: _Optional[_Union[Feedback, _Mapping]] = ..., feature_names: _Optional[_Iterable[str]] = ..., inputs: _Optional[_Iterable[_Union[TensorSpec, _Mapping]]] = ..., max_message_bytes: _Optional[int] = ...) -> None: ...

class Feedback(_message.Message):
    __slots__ = ("sources", "inputs")
    SOURCES_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    sources: _containers.RepeatedScalarFieldContainer[int]
    inputs: _containers.RepeatedCompositeFieldContainer[InputFeedback]
    def __init__(self, sources: _Optional[_Iterable[int]] = ..., inputs: _Optional[_Iterable[_Union[InputFeedback, _Mapping]]] = ...) -> None: ...

class InputFeedback(_message.Message):
    __slots__ = ("name", "sources")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SOURCES_FIELD_NUMBER: _ClassVar[int]
    name: str
    sources: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, name: _Optional[str] = ..., sources: _Optional[_Iterable[int]] = ...) -> None: ...
