"""Model versions and numerics: the record decides what may continue it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cellkeeper_proto.v1 import cellkeeper_pb2 as pb
from cellkeeper_service.domain.position import Position
from cellkeeper_service.engine.load import offline

from testing.bundles import make_bundle
from testing.forked_server import ForkedServer

from .calls import WAYS, Api, Chunk, Refused, Result, Way, new_id
from .record_changes import change_record

INPUTS = np.random.default_rng(0).standard_normal((9, 3)).astype(np.float32)
MODEL = "m"


@pytest.fixture
def versions(tmp_path: Path) -> tuple[Path, Path]:
    """Two versions of one model: the same tensors, other weights."""
    return make_bundle(tmp_path / "v1", name=MODEL, seed=1), make_bundle(tmp_path / "v2", name=MODEL, seed=2)


def predicted(bundle: Path, inputs: np.ndarray) -> np.ndarray:
    values: np.ndarray = offline(bundle, inputs)["prediction"]
    return values


def refusals(api: Api, session: str, at: Position) -> Sequence[Result]:
    """Returns the refusals of a step and of a peek in each way, with position and without."""
    found = [api.send(way, Chunk(session, INPUTS, at), peek=peek) for way in WAYS for peek in (False, True)]
    return [*found, api.send("unary", Chunk(session, INPUTS)), api.send("batch", Chunk(session, INPUTS))]


def test_the_record_picks_its_version_and_a_version_that_is_not_served_is_refused(
    versions: tuple[Path, Path], tmp_path: Path
) -> None:
    old, new = versions
    store = f"sqlite:{tmp_path / 'sessions.db'}"
    with ForkedServer([old], store) as server, server.channel() as channel:
        api = Api(server.stub(channel), MODEL)
        start = api.open("s")
        at = api.send("unary", Chunk("s", INPUTS[:3], start)).after
        fingerprint = api.info("s").fingerprint
        assert server.stop() == 0

    with ForkedServer([new], store) as server, server.channel() as channel:
        api = Api(server.stub(channel), MODEL)
        for got in refusals(api, "s", at):
            assert (got.code, got.reason, got.position) == ("FAILED_PRECONDITION", "MODEL_CHANGED", at)
        for method, request in (
            ("Open", pb.OpenRequest(session="s", request_id=new_id())),
            ("GetState", pb.GetStateRequest(session="s")),
        ):
            with pytest.raises(Refused) as refused:
                api.call(method, request)
            assert refused.value.result.reason == "MODEL_CHANGED"
        assert api.info("s").fingerprint == fingerprint  # it can still be read
        other = api.open("other")
        got = api.send("unary", Chunk("other", INPUTS, other))
        np.testing.assert_array_equal(got.outputs["prediction"], predicted(new, INPUTS))
        assert server.stop() == 0

    with ForkedServer([new, old], store) as server, server.channel() as channel:
        api = Api(server.stub(channel), MODEL)
        models = api.call("ListModels", pb.ListModelsRequest()).models
        assert [model.name for model in models] == [MODEL, MODEL]
        assert models[1].fingerprint == fingerprint
        assert api.call("GetModel", pb.GetModelRequest(model=MODEL)).fingerprint == models[0].fingerprint
        picked = api.call("GetModel", pb.GetModelRequest(model=MODEL, fingerprint=fingerprint))
        assert picked.fingerprint == fingerprint
        again = api.send("batch", Chunk("s", INPUTS[:3], start))
        assert again.replayed
        got = api.send("stream", Chunk("s", INPUTS[3:], at))
        np.testing.assert_array_equal(got.outputs["prediction"], predicted(old, INPUTS)[3:])
        assert api.opened("s").fingerprint == fingerprint
        fresh = api.send("unary", Chunk("fresh", INPUTS))
        np.testing.assert_array_equal(fresh.outputs["prediction"], predicted(new, INPUTS))
        reset = pb.ResetRequest.Item(session="s", generation=at.generation, request_id=new_id())
        api.call("Reset", pb.ResetRequest(items=[reset]))
        got = api.send("unary", Chunk("s", INPUTS))
        np.testing.assert_array_equal(got.outputs["prediction"], predicted(new, INPUTS))  # a new generation and version


def test_other_numerics_are_refused_or_accepted_by_a_setting(versions: tuple[Path, Path], tmp_path: Path) -> None:
    bundle, _ = versions
    store = f"sqlite:{tmp_path / 'sessions.db'}"
    with ForkedServer([bundle], store) as server, server.channel() as channel:
        api = Api(server.stub(channel), MODEL)
        start = api.open("s")
        at = api.send("unary", Chunk("s", INPUTS[:3], start)).after
        assert server.stop() == 0
    change_record(store, MODEL, "s", lambda old: replace(old, header=old.header.replace(numerics=b"another!")))

    with ForkedServer([bundle], store) as server, server.channel() as channel:
        api = Api(server.stub(channel), MODEL)
        for got in refusals(api, "s", at):
            assert (got.code, got.reason, got.position) == ("FAILED_PRECONDITION", "NUMERICS_CHANGED", at)
            assert "--accept-other-numerics" in got.message
        with pytest.raises(Refused, match="NUMERICS_CHANGED"):
            api.open("s")
        assert api.position("s") == at
        assert server.stop() == 0

    with ForkedServer([bundle], store, ["--accept-other-numerics"]) as server, server.channel() as channel:
        api = Api(server.stub(channel), MODEL)
        assert api.open("s") == at
        got = api.send("stream", Chunk("s", INPUTS[3:], at))
        np.testing.assert_array_equal(got.outputs["prediction"], predicted(bundle, INPUTS)[3:])


def test_a_version_that_is_not_served_is_told_before_what_does_not_fit_the_served_one(tmp_path: Path) -> None:
    """The new version takes other inputs and gives other outputs. A session of the old one continues all the same."""
    old = make_bundle(tmp_path / "v1", name=MODEL, input_size=3)
    new = make_bundle(tmp_path / "v2", name=MODEL, input_size=5, hidden_size=4)
    store = f"sqlite:{tmp_path / 'sessions.db'}"
    state = [np.zeros((1, 8), np.float32), np.zeros((1, 8), np.float32)]
    initial = [
        pb.Tensor(name=name, dtype=pb.FLOAT32, shape=(1, 8), data=values.tobytes())
        for name, values in zip(("h", "c"), state, strict=True)
    ]
    with ForkedServer([old], store) as server, server.channel() as channel:
        api = Api(server.stub(channel), MODEL)
        at = api.send("unary", Chunk("s", INPUTS[:3], api.open("s"))).after
        assert server.stop() == 0

    with ForkedServer([new], store) as server, server.channel() as channel:
        api = Api(server.stub(channel), MODEL)
        for got in refusals(api, "s", at):
            assert (got.code, got.reason, got.position) == ("FAILED_PRECONDITION", "MODEL_CHANGED", at)
        wide = np.full((1, 5), np.inf, np.float32)
        for way in WAYS:  # of the right shape, with a value that this version does not take
            got = api.send(way, Chunk("s", wide, at))
            assert (got.reason, got.position) == ("MODEL_CHANGED", at)
        with pytest.raises(Refused) as refused:
            api.call("Open", pb.OpenRequest(session="s", request_id=new_id(), initial_state=initial))
        assert refused.value.result.reason == "MODEL_CHANGED"
        opens = [
            pb.OpenManyRequest.Item(session=name, request_id=new_id(), initial_state=given)
            for name, given in (("s", initial), ("s2", initial), ("s3", []))
        ]
        results = api.call("OpenMany", pb.OpenManyRequest(items=opens)).results
        reasons = [pb.Reason.Name(result.error.reason) for result in results]
        assert reasons == ["MODEL_CHANGED", "INVALID_FIELD", "REASON_UNSPECIFIED"]
        assert results[2].opened.created
        fresh = api.open("fresh")
        for way in WAYS:
            assert send_or_refused(api, way, Chunk("fresh", INPUTS[:1], fresh)).reason == "INVALID_FIELD"
        assert server.stop() == 0


def send_or_refused(api: Api, way: Way, chunk: Chunk) -> Result:
    try:
        return api.send(way, chunk)
    except Refused as refused:  # the whole frame was
        return refused.result
