"""The modules of torch that are not public, in one place. Their names may change with any release."""

from __future__ import annotations

from torch._decomp import get_decompositions
from torch.utils import _pytree as tree
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["TorchDispatchMode", "get_decompositions", "tree"]
