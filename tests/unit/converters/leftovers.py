"""What a refused import must not leave behind."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cellkeeper_service.converters import ImportRefused


def refused(folder: Path, words: str, call: Callable[..., Any], *arguments: Any, **options: Any) -> ImportRefused:
    """Calls, and expects ImportRefused with one short line that matches `words`, and no new file in `folder`."""
    before = sorted(folder.iterdir())
    with pytest.raises(ImportRefused) as caught:
        call(*arguments, **options)
    text = str(caught.value)
    assert re.search(words, text), text
    assert len(text.splitlines()) == 1
    assert len(text) < 1000
    assert sorted(folder.iterdir()) == before
    return caught.value
