"""The interpreter refuses what a device would compute without a word: integers that do not fit."""

from __future__ import annotations

import pytest
import torch

from . import probe
from .interpreter import INTERPRETED

pytestmark = pytest.mark.skipif(not INTERPRETED, reason="a device computes modulo 2**32")


def test_a_product_of_integers_that_does_not_fit_is_refused() -> None:
    out = torch.zeros(1, dtype=torch.int32)
    probe.product[(1,)](torch.tensor([2**16, 2**15 - 1], dtype=torch.int32), out)
    assert out.item() == 2**31 - 2**16
    with pytest.raises(Exception, match=r"mul of int32: 2147483648 to 2147483648"):
        probe.product[(1,)](torch.tensor([2**16, 2**15], dtype=torch.int32), out)
