"""Targets: what a client may connect to, and how."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable

from .._session.arguments import invalid
from ..errors import InvalidArgument

EXPECTED = 'host:port, as in "localhost:50051"'
_HOST_PORT = re.compile(r"(?P<host>\[[0-9A-Fa-f:.%]+\]|[^\s:/\\\[\]@?#]+):(?P<port>[0-9]{1,5})")
_SCHEMES = ("ipv4:", "ipv6:", "unix:", "unix-abstract:", "vsock:", "xds:")  # gRPC's schemes other than dns:


def checked_targets(given: object) -> tuple[str, ...]:
    """Returns the targets without duplicates. given: one, or several.

    Raises InvalidArgument, which names the malformed one: gRPC would look up a host of that name, or connect to port
    443, until the deadline.
    """
    if isinstance(given, str):
        return (checked_target(given),)
    if not isinstance(given, Iterable):
        raise _wrong(given)
    targets = tuple(dict.fromkeys(checked_target(target) for target in given))
    if not targets:
        raise invalid("target", "none", "at least one host:port")
    return targets


def checked_target(target: object) -> str:
    """Returns the target. Raises InvalidArgument."""
    if not isinstance(target, str):
        raise _wrong(target)
    if target.startswith(_SCHEMES):
        return target
    if re.match(r"(https?|grpcs?)://", target):
        raise _wrong(target, "without a scheme; for TLS pass tls=True (--tls)")
    found = _HOST_PORT.fullmatch(_without_resolver(target))
    if found is None:
        raise _wrong(target)
    if not 1 <= int(found["port"]) <= 65535:
        raise _wrong(target, "with a port of 1..65535")
    return target


def is_loopback(target: str) -> bool:
    """Returns True if the target is this machine, by name or address."""
    if target.startswith(("unix:", "unix-abstract:")):
        return True
    found = _HOST_PORT.fullmatch(_without_resolver(target.removeprefix("ipv4:").removeprefix("ipv6:")))
    host = (found["host"] if found is not None else target).strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def proxy_options(target: str) -> tuple[tuple[str, int], ...]:
    """Ignores the environment's proxy ($http_proxy, $grpc_proxy) for loopback targets; it is for other machines."""
    return (("grpc.enable_http_proxy", 0),) if is_loopback(target) else ()


def _without_resolver(target: str) -> str:
    """Strips the name of gRPC's resolver and its name server, as in dns://8.8.8.8/host:port."""
    return re.sub(r"^dns:(//[^/]*/)?", "", target)


def _wrong(target: object, more: str = "") -> InvalidArgument:
    return invalid("target", repr(target), f"{EXPECTED}, {more}" if more else EXPECTED)
