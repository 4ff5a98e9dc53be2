"""The server's settings, from flags or from CELLKEEPER_* variables of the same names. Unknown ones are refused."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields
from functools import partial
from typing import Any

from cellkeeper_service.command_line import Parser
from cellkeeper_service.domain.clock import LONGEST_TTL_MS
from cellkeeper_service.errors import StartError
from cellkeeper_service.server.setting import MOST_BYTES, Group, setting, setting_of, whole_number

PREFIX = "CELLKEEPER_"
MOST_PORT = 65535
MOST_THREADS = 1024  # and processes: more are a mistake, which would take the machine with it
STORE_VARIABLE = "CELLKEEPER_STORE"
CLIENT_VARIABLES = {
    "CELLKEEPER_ENDPOINT",
    "CELLKEEPER_TOKEN",
    "CELLKEEPER_TOKEN_FILE",
    "CELLKEEPER_CA_FILE",
    "CELLKEEPER_CERT_FILE",
    "CELLKEEPER_KEY_FILE",
}


serving = partial(setting, Group.SERVING)
storing = partial(setting, Group.STORE)
limit = partial(setting, Group.LIMITS)
security = partial(setting, Group.SECURITY)
protection = partial(setting, Group.SECURITY, "", protects=True)
lifecycle = partial(setting, Group.LIFECYCLE)
logs = partial(setting, Group.LOGS)
ttl = partial(setting, most=LONGEST_TTL_MS, most_means=" (ten years)")


@dataclass(frozen=True, slots=True)
class Settings:
    """Each field except `models` is a flag of its name and a variable CELLKEEPER_<NAME>; the flag takes precedence."""

    models: tuple[str, ...]

    listen: str = serving(
        "127.0.0.1:50051", "host:port of the gRPC service; without a host, all addresses; port 0 takes a free one"
    )
    metrics_listen: str = serving("127.0.0.1:9464", "host:port of /metrics, /healthz and /readyz")
    http_listen: str = serving(
        "",
        "host:port of the console and its JSON API (docs/http.md); port 0 takes a free one. An address that other "
        "machines can reach needs --tokens or --tls-client-ca",
    )
    kserve: str = serving(
        "off",
        "on or off: also serve KServe's and Triton's protocol, on the same port (docs/triton.md)",
        choices=("on", "off"),
    )
    kserve_end_ttl_ms: int = ttl(
        Group.SERVING, 60_000, "how long a sequence is kept after its END, which may be retried", least=1
    )
    kserve_names: str = serving("", "tensor names for KServe clients: MODEL/NAME=TENSOR, comma-separated")
    kserve_layout: str = serving(
        "",
        "dimensions of KServe clients' tensors: MODEL=batch, no_batch (max_batch_size 0) or one_step, comma-separated",
    )
    device: str = serving("auto", "cpu, cuda:N, or auto; cuda:0,cuda:1 starts processes for each")
    precision: str = serving(
        "fp32",
        "precision of products on a GPU: fp32, tf32 or bf16; sums and states are always float32",
        choices=("fp32", "tf32", "bf16"),
    )
    workers: int = serving(
        1, "server processes per device, all on the same port; they share only the store", most=MOST_THREADS
    )
    threads: int = serving(1, "threads of one engine call on the CPU", most=MOST_THREADS)
    max_batch: int = serving(256, "sessions in one engine call", most=65_536)
    max_slice_steps: int = serving(16, "a longer chunk is computed in slices of this many time steps")
    max_long_steps: int = serving(512, "time steps of such slices in one tick, summed over sessions")
    trial_call_ms: int = serving(30_000, "time limit for each trial call of an ONNX graph at load")
    arena_mib: int = serving(
        0,
        "memory for the hot states of all models; 0: 256 in the host's memory, half of the free memory on a GPU",
        least=0,
    )
    accept_other_numerics: bool = serving(False, "continue sessions that another kind of engine computed")

    store: str = storing(
        "sqlite:cellkeeper-data/sessions.db",
        "sqlite:PATH, redis://HOST:PORT/DB, redis+cluster://HOST:PORT,HOST:PORT, "
        "redis+sentinel://HOST:PORT,HOST:PORT/SERVICE or memory:",
    )
    store_timeout_ms: int = storing(1000, "how long the store may take to answer before it counts as lost")
    store_threads: int = storing(4, "concurrent store calls", most=MOST_THREADS)
    wait_replicas: int = storing(0, "Redis replicas that must have a commit before it is acknowledged", least=0)
    max_replay_steps: int = storing(64, "logged steps after which a checkpoint is due; 1 writes the state each time")
    max_log_steps: int = storing(
        4096, "maximum time steps in a session's input log; must be at least twice max_chunk_steps"
    )
    max_log_bytes: int = storing(
        32 * 1024 * 1024,
        "maximum bytes of inputs in a session's input log; must be at least twice max_message_bytes",
        most=MOST_BYTES,
    )
    default_ttl_ms: int = ttl(Group.STORE, 0, "new sessions expire when idle this long; 0: never", least=0)
    max_ttl_ms: int = ttl(Group.STORE, 0, "longest idle TTL that a session may ask for; 0: no limit", least=0)

    max_chunk_steps: int = limit(1024, "time steps in one chunk")
    max_frame_items: int = limit(
        1024, "sessions in one frame, items in one request; at most one for every 512 bytes of max_message_bytes"
    )
    max_stream_frames: int = limit(64, "unanswered frames of one stream; further ones wait until some are answered")
    max_rpcs: int = limit(10_000, "RPCs in progress, streams included")
    max_unread_rpcs: int = limit(
        4096,
        "RPCs whose message has not arrived; beyond that, the connection with the most of them loses one. At most "
        "max_request_bytes / max_message_bytes of them may take longer than 0.3 s",
    )
    max_connection_rpcs: int = limit(
        256,
        "RPCs in progress on one connection, streams included; the client queues further ones. 0: no limit",
        least=0,
    )
    max_message_bytes: int = limit(
        16 * 1024 * 1024,
        "bytes of one gRPC message, either way",
        least=4100,  # catalog.REST_BYTES, and a float
    )
    max_http_body_bytes: int = limit(
        1024 * 1024,
        "bytes of one JSON body or WebSocket message of a client, at most max_message_bytes; parsing blocks all other "
        "requests, for 10 to 100 ms per MiB",
    )
    max_connections: int = limit(8192, "connections to --listen; at most what the limit on open files allows")
    max_http_connections: int = limit(1024, "connections to --http-listen")
    max_requests: int = limit(65536, "unanswered requests and frame items")
    max_request_bytes: int = limit(512 * 1024 * 1024, "inputs and outputs of unanswered requests", most=MOST_BYTES)
    max_session_requests: int = limit(1024, "waiting requests of one session")
    ping_ms: int = limit(
        120_000,
        "time between two pings on a connection over which nothing comes, so that firewalls do not forget it; a client "
        "that does not answer within half of it is disconnected",
    )
    message_timeout_ms: int = limit(10_000, "time from the start of a call to its message, or to a stream's first one")
    default_timeout_ms: int = limit(30_000, "time limit of requests without a deadline")
    retry_delay_ms: int = limit(
        200,
        "retry delay advised to clients while the store is unavailable or a queue is full",
        least=0,
    )

    tls_cert: str = protection("PEM file of the server's certificate and its chain; read again when it changes")
    tls_key: str = protection("PEM file of its key")
    tls_client_ca: str = protection("PEM file of the CAs for client certificates, which clients must then present")
    tokens: str = protection("file of tokens, tenants and quotas (docs/security.md); read again when it changes")
    insecure_listen: bool = security(False, "serve --listen to other machines without authentication, with all rights")
    tenant_sessions: int = security(0, "sessions that a tenant uses within max_ttl_ms; 0: no limit", least=0)
    tenant_steps_per_second: int = security(0, "time steps per second of one tenant; 0: no limit", least=0)
    tenant_inflight: int = security(0, "unanswered requests and frame items of one tenant; 0: no limit", least=0)

    keep_versions: int = lifecycle(
        2,
        "replaced versions of a model that stay served for their sessions after a reload",
        least=0,
    )
    drain_delay_ms: int = lifecycle(
        0,
        "after SIGTERM, how long the server keeps serving while it reports not ready, so that load balancers notice",
        least=0,
    )
    drain_timeout_ms: int = lifecycle(
        20_000, "after SIGTERM, how long the server waits for requests in progress", least=0
    )

    log_format: str = logs("text", "text, or json: one object per line", choices=("text", "json"))
    log_level: str = logs("info", "debug, info, warning or error", choices=("debug", "info", "warning", "error"))
    tracing: str = logs(
        "auto", "otlp, none, or auto: otlp if OTEL_* variables say so", choices=("auto", "otlp", "none")
    )

    @property
    def devices(self) -> list[str]:
        """The devices that `device` lists."""
        return self.device.split(",")

    @classmethod
    def read(cls, arguments: Sequence[str], environment: Mapping[str, str]) -> Settings:
        """Reads the words after `cellkeeper-server serve`. Raises StartError; exits on --help and usage errors."""
        flags = vars(serve_parser().parse_args(arguments))
        values: dict[str, Any] = {"models": tuple(flags["models"])}
        variables = _variables(environment)
        for item in setting_fields():
            flag, variable = flag_of(item), variable_of(item)
            if isinstance(flags[item.name], bool):
                values[item.name] = flags[item.name]
            elif flags[item.name] is not None:
                values[item.name] = setting_of(item).read(flag, flags[item.name], type(item.default))
            elif item.name in variables:
                values[item.name] = setting_of(item).read(variable, variables[item.name], type(item.default))
        return cls(**values)

    def check(self) -> None:
        """Raises StartError for settings that do not go together."""
        if self.max_log_steps < 2 * self.max_chunk_steps:
            raise StartError(
                f"max_log_steps: got {self.max_log_steps}, expected at least twice max_chunk_steps "
                f"({self.max_chunk_steps})"
            )
        if self.max_log_bytes < 2 * self.max_message_bytes:
            raise StartError(
                f"max_log_bytes: got {self.max_log_bytes}, expected at least twice max_message_bytes "
                f"({self.max_message_bytes}), so that a chunk fits"
            )
        for name in ("kserve_names", "kserve_layout"):
            if (given := getattr(self, name)) and self.kserve == "off":
                raise StartError(f"{name}: got {given!r}, expected none without --kserve on")

    def words(self) -> list[str]:
        """Returns the settings as words for another `cellkeeper-server serve`, whatever its environment says.

        The store is the exception: its URL may contain a password, and everybody on the machine can read a process's
        arguments. It is passed in its variable. What is empty by default and as given is left out.
        """
        words = []
        for item in setting_fields():
            value, flag = getattr(self, item.name), flag_of(item)
            if item.name == "store" or value == item.default == "":
                continue
            if isinstance(value, bool):
                words.append(flag if value else f"--no-{flag[2:]}")
            else:
                words.append(f"{flag}={value}")
        return [*words, "--", *self.models]


def split_address(address: str, flag: str) -> tuple[str, int]:
    """Splits "host:port" into host and port. Raises StartError."""
    host, colon, port = address.rpartition(":")
    number = whole_number(port, MOST_PORT)
    if not colon or number is None or number > MOST_PORT:
        raise StartError(f"{flag}: got {address!r}, expected host:port, with a port of up to {MOST_PORT}")
    bare = host.removeprefix("[").removesuffix("]")
    if ":" in bare and host != f"[{bare}]":  # gRPC would take the port for a part of the address
        raise StartError(f"{flag}: got {address!r}, expected an IPv6 address in brackets, as in [::1]:50051")
    return bare, number


def setting_fields() -> list[Field[Any]]:
    """Returns the fields of Settings that are settings: all but `models`. `setting_of` returns each one's Setting."""
    return [item for item in fields(Settings) if item.default is not MISSING]


