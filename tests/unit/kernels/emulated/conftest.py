from __future__ import annotations

from ..ptx import EMULATED

collect_ignore_glob = [] if EMULATED else ["test_*.py"]
