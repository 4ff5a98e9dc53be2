"""What of torch is not public, in one place. The names may change with any release."""

from __future__ import annotations

from torch._decomp import get_decompositions
from torch.utils import _pytree as tree
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["CONV_FORWARD", "TorchDispatchMode", "get_decompositions", "tree"]

CONV_FORWARD = "_conv_forward"
"""The method of nn.Conv1d that its forward calls with the input, the weight and the bias. Classes derived from it
call it, too, after padding in a forward of their own."""
