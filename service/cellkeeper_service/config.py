"""The server's settings: flags, or the same names as CELLKEEPER_* variables. Unknown ones are refused."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from typing import Any

from cellkeeper_service.domain.clock import LONGEST_TTL_MS
from cellkeeper_service.errors import StartError

PREFIX = "CELLKEEPER_"
STORE_VARIABLE = "CELLKEEPER_STORE"
CLIENT_VARIABLES = {
    "CELLKEEPER_ENDPOINT",
    "CELLKEEPER_TOKEN",
    "CELLKEEPER_TOKEN_FILE",
    "CELLKEEPER_CA_FILE",
    "CELLKEEPER_CERT_FILE",
    "CELLKEEPER_KEY_FILE",
}


def setting(default: Any, help: str) -> Any:
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True, slots=True)
class Settings:
    """Every field but `models` is a flag of its name, and a variable CELLKEEPER_<NAME>; a flag wins."""

    models: tuple[str, ...]
    listen: str = setting("127.0.0.1:50051", "host:port of the gRPC service; port 0 takes a free one")
    metrics_listen: str = setting("127.0.0.1:9464", "host:port of /metrics, /healthz and /readyz")
    kserve: str = setting(
        "off", "on or off: serve KServe's and Triton's protocol too, on the same port (docs/triton.md)"
    )
    kserve_end_ttl_ms: int = setting(
        60_000, "how long a sequence is kept after its END, so that the END can be repeated"
    )
    kserve_names: str = setting("", "what its clients call tensors: MODEL/NAME=TENSOR, several with commas between")
    store: str = setting(
        "sqlite:cellkeeper-data/sessions.db",
        "sqlite:PATH, redis://HOST:PORT/DB, redis+cluster://HOST:PORT,HOST:PORT, "
        "redis+sentinel://HOST:PORT,HOST:PORT/SERVICE or memory:",
    )
    device: str = setting("auto", "cpu, cuda:N, or auto; cuda:0,cuda:1 starts processes for each")
    precision: str = setting("fp32", "of products on a GPU: fp32, tf32 or bf16; sums and states are float32 always")
    workers: int = setting(1, "server processes on the same port, for each device; they share nothing but the store")
    threads: int = setting(1, "threads of one engine call on the CPU")
    max_batch: int = setting(256, "sessions in one engine call")
    trial_call_ms: int = setting(30_000, "the longest call of an ONNX graph while it is tried at load")
    arena_mib: int = setting(
        0, "memory for hot states, over all models; 0: 256 in the host's memory, on a GPU half of what is free there"
    )
    accept_other_numerics: bool = setting(False, "continue sessions that another kind of engine has computed")
    max_replay_steps: int = setting(64, "a checkpoint is due after so many logged steps; 1 writes the state each time")
    max_log_steps: int = setting(4096, "time steps in a session's input log, at the most")
    max_log_bytes: int = setting(32 * 1024 * 1024, "bytes of inputs in a session's input log, at the most")
    max_chunk_steps: int = setting(1024, "time steps in one chunk")
    max_slice_steps: int = setting(16, "a longer chunk is computed in slices of so many time steps")
    max_long_steps: int = setting(512, "time steps of slices, summed over sessions, in one tick")
    max_frame_items: int = setting(1024, "sessions in one frame")
    max_stream_frames: int = setting(64, "unanswered frames of one stream; more are not read meanwhile")
    max_rpcs: int = setting(10_000, "RPCs under way on one of the four listeners, streams included")
    max_unread_rpcs: int = setting(
        4096,
        "RPCs whose message has not come yet; beyond, the connection with the most of them loses one. Those that take "
        "over 0.3 s may be as many as max_request_bytes has room for messages",
    )
    message_timeout_ms: int = setting(10_000, "from a call's beginning to its message, or to a stream's first")
    max_connection_rpcs: int = setting(
        256, "RPCs under way on one connection, streams included, which its client keeps to; 0: no limit"
    )
    max_message_bytes: int = setting(16 * 1024 * 1024, "bytes of one gRPC message, either way")
    max_requests: int = setting(65536, "unanswered requests and frame items")
    max_request_bytes: int = setting(512 * 1024 * 1024, "inputs and outputs of unanswered requests")
    max_session_requests: int = setting(1024, "waiting requests of one session")
    default_timeout_ms: int = setting(30_000, "for requests without a deadline")
    default_ttl_ms: int = setting(0, "new sessions are forgotten when idle this long; 0: never")
    store_timeout_ms: int = setting(1000, "until a store that does not answer counts as lost")
    store_threads: int = setting(4, "store calls under way at the same time")
    wait_replicas: int = setting(0, "Redis replicas that must have a commit before it is acknowledged")
    retry_delay_ms: int = setting(
        200, "the advice to clients that come while the store or a queue is not there for them"
    )
    keep_versions: int = setting(2, "replaced versions of a model that stay served for their sessions after a reload")
    drain_delay_ms: int = setting(
        0, "SIGTERM: not ready, but serving on for so long, so that load balancers notice before it ends"
    )
    log_format: str = setting("text", "text, or json: an object a line")
    tracing: str = setting("auto", "otlp, none, or auto: otlp where OTEL_* variables say so")
    log_level: str = setting("info", "debug, info, warning or error")
    drain_timeout_ms: int = setting(20_000, "how long SIGTERM waits for what is under way")
    tls_cert: str = setting("", "PEM file of the server's certificate and its chain; read again when it changes")
    tls_key: str = setting("", "PEM file of its key")
    tls_client_ca: str = setting("", "PEM file of the authorities whose client certificates are asked for")
    tokens: str = setting("", "file of tokens, tenants and quotas (docs/security.md); read again when it changes")
    insecure_listen: bool = setting(False, "let anybody who reaches --listen from other machines do everything")
    max_ttl_ms: int = setting(0, "the longest that a session may ask to be kept idle; 0: for ever")
    tenant_sessions: int = setting(0, "sessions that a tenant uses within max_ttl_ms; 0: no limit")
    tenant_steps_per_second: int = setting(0, "time steps a second of one tenant; 0: no limit")
    tenant_inflight: int = setting(0, "unanswered requests and frame items of one tenant; 0: no limit")

    @property
    def devices(self) -> list[str]:
        """Those of a list in `device`, or the one."""
        return self.device.split(",")

    @classmethod
    def read(cls, arguments: Sequence[str], environment: Mapping[str, str]) -> Settings:
        """From the words after `cellkeeper-server serve`. Raises StartError; exits on --help and usage errors."""
        parser = argparse.ArgumentParser(prog="cellkeeper-server serve", description="Serves models until SIGTERM.")
        parser.add_argument("models", nargs="+", metavar="MODEL", help="folder of a model bundle")
        parser.allow_abbrev = False
        for item in _flags():
            name, text = "--" + item.name.replace("_", "-"), f"{item.metadata['help']} (default: {item.default})"
            text = text.replace("%", "%%")
            if isinstance(item.default, bool):
                parser.add_argument(name, action=argparse.BooleanOptionalAction, default=None, help=text)
            else:
                parser.add_argument(name, metavar="N" if isinstance(item.default, int) else "X", help=text)
        flags = vars(parser.parse_args(arguments))
        values: dict[str, Any] = {"models": tuple(flags["models"])}
        variables = _variables(environment)
        for item in _flags():
            flag, variable = "--" + item.name.replace("_", "-"), PREFIX + item.name.upper()
            if flags[item.name] is not None:
                values[item.name] = _typed(flag, flags[item.name], item.default)
            elif item.name in variables:
                values[item.name] = _typed(variable, variables[item.name], item.default)
        return cls(**values)

    def words(self) -> list[str]:
        """The settings as words for another `cellkeeper-server serve`, whose environment has no say any more.

        All but the store: its URL may hold a password, and everybody on the machine can read a process's words. It
        goes by its variable.
        """
        words = []
        for item in _flags():
            if item.name == "store":
                continue
            value, flag = getattr(self, item.name), item.name.replace("_", "-")
            if isinstance(value, bool):
                words.append(f"--{flag}" if value else f"--no-{flag}")
            else:
                words.append(f"--{flag}={value}")
        return [*words, "--", *self.models]


def split_address(address: str, flag: str) -> tuple[str, int]:
    """ "host:port" -> host and port. Raises StartError."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65535:
        raise StartError(f"{flag}: got {address!r}, expected host:port")
    return host.strip("[]"), int(port)


