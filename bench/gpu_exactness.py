"""`python -m bench.gpu_exactness`: loads models of several sizes in every precision, as a server does. Each has its
trial: the same bits in any batch, place and chunking. A line of JSON for each; exits with 1 where one is not exact."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from cellkeeper_service.engine.load import load_engine
from cellkeeper_service.engine.precision import PRECISIONS
from cellkeeper_service.model.bundle import read_bundle

from tests.bundles import make_bundle

MODELS: dict[str, dict[str, Any]] = {
    "2x128": {"num_layers": 2, "hidden_size": 128, "input_size": 32},
    "2x512": {"num_layers": 2, "hidden_size": 512, "input_size": 64},
    "1x1024": {"hidden_size": 1024, "input_size": 64},
    "1x64": {"hidden_size": 64, "input_size": 10},
    "gru 2x128": {"cell": "gru", "num_layers": 2, "hidden_size": 128, "input_size": 32},
    "projection 2x128 to 48": {"num_layers": 2, "hidden_size": 128, "proj_size": 48, "input_size": 32},
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu_exactness", description=__doc__)
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--max-batch", type=int, default=256)
    options = parser.parse_args()
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        for precision in PRECISIONS:
            for name, config in MODELS.items():
                path = Path(folder) / f"{name}-{precision}"
                bundle = read_bundle(make_bundle(path, name=name.replace(" ", "-"), head=(4,), **config))
                begin = time.perf_counter()
                engine = load_engine(bundle, options.device, options.max_batch, precision=precision)
                result = {
                    "model": name,
                    "precision": precision,
                    "exact": engine.exact and "min_batch=1" in engine.numerics,
                    "tolerance": engine.tolerance,
                    "load_seconds": round(time.perf_counter() - begin, 2),
                    "numerics": engine.numerics,
                }
                failed |= not result["exact"]
                print(json.dumps(result), flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
