"""The token file: known callers, by the hash of a token or the name in a certificate, and each tenant's quota.

One entry per line; # starts a comment:

    token tenant=acme rights=step,read sha256=HEX [expires=2027-01-31T00:00:00Z]
    certificate tenant=acme rights=step name=pumps.acme.example [expires=...]
    quota tenant=acme [sessions=N] [steps_per_second=N] [inflight=N]

tenant: letters, digits, ".", "_" and "-"; empty for sessions that were made without tokens. rights: some of step, read
and admin. sha256: of the token's bytes. name: a DNS name, a URI or the common name in a client's certificate. expires:
a date and time with a time zone. The words of a quota are those of quotas.Quota; the server's defaults replace missing
ones.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from hashlib import sha256
from typing import TypeVar

from .quotas import Quota
from .rights import Grant, Right

K = TypeVar("K")
V = TypeVar("V")

MAX_ENTRIES = 100_000
PREFIX = "ck_"  # of every token, so that secret scanners recognize it
_TENANT = re.compile(r"[A-Za-z0-9._-]{0,64}")
_DIGEST = re.compile(r"[0-9a-fA-F]{64}")
_COUNT = re.compile(r"[0-9]{1,12}")  # an allowance computes with it in floats
_WORDS = {
    "token": ({"tenant", "rights", "sha256"}, {"expires"}),
    "certificate": ({"tenant", "rights", "name"}, {"expires"}),
    "quota": ({"tenant"}, {"sessions", "steps_per_second", "inflight"}),
}


class BadTokens(Exception):
    """The file is invalid. The message names the line, what came and what was expected, but never a token."""


@dataclass(frozen=True, slots=True)
class TokenTable:
    """The contents of the file at one reading. Immutable; each reading makes a new table."""

    by_digest: Mapping[bytes, Grant] = field(default_factory=dict)
    by_name: Mapping[str, Grant] = field(default_factory=dict)
    quotas: Mapping[str, Quota] = field(default_factory=dict)

    def of_token(self, token: str) -> Grant | None:
        """Looks a token up by its hash; None if it is unknown. The time taken can reveal at most something about the
        hash, and nobody can choose even its first byte except by trying random tokens."""
        return self.by_digest.get(sha256(token.encode("utf-8", "surrogateescape")).digest())

    def holds(self, grant: Grant) -> bool:
        """Returns True if the grant's entry still exists and is unchanged."""
        entry = grant.entry
        return (self.by_name.get(entry) if isinstance(entry, str) else self.by_digest.get(entry)) == grant


def read_table(text: str, default: Quota) -> TokenTable:
    """Parses the file. default: for what quota lines leave out. Raises BadTokens."""
    by_digest: dict[bytes, Grant] = {}
    by_name: dict[str, Grant] = {}
    quotas: dict[str, Quota] = {}
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        if len(by_digest) + len(by_name) + len(quotas) == MAX_ENTRIES:
            raise BadTokens(f"line {number}: got more than {MAX_ENTRIES} entries")
        try:
            if any(word.startswith(PREFIX) for word in words):  # nothing of it is shown
                raise BadTokens(
                    "got a token itself, expected its line, which `cellkeeper-server token new` prints to stdout"
                )
            kind, values = words[0], _values(words)
            if kind == "quota":
                _put(quotas, values["tenant"], _quota(values, default), "tenant", values["tenant"])
            elif kind == "token":
                digest = values["sha256"]
                if not _DIGEST.fullmatch(digest):
                    raise BadTokens(f"sha256: got {len(digest)} characters, expected 64 hexadecimal digits")
                grant = _grant(values, bytes.fromhex(digest))
                _put(by_digest, bytes.fromhex(digest), grant, "sha256", f"{digest[:8].lower()}...")
            else:
                _put(by_name, values["name"], _grant(values, values["name"]), "name", values["name"])
        except BadTokens as error:
            raise BadTokens(f"line {number}: {error}") from None
    return TokenTable(by_digest, by_name, quotas)


def _values(words: list[str]) -> dict[str, str]:
    kind = words[0]
    if kind not in _WORDS:
        raise BadTokens(f"got an entry that begins with {kind[:20]!r}, expected {', '.join(_WORDS)}")
    needed, further = _WORDS[kind]
    values: dict[str, str] = {}
    for word in words[1:]:
        name, equals, value = word.partition("=")
        if not equals or name not in needed | further or name in values:
            known = ", ".join(sorted(needed | further))
            raise BadTokens(f"{kind}: got the word {name[:20]!r}, expected each of {known} once, as name=value")
        values[name] = value
    if missing := sorted(needed - set(values)):
        raise BadTokens(f"{kind}: got no {missing[0]}=")
    # a script may write one from a variable that is not set; certificates without a common name have the name ""
    for name in ("name", "expires"):
        if values.get(name) == "":
            expected = "one" if name in needed else "one, or no such word"
            raise BadTokens(f"{name}: got no value, expected {expected}")
    check_tenant(values["tenant"])
    return values


def _grant(values: Mapping[str, str], entry: bytes | str) -> Grant:
    return Grant(values["tenant"], read_rights(values["rights"]), entry, read_time(values.get("expires", "")))


def check_tenant(text: str) -> None:
    """Raises BadTokens if it cannot be a tenant's name."""
    if not _TENANT.fullmatch(text):
        raise BadTokens(f"tenant: got {text!r}, expected up to 64 of letters, digits, '.', '_', '-'")


def read_rights(text: str) -> frozenset[Right]:
    """Parses rights such as "step,read". Raises BadTokens."""
    try:
        return frozenset(Right(word) for word in text.split(","))
    except ValueError:
        known = ", ".join(right.value for right in Right)
        raise BadTokens(f"rights: got {text!r}, expected some of {known}, comma-separated") from None


def read_time(text: str) -> float:
    """Returns the unix seconds of a time such as "2027-01-31T00:00:00Z"; infinity if it is empty. Raises BadTokens."""
    if not text:
        return float("inf")
    try:
        found = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        found = None
    # datetime accepts any character before the time, also one that ends a word of the file, or begins a comment
    if found is None or found.tzinfo is None or not text.isprintable() or set(text) & {" ", "#"}:
        raise BadTokens(f"expires: got {text!r}, expected a date and time with its zone, such as 2027-01-31T00:00:00Z")
    return found.timestamp()


def _quota(values: Mapping[str, str], default: Quota) -> Quota:
    counts = {}
    for name in ("sessions", "steps_per_second", "inflight"):
        if name in values:
            if not _COUNT.fullmatch(values[name]):
                came = values[name][:20]
                raise BadTokens(f"{name}: got {came!r}, expected a whole number of up to 12 digits; 0: no limit")
            counts[name] = int(values[name])
    return replace(default, **counts)


def _put(entries: dict[K, V], key: K, value: V, what: str, shown: str) -> None:
    if key in entries:
        raise BadTokens(f"{what}: got {shown} in two entries, expected one")
    entries[key] = value
