"""Which node of a Redis Cluster has which slots, as seen by one node."""

from __future__ import annotations

from typing import Any, NamedTuple

from redis.crc import key_slot

from .keys import BUCKETS
from .url import Address

SLOT_OF_BUCKET = tuple(key_slot(b"{%03d}" % bucket) for bucket in range(BUCKETS))
OUR_SLOTS = frozenset(SLOT_OF_BUCKET)


class Slots(NamedTuple):
    """One node's view of the cluster.

    owners: the primary of each slot that one of our buckets is in, if it has one.
    primaries, replicas: every node that CLUSTER SLOTS names, by id, which is 40 hexadecimal digits.
    """

    owners: dict[int, Address]
    primaries: dict[str, Address]
    replicas: dict[str, Address]


def read_slots(reply: Any, asked: Address) -> Slots:
    """Reads the reply to CLUSTER SLOTS. A node without a host is at the host that was asked."""
    slots = Slots({}, {}, {})
    for first, last, *nodes in reply:
        addresses = [_address(node, asked) for node in nodes]
        for number, (node, address) in enumerate(zip(nodes, addresses, strict=True)):
            known = slots.replicas if number else slots.primaries
            known[node[2].decode()] = address
        slots.owners.update({slot: addresses[0] for slot in OUR_SLOTS if first <= slot <= last})
    return slots


def _address(node: Any, asked: Address) -> Address:
    host = node[0].decode() if node[0] else ""
    return Address(host or asked.host, int(node[1]))


class Standing(NamedTuple):
    """What a node says about itself, in the same round trip as other replies."""

    process: str  # identifies one run of the server process, in which alone SCAN's cursors are valid
    settled: frozenset[int]  # the slots that it owns and is not migrating away


STANDING_COMMANDS = (("INFO", "server"), ("CLUSTER", "NODES"))


def read_standing(info: dict[str, str], nodes: bytes) -> Standing:
    """Reads the replies to STANDING_COMMANDS. A replica, or a node that has left the cluster, owns nothing."""
    settled: set[int] = set()
    for line in nodes.decode(errors="replace").splitlines():
        words = line.split()
        flags = words[2].split(",") if len(words) > 2 else []
        if "myself" not in flags or "master" not in flags:
            continue
        moving = set()
        for word in words[8:]:
            if word.startswith("["):
                slot, arrow, _ = word[1:].partition("->-")
                moving |= {int(slot)} if arrow else set()
            else:
                first, _, last = word.partition("-")
                settled |= set(range(int(first), int(last or first) + 1))
        settled -= moving
    return Standing(info.get("run_id", ""), frozenset(settled))
