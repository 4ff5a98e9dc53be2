from __future__ import annotations

import os
import secrets

import pytest

SEED_VARIABLE = "ACCEPTANCE_SEED"


@pytest.fixture
def seed(request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> int:
    """Seeds everything that a test draws. It is always printed.

    ACCEPTANCE_SEED=N repeats a run, as far as timing allows.
    """
    number = int(os.environ.get(SEED_VARIABLE) or secrets.randbelow(1 << 32))
    with capsys.disabled():
        print(f"\n{request.node.name}: {SEED_VARIABLE}={number}")
    return number
