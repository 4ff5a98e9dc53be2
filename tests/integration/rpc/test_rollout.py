"""Forecasts over the wire: the bits of an offline run that is fed by hand, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cellkeeper_proto.v1 import cellkeeper_pb2 as pb
from cellkeeper_service.engine.load import offline

from testing.bundles import Array, make_bundle
from testing.forked_server import ForkedServer

from .calls import Api, Chunk, Refused, Result, numbers, step_message
from .checks import check

PAST = np.random.default_rng(0).standard_normal((9, 3)).astype(np.float32)
COMING = np.random.default_rng(1).standard_normal((2, 3)).astype(np.float32)
KNOWN = np.random.default_rng(2).standard_normal((40, 1)).astype(np.float32)
CO2 = Path(__file__).parents[3] / "examples" / "co2" / "bundle"


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Bundles by name, with different feedback.

    Their next input is: the second prediction, what the caller supplies, the first prediction; the likeliest token; and
    for "co2" the forecast for the next week, in ppm.
    """
    folder = tmp_path_factory.mktemp("bundles")
    processed = {"kind": "features", "normalization": {"offset": [0.1, 2, 3.5], "scale": [1, -2, 0.5]}}
    back = [{"op": "scale", "value": [2.5, -1]}, {"op": "offset", "value": [0.5, 3]}]
    tokens = {"kind": "tokens", "vocabulary": 7, "embedding_size": 4}
    co2 = folder / "co2"
    co2.mkdir()
    config = json.loads((CO2 / "config.json").read_text()) | {"feedback": [0]}
    (co2 / "config.json").write_text(json.dumps(config))
    (co2 / "model.safetensors").write_bytes((CO2 / "model.safetensors").read_bytes())
    return {
        "fed": make_bundle(
            folder / "fed", name="fed", head=(2,), feedback=[1, "known", 0], input=processed, output=back
        ),
        "words": make_bundle(folder / "words", name="words", input_size=4, head=(7,), input=tokens),
        "plain": make_bundle(folder / "plain", name="plain", input_size=2, head=(2,), feature_names=["flow", "heat"]),
        "co2": co2,
    }


@pytest.fixture(scope="module")
def stub(bundles: dict[str, Path]) -> Iterator[Any]:
    options = ["--max-chunk-steps", "64", "--max-message-bytes", "65536"]
    with ForkedServer(list(bundles.values()), "memory:", options) as server, server.channel() as channel:
        yield server.stub(channel)


def message(api: Api, chunk: Chunk, steps: int, known: Array = KNOWN[:0], **more: Any) -> pb.StepRequest:
    request = step_message(api.model, chunk, **{"peek": True, **more})
    request.rollout_steps = steps
    request.rollout_inputs = known.tobytes()
    return request


def forecast(api: Api, chunk: Chunk, steps: int, known: Array = KNOWN[:0], **more: Any) -> Result:
    return api.send_step(message(api, chunk, steps, known, **more))


def test_a_forecast_is_an_offline_run_fed_by_hand(stub: Any, bundles: dict[str, Path], session: str) -> None:
    api = Api(stub, "fed")
    at = api.send("unary", Chunk(session, PAST, api.open(session))).after
    consumed = np.concatenate([PAST, COMING])
    for known in KNOWN:
        low, high = offline(bundles["fed"], consumed)["prediction"][-1]
        consumed = np.concatenate([consumed, np.array([[high, known[0], low]], np.float32)])
    whole = offline(bundles["fed"], consumed)
    got = forecast(api, Chunk(session, COMING, at), 40, KNOWN, outputs=["prediction", "hidden", "state"])
    for name in ("prediction", "hidden"):
        np.testing.assert_array_equal(got.outputs[name], whole[name][len(PAST) :])
    np.testing.assert_array_equal(got.outputs["state.c"], whole["state.c"])
    assert got.after.step == len(consumed)
    assert api.position(session) == at