def flag_of(item: Field[Any]) -> str:
    """Returns the field's flag, such as "--max-batch"."""
    return "--" + item.name.replace("_", "-")


def variable_of(item: Field[Any]) -> str:
    """Returns the field's variable, such as "CELLKEEPER_MAX_BATCH"."""
    return PREFIX + item.name.upper()


def serve_parser() -> argparse.ArgumentParser:
    """Returns the command-line parser of `cellkeeper-server serve`."""
    parser = Parser(prog="cellkeeper-server serve", description="Serves models until SIGTERM.", allow_abbrev=False)
    parser.add_argument("models", nargs="+", metavar="MODEL", help="folder of a model bundle")
    groups = {group: parser.add_argument_group(group.value) for group in Group}
    for item in setting_fields():
        name, asked = flag_of(item), setting_of(item)
        text = f"{asked.help} (default: {'none' if item.default == '' else item.default})".replace("%", "%%")
        if isinstance(item.default, bool):
            groups[asked.group].add_argument(name, action=argparse.BooleanOptionalAction, default=None, help=text)
        else:
            metavar = "N" if isinstance(item.default, int) else "X"
            groups[asked.group].add_argument(name, metavar=metavar, help=text)
    return parser


def _variables(environment: Mapping[str, str]) -> dict[str, str]:
    known = {variable_of(item): item.name for item in setting_fields()}
    found = {}
    for variable, value in environment.items():
        if variable in known:
            found[known[variable]] = value
        elif variable.startswith(PREFIX) and variable not in CLIENT_VARIABLES:
            raise StartError(f"{variable}: no such setting; `cellkeeper-server serve --help` lists them")
    return found
