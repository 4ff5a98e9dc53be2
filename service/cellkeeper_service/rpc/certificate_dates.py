"""When a certificate is valid. Python's ssl tells it only of a peer's certificate that it has verified."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from datetime import datetime, timezone
from typing import NamedTuple

_END = "-----END CERTIFICATE-----"
_SEQUENCE, _VERSION, _UTC_TIME, _GENERALIZED_TIME = 0x30, 0xA0, 0x17, 0x18


class Dates(NamedTuple):
    """Unix times in seconds."""

    not_before: float
    not_after: float


def dates_of(pem: str) -> Dates:
    """Returns the dates of the first certificate in a PEM file: the server's own, before its chain.

    Raises ValueError if there is none, or if it cannot be read.
    """
    start, end = pem.find("-----BEGIN CERTIFICATE-----"), pem.find(_END)
    if start < 0 or end < start:
        raise ValueError("it has no certificate in PEM")
    # RFC 5280: Certificate {tbsCertificate {[0] version, serialNumber, signature, issuer, validity {...}, ...}, ...}
    try:
        certificate = ssl.PEM_cert_to_DER_cert(pem[start : end + len(_END)])
        ((_, outer),) = _elements(certificate)
        signed = list(_elements(next(_elements(outer))[1]))
        kind, validity = signed[4 if signed[0][0] == _VERSION else 3]
        if kind != _SEQUENCE:
            raise ValueError(f"got the type {kind:#x} for its validity, expected a sequence")
        first, last = (_time(kind, value) for kind, value in _elements(validity))
    except (IndexError, StopIteration) as error:
        raise ValueError("its certificate ends too early") from error
    return Dates(first, last)


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yields the type and the contents of each DER element. Raises IndexError or ValueError for broken data."""
    at = 0
    while at < len(data):
        kind, length = data[at], data[at + 1]
        at += 2
        if length & 0x80:  # the length has as many bytes as the other bits say
            size = length & 0x7F
            length = int.from_bytes(data[at : at + size], "big")
            at += size
        if at + length > len(data):
            raise ValueError("its certificate is cut off")
        yield kind, data[at : at + length]
        at += length


def _time(kind: int, value: bytes) -> float:
    text = value.decode("ascii")
    if kind == _UTC_TIME:  # two digits of the year, 1950 to 2049
        text = ("19" if text >= "50" else "20") + text
    elif kind != _GENERALIZED_TIME:
        raise ValueError(f"got the type {kind:#x} for a time")
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=timezone.utc).timestamp()