def _flags() -> list[Any]:
    return [item for item in fields(Settings) if item.default is not MISSING]


def _variables(environment: Mapping[str, str]) -> dict[str, str]:
    known = {PREFIX + item.name.upper(): item.name for item in _flags()}
    found = {}
    for variable, value in environment.items():
        if variable in known:
            found[known[variable]] = value
        elif variable.startswith(PREFIX) and variable not in CLIENT_VARIABLES:
            raise StartError(f"{variable}: no such setting; `cellkeeper-server serve --help` lists them")
    return found


def _typed(name: str, came: Any, default: Any) -> Any:
    """The value in the default's type."""
    if isinstance(default, bool):
        if isinstance(came, bool):
            return came
        if came.lower() in ("1", "true", "yes", "on", "0", "false", "no", "off"):
            return came.lower() in ("1", "true", "yes", "on")
        raise StartError(f"{name}: got {came!r}, expected true or false")
    if isinstance(default, int):
        least = 0 if name.lower().replace("-", "_").endswith(MAY_BE_ZERO) else 1
        if not came.isdecimal() or int(came) < least:
            raise StartError(f"{name}: got {came!r}, expected a whole number of {least} or more")
        if name.lower().replace("-", "_").endswith("ttl_ms") and int(came) > LONGEST_TTL_MS:
            raise StartError(f"{name}: got {came!r}, expected at most {LONGEST_TTL_MS} (ten years), or 0")
        return int(came)
    return came


MAY_BE_ZERO = (
    *("max_connection_rpcs", "default_ttl_ms", "wait_replicas", "retry_delay_ms", "drain_timeout_ms"),
    *("drain_delay_ms", "keep_versions", "arena_mib"),
    *("max_ttl_ms", "tenant_sessions", "tenant_steps_per_second", "tenant_inflight"),
)
