"""The OpenAPI document of the routes."""

from __future__ import annotations

from typing import Any


def document(version: str) -> dict[str, Any]:
    return {"openapi": "3.1.0", "info": {"title": "Cellkeeper", "version": version}, "paths": {}}