def test_a_forecast_is_stepping_a_fork_by_hand(stub: Any, session: str) -> None:
    """The CO2 model, in ppm: the prediction for the next week becomes the next week's input."""
    api = Api(stub, "co2")
    past = (340 + np.cumsum(np.random.default_rng(3).standard_normal((60, 1)), axis=0)).astype(np.float32)
    at = api.send("unary", Chunk(session, past[:50], api.open(session))).after
    at = api.send("unary", Chunk(session, past[50:-1], at)).after
    got = forecast(api, Chunk(session, past[-1:], at), 52).outputs["prediction"]
    fork = f"{session}-fork"
    item = pb.ForkRequest.Item(source=session, target=fork, request_id=b"f" * 16)
    api.call("Fork", pb.ForkRequest(model="co2", items=[item]))
    x, by_hand = past[-1:], []
    for _ in range(53):
        by_hand.append(api.send("unary", Chunk(fork, x)).outputs["prediction"])
        x = by_hand[-1][:, :1]
    np.testing.assert_array_equal(got, np.concatenate(by_hand))
    assert api.position(session) == at


def test_tokens_are_the_likeliest(stub: Any, bundles: dict[str, Path], session: str) -> None:
    api = Api(stub, "words")
    at = api.open(session)
    consumed = np.array([1, 5], np.int32)
    got = forecast(api, Chunk(session, consumed, at), 10)
    for _ in range(10):
        best = np.argmax(offline(bundles["words"], consumed)["prediction"][-1])
        consumed = np.append(consumed, np.int32(best))
    np.testing.assert_array_equal(got.outputs["prediction"], offline(bundles["words"], consumed)["prediction"])


def test_get_model_says_how_a_model_is_rolled_out(stub: Any) -> None:
    infos = {info.name: info for info in stub.ListModels(pb.ListModelsRequest()).models}
    assert list(infos["fed"].feedback.sources) == [1, -1, 0]
    assert infos["words"].HasField("feedback")
    assert not infos["words"].feedback.sources
    assert not infos["plain"].HasField("feedback")


def test_get_model_names_the_features(stub: Any) -> None:
    infos = {info.name: info for info in stub.ListModels(pb.ListModelsRequest()).models}
    assert list(infos["plain"].feature_names) == ["flow", "heat"]
    assert not infos["fed"].feature_names


def test_what_is_refused(stub: Any, session: str) -> None:
    api, plain = Api(stub, "fed"), Api(stub, "plain")
    at, there = api.open(session), plain.open(session)
    chunk = Chunk(session, COMING, at)
    broken = KNOWN[:3].copy()
    broken[1] = np.nan
    for result, field, words in (
        (forecast(api, chunk, 3, KNOWN[:3], peek=False), "rollout_steps", "without peek"),
        (forecast(api, chunk, 63, KNOWN[:0]), "rollout_steps", "at most 62 after a chunk of 2: 64 in all"),
        (forecast(api, chunk, 2**32 - 1), "rollout_steps", "64 in all"),
        (forecast(api, chunk, 3, KNOWN[:2]), "rollout_inputs", "got 8 bytes, expected 12 bytes"),
        (forecast(api, chunk, 0, KNOWN[:2]), "rollout_inputs", "none: nothing is forecast"),
        (forecast(plain, Chunk(session, numbers(1, 2).reshape(1, 2), there), 1), "rollout_steps", '"feedback"'),
    ):
        check(result, field)
        assert words in result.message
    check(forecast(api, chunk, 3, broken), "rollout_inputs", reason="NON_FINITE_INPUT")
    assert (api.position(session), plain.position(session)) == (at, there)


def test_a_reply_that_would_be_too_large_is_refused_before_it_is_computed(tmp_path: Path, session: str) -> None:
    sizes = {"input_size": 1, "hidden_size": 1024, "head": (1,)}
    wide = make_bundle(tmp_path / "m", name="wide", cell="rnn_tanh", feedback=[0], **sizes)  # type: ignore[arg-type]
    options = ["--max-message-bytes", "65536"]
    with ForkedServer([wide], "memory:", options) as server, server.channel() as channel:
        api = Api(server.stub(channel), "wide")
        chunk = Chunk(session, numbers(1), api.open(session))
        with pytest.raises(Refused) as refused:
            api.call("Step", message(api, chunk, 20, outputs=["hidden"]))
        assert refused.value.result.reason == "REPLY_TOO_LARGE"
        assert server.metric("cellkeeper_computed_steps_total", model="wide") == 0
        assert forecast(api, chunk, 20).outputs["prediction"].shape == (21, 1)
