"""What one sentinel says about the primary that it monitors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from cellkeeper_service.store.redis.failures import Refused, text_of
from cellkeeper_service.store.redis.link import Link
from cellkeeper_service.store.redis.url import Address


class View(NamedTuple):
    """One sentinel's view of the primary.

    epoch: that of the configuration that names the address. down: the sentinels agree that it is down.
    """

    address: Address
    epoch: int
    down: bool


def ask_view(link: Link, service: str) -> View:
    """Asks a sentinel for its view. Raises StoreError if it does not answer, or does not monitor this service."""
    master, where = link.call(("SENTINEL", "MASTER", service), ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", service))
    for reply in (master, where):
        if isinstance(reply, Exception):
            raise Refused(f"it does not know {service!r} (sentinel monitor): {text_of(reply)}")
    if not where:
        raise Refused(f"it does not know {service!r} (sentinel monitor)")
    fields = _fields(master)
    address = Address(where[0].decode(), int(where[1]))
    # During a fail-over, the two replies may differ: MASTER still describes the old primary, flags included, while
    # GET-MASTER-ADDR-BY-NAME already names the new one.
    flagged = Address(fields.get("ip", ""), int(fields.get("port", "0")))
    down = flagged == address and "o_down" in fields.get("flags", "").split(",")
    return View(address, int(fields.get("config-epoch", "0")), down)


def replica_addresses(link: Link, service: str) -> list[Address]:
    """Returns the replicas that the sentinel believes to be running. Raises StoreError."""
    found = [_fields(replica) for replica in link.one("SENTINEL", "REPLICAS", service)]
    running = [fields for fields in found if "s_down" not in fields.get("flags", "").split(",")]
    return [Address(fields["ip"], int(fields["port"])) for fields in running]


def _fields(reply: Sequence[Any]) -> dict[str, str]:
    """Parses a reply of alternating names and values."""
    words = [word.decode(errors="replace") for word in reply]
    return dict(zip(words[::2], words[1::2], strict=True))
