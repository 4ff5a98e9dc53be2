"""`python -m bench.gpu_served`: kills a server on the device twice under its clients, and checks every output.

The outputs are compared with an offline run on the same device, bit for bit. Prints a line of JSON; exits with 1 if one
differs.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from cellkeeper import Client
from cellkeeper_service.engine.load import load_engine, offline

from testing.bundles import Array, make_bundle
from testing.server_process import ServerProcess

FEATURES = 64
SESSIONS = 24
STEPS = 90
KILLED_AT = (30, 60)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu_served", description=__doc__)
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--precision", default="fp32")
    options = parser.parse_args()
    words = ["--device", options.device, "--precision", options.precision, "--max-batch", "32"]
    inputs = np.random.default_rng(5).standard_normal((STEPS, SESSIONS, FEATURES)).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        bundle = make_bundle(Path(folder) / "m", name="m", num_layers=2, hidden_size=128, input_size=FEATURES)
        begin = time.perf_counter()
        with ServerProcess([bundle], f"sqlite:{Path(folder) / 'store.db'}", words) as server:
            outputs = streamed(server, inputs)
            seconds = time.perf_counter() - begin
        engine = load_engine(bundle, options.device, 32, precision=options.precision)
        differing = [
            number
            for number in range(SESSIONS)
            if not np.array_equal(outputs[:, number], offline(engine, inputs[:, number])["prediction"])
        ]
    result = {"sessions": SESSIONS, "steps": STEPS, "kills": len(KILLED_AT), "differing": differing}
    print(json.dumps(result | {"seconds": round(seconds, 1), "numerics": engine.numerics}))
    sys.exit(bool(differing))


def streamed(server: ServerProcess, inputs: Array) -> Array:
    """Returns the outputs [T, B, units], from chunks of one and of several time steps."""
    parts = []
    with Client(server.target, timeout=60.0) as client:
        sessions = [client.session(f"s{number}") for number in range(SESSIONS)]
        at = 0
        while at < STEPS:
            steps = min(1 + at % 7, STEPS - at)
            if any(at <= kill < at + steps for kill in KILLED_AT):
                server.kill()
                server.restart()
            rows = [session.step(inputs[at : at + steps, number]) for number, session in enumerate(sessions)]
            parts.append(np.stack(rows, axis=1))
            at += steps
    return np.concatenate(parts)


if __name__ == "__main__":
    main()
