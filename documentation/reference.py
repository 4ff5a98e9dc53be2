"""The pages that are made from the code, each with the function that makes it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from .bundle_config_page import bundle_config_page, schema_file
from .commands_page import commands_page
from .contract_page import contract_page, kserve_page
from .metrics_page import metrics_page
from .reasons_page import reasons_page
from .settings_page import settings_page

FOLDER = Path(__file__).parents[1] / "docs" / "reference"
COMMAND = "make reference"

FILES: dict[str, Callable[[], str]] = {
    "settings.md": settings_page,
    "config-json.md": bundle_config_page,
    "config.schema.json": schema_file,
    "commands.md": commands_page,
    "contract.md": contract_page,
    "kserve.md": kserve_page,
    "reasons.md": reasons_page,
    "metrics.md": metrics_page,
}
