"""The process's limit on open files, which also bounds the connections that it can accept.

A process that has reached it can open no file of its store and answer no probe, so that Kubernetes would kill it.
Therefore clients' connections may take only what the server itself does not need.
"""

from __future__ import annotations

import logging

from cellkeeper_service.errors import StartError
from cellkeeper_service.metrics.server import MOST_CONNECTIONS
from cellkeeper_service.server.config import Settings

try:
    import resource
except ImportError:  # Windows has no such limit
    resource = None  # type: ignore[assignment]

log = logging.getLogger(__name__)

OWN_FILES = 64
"""Libraries, the event loop, listeners, pipes, and files that are read again: about 30 when a server has started."""
FILES_OF_A_STORE_THREAD = 4
LEAST_CONNECTIONS = 16


def allow_connections(settings: Settings) -> int:
    """Raises the soft limit on open files as far as the settings need it and the hard limit allows it.

    Returns how many connections --listen may accept: settings.max_connections, or what the limit leaves for them.
    Raises StartError if it leaves less than LEAST_CONNECTIONS.
    """
    if resource is None:
        return settings.max_connections
    own = OWN_FILES + FILES_OF_A_STORE_THREAD * settings.store_threads + MOST_CONNECTIONS
    if settings.http_listen:
        own += settings.max_http_connections
    limit = _raise(own + settings.max_connections)
    least = own + min(LEAST_CONNECTIONS, settings.max_connections)
    if limit < least:
        raise StartError(
            f"open files: got a limit of {limit}, expected at least {least} with these settings; raise it with ulimit "
            f"-n, LimitNOFILE= of systemd or --ulimit nofile= of docker"
        )
    if limit < own + settings.max_connections:
        log.warning(
            "open files: a limit of %d allows %d connections, not the %d of --max-connections; the server itself needs "
            "the other %d",
            limit,
            limit - own,
            settings.max_connections,
            own,
        )
    return min(limit - own, settings.max_connections)


def _raise(wanted: int) -> int:
    """Raises the soft limit to `wanted`, or to the hard limit if that is less. Returns the soft limit; never lowers
    it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return wanted
    if soft < wanted:
        raised = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
        except (OSError, ValueError):  # the system has a limit of its own below the hard one
            return soft
        return raised
    return soft
