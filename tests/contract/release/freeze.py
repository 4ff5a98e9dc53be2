"""Writes the files of a release: `python -m tests.contract.release.freeze v0_1_0`.

Run it once, on the released commit. The files are never written again, because later releases have to read them.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sqlite3
import tempfile
from pathlib import Path

import numpy as np
import redis
from cellkeeper_proto.kserve import inference_pb2
from cellkeeper_proto.v1 import cellkeeper_pb2
from cellkeeper_service.engine.load import offline
from cellkeeper_service.model.bundle import read_bundle
from cellkeeper_service.model.config import Dense
from cellkeeper_service.model.write import write_bundle
from cellkeeper_service.store.open import open_store
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from testing.bundles import make_bundle, random_inputs
from tests.contract.golden.recording import BUNDLE, record
from tests.contract.release.client_calls import client_calls
from tests.contract.release.frozen import RELEASES, records, redis_lines, spelled
from tests.contract.release.names import names
from tests.unit.converters.small_graphs import FEATURES, STEP, graph, node

STEPS = 6


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.contract.release.freeze", description=__doc__)
    parser.add_argument("release", help="the name of its folder: v0_1_0")
    folder = RELEASES / parser.parse_args().release
    folder.mkdir()  # fails if it exists: a release is frozen once
    _stores(folder)
    _bundles(folder)
    contract = FileDescriptorSet()
    for module in (cellkeeper_pb2, inference_pb2):
        module.DESCRIPTOR.CopyToProto(contract.file.add())
    (folder / "contract.binpb").write_bytes(contract.SerializeToString(deterministic=True))
    (folder / "names.json").write_text(json.dumps(names()._asdict(), indent=1) + "\n")


def _stores(folder: Path) -> None:
    read = {}

    def keep_redis(url: str) -> None:
        with redis.Redis.from_url(url) as client:
            (folder / "redis.txt").write_text(redis_lines(client))
        read["redis"] = _read(url)

    def keep_file(url: str) -> None:
        read["sqlite"] = _read(url)
        file = Path(url.partition(":")[2])
        with sqlite3.connect(file) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.close()
        shutil.copy(file, folder / "sessions.db")

    with tempfile.TemporaryDirectory(prefix="cellkeeper-freeze-") as name:
        record("redis", Path(name), keep_redis)
        texts = record("sqlite", Path(name), keep_file)
        (folder / "client.txt").write_text(client_calls(Path(name) / "client"))
    for text in ("wire.txt", "tenants.txt"):
        (folder / text).write_text(texts[text])
    (folder / "sessions.json").write_text(json.dumps(read, indent=1) + "\n")


def _read(url: str) -> list[dict[str, object]]:
    store = open_store(url)
    try:
        return [spelled(key, found) for key, found in records(store)]
    finally:
        store.close()


def _bundles(folder: Path) -> None:
    into = folder / "bundles"
    shutil.copytree(BUNDLE, into / "rnn_relu")
    make_bundle(
        into / "lstm",
        num_layers=2,
        proj_size=4,
        initial_state="learned",
        input={
            "kind": "features",
            "normalization": {"offset": [1.0, 2.0, 3.0], "scale": [0.5, 1.0, 2.0]},
            "missing": {"policy": "hold", "value": 1.5},
        },
        head=(Dense(5, "gelu"), Dense(2)),
        output=[{"op": "scale", "value": [2.0, 3.0]}, {"op": "offset", "value": 0.5}, {"op": "expm1"}],
        feedback=[0, 1, "known"],
        feature_names=["level", "flow", "hour"],
    )
    tokens = {"kind": "tokens", "vocabulary": 11, "embedding_size": 4}
    make_bundle(into / "gru_tokens", cell="gru", input_size=4, input=tokens, reset_after=False, bias=False, head=(11,))
    make_bundle(into / "rnn_tanh", cell="rnn_tanh", head=())
    free = graph([*STEP, node("Add", "h x", "y")], layout="step")
    for name, made in (("graph", free), ("graph_one_session", free.with_one_session())):
        write_bundle(into / name, made.config(), {}, graph=made.model)
    told = {}
    for path in sorted(into.iterdir()):
        bundle = read_bundle(path)
        inputs = (
            np.arange(STEPS * FEATURES, dtype=np.float32).reshape(STEPS, FEATURES)
            if bundle.graph
            else random_inputs(bundle.config, STEPS, 1)[:, 0]  # type: ignore[arg-type]
        )
        told[path.name] = {
            "fingerprint": bundle.spec.fingerprint.hex(),
            "inputs": inputs.tolist(),
            "prediction": offline(path, inputs)["prediction"].tolist(),
        }
    (folder / "bundles.json").write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
