"""Opens the store that the settings name, without ever showing its password."""

from __future__ import annotations

import re

from cellkeeper_service.domain.store import Store, StoreError
from cellkeeper_service.errors import StartError
from cellkeeper_service.server.config import Settings
from cellkeeper_service.store.open import open_store


def make_store(settings: Settings) -> Store:
    """Opens and checks the store. Raises StartError."""
    try:
        store = open_store(settings.store, timeout_ms=settings.store_timeout_ms, wait_replicas=settings.wait_replicas)
    except StoreError as error:
        raise StartError(without_secrets(str(error), settings.store)) from error
    try:
        store.check()
    except StoreError as error:
        store.close()
        raise StartError(without_secrets(str(error), settings.store)) from error
    return store


def without_secrets(text: str, url: str) -> str:
    """Returns the text without the user and the password of a store's URL."""
    scheme, _, rest = url.partition(":")
    secrets = rest.lstrip("/").rpartition("@")[0]
    if scheme == "sqlite":
        return text
    text = re.sub(r"(password=)[^&\s'\"]+", r"\1***", text)
    return text.replace(secrets, "***").replace(repr(secrets)[1:-1], "***") if secrets else text
