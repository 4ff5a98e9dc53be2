"""Names that users put into their own files: metrics in dashboards and alerts, settings in manifests."""

from __future__ import annotations

from dataclasses import fields
from typing import NamedTuple

from cellkeeper_service.metrics import PrometheusMeter
from cellkeeper_service.server.config import Settings


class Names(NamedTuple):
    """metrics: the type of each family, by its name. settings: as fields of `Settings`."""

    metrics: dict[str, str]
    settings: list[str]


def names() -> Names:
    families = PrometheusMeter().registry.collect()
    return Names(
        {family.name: family.type for family in sorted(families, key=lambda family: family.name)},
        sorted(field.name for field in fields(Settings)),
    )
