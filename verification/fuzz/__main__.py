"""python -m verification.fuzz --cases 100000 [--seed N]: sends hostile calls, and reads hostile bundles and imports."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time

from verification.load.report import finish

from .bundle_cases import fuzz_bundles
from .import_cases import fuzz_imports
from .run import fuzz


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m verification.fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 2**32)
    words = parser.parse_args()
    print(f"seed {words.seed}", flush=True)
    figures, violations = asyncio.run(fuzz(words.cases, words.seed))
    bundle_figures, bundle_violations = fuzz_bundles(max(words.cases // 10, 1), words.seed)
    import_figures, import_violations = fuzz_imports(max(words.cases // 10, 1), words.seed)
    figures |= {**bundle_figures, **import_figures}
    return finish(figures, [*violations, *bundle_violations, *import_violations])


if __name__ == "__main__":
    sys.exit(main())
