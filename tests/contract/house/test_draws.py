"""Tests draw the same in every run; see testing/fixtures.py."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from testing.fixtures import SEED


@pytest.fixture
def drawn_before() -> float:
    return random.random()


@pytest.mark.parametrize("run", [1, 2])
def test_a_test_draws_the_same_in_every_run(run: int, drawn_before: float) -> None:
    expected = random.Random(SEED).random()
    assert (drawn_before, random.random()) == (expected, expected)
    assert np.random.random() == np.random.RandomState(SEED).random_sample()
    assert torch.equal(torch.rand(3), torch.rand(3, generator=torch.Generator().manual_seed(SEED)))
