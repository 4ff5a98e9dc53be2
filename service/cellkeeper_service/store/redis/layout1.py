"""The elements of a record's list in Redis, layout 1, which is still read but no longer written.

A list is the packed header, the checkpoint, then one element per chunk. docs/adr/203 says what was wrong with it.
"""

from __future__ import annotations

from collections.abc import Sequence

from cellkeeper_service.domain.record import Record, SessionKey
from cellkeeper_service.domain.store import DamagedRecord
from cellkeeper_service.store.damage import damaged, read_record, reading


def read_elements(key: SessionKey, elements: Sequence[bytes]) -> Record | DamagedRecord:
    """Returns the record that a list holds, or what is wrong with it. A damaged record comes without its header,
    because it cannot be overwritten, only deleted."""
    if len(elements) < 2:
        return damaged(key, "it has a header but no checkpoint")
    found = reading(key, None, lambda: read_record(key, elements[0], elements[1], b"".join(elements[2:])))
    return DamagedRecord(str(found)) if isinstance(found, DamagedRecord) else found
