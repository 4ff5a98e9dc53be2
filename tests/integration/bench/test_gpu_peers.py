"""The peers of bench-gpu, as far as they can be tested without a device."""

from __future__ import annotations

import argparse
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from cellkeeper_service.model.bundle import read_bundle
from torch.backends.cudnn import rnn as rnn_modes

from bench import gpu_peers
from bench.gpu import words
from bench.gpu_peers import PEERS, are_dispensable, make_peers, packed, written_out
from testing.bundles import make_bundle

CPU = torch.device("cpu")


@pytest.mark.parametrize("layers", [1, 3])
@torch.inference_mode()
def test_the_cell_written_out_is_the_module_s(layers: int) -> None:
    torch.manual_seed(0)
    rnn = torch.nn.LSTM(5, 7, layers)
    x, h, c = torch.randn(1, 4, 5), torch.randn(layers, 4, 7), torch.randn(layers, 4, 7)
    hidden, after = rnn(x, (h, c))
    came_hidden, came = written_out(rnn)(x, (h, c))
    torch.testing.assert_close(came_hidden, hidden)
    torch.testing.assert_close(came, after)


def test_one_copy_gives_a_peer_its_rows_and_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor)
    host, _, inputs = packed(torch.tensor([2, 0, 1]), 4, CPU)
    there, rows, came = packed(torch.zeros(3, dtype=torch.int64), 4, CPU)
    inputs.copy_(torch.arange(12.0).view(1, 3, 4))
    there.copy_(host)
    assert rows.tolist() == [2, 0, 1]
    torch.testing.assert_close(came, torch.arange(12.0).view(1, 3, 4))


class Uncompilable:
    """A peer where torch.compile does not work."""

    def __init__(self, *arguments: Any) -> None:
        if arguments[-1].compiled:
            raise RuntimeError("Failed to find C compiler.\nPlease specify via CC")


def test_a_peer_that_cannot_be_compiled_is_left_out_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu_peers, "Peer", Uncompilable)
    bundle = read_bundle(make_bundle(tmp_path / "m"))
    peers, missing = make_peers(tuple(PEERS), bundle, 4, CPU, "fp32")
    why = "RuntimeError: Failed to find C compiler. Please specify via CC"
    assert list(peers) == ["cudnn", "cudnn in a graph"]
    assert missing == {"compiled": why}
    assert capsys.readouterr().err == f"bench-gpu: without compiled: {why}\n"


class Looped:
    """A peer in a reference cycle, as those with bound methods of their own are."""

    alive = 0

    def __init__(self, *arguments: Any) -> None:
        if Looped.alive:
            raise RuntimeError("a graph that is freed now ends the capture")
        self._itself = self
        Looped.alive += 1

    def __del__(self) -> None:
        Looped.alive -= 1


def test_earlier_peers_are_gone_before_a_graph_is_captured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_peers, "Peer", Looped)
    bundle = read_bundle(make_bundle(tmp_path / "m"))
    for _ in range(3):
        assert make_peers(("cudnn in a graph",), bundle, 4, CPU, "fp32")[1] == {}


class OwnStream:
    """A stream of a peer, which waits for no other one unless it is told to."""

    def __init__(self, device: torch.device) -> None:
        self.waited: list[str] = []

    def wait_stream(self, other: str) -> None:
        self.waited.append(other)


def test_a_peer_s_stream_waits_until_its_tensors_are_filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are filled on the current stream. A row number that is not there yet may be any, and ends the process."""
    monkeypatch.setattr(torch.cuda, "Stream", OwnStream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: f"the current one of {device}")
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor)
    peer = gpu_peers.Peer(read_bundle(make_bundle(tmp_path / "m")), 4, CPU, "fp32", PEERS["cudnn"])
    assert isinstance(peer._stream, OwnStream)
    assert peer._stream.waited == ["the current one of cpu"]


@pytest.mark.parametrize(("dtype", "calls"), [(torch.float32, 0), (torch.bfloat16, 1)])
def test_weights_in_bfloat16_are_moved_into_one_block(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, calls: int
) -> None:
    rnn: Any = torch.nn.LSTM(5, 7, 2)
    moved: list[Any] = []
    monkeypatch.setattr(torch, "_cudnn_rnn_flatten_weight", lambda *arguments: moved.append(arguments))
    monkeypatch.setattr(rnn_modes, "get_cudnn_mode", str)  # torch for the CPU knows none
    on_a_device = SimpleNamespace(dtype=dtype, is_cuda=True)
    monkeypatch.setitem(rnn.__dict__, "weight_hh_l0", on_a_device)
    gpu_peers.with_weights_in_one_block(rnn)
    assert [(len(weights), a_layer, *sizes) for weights, a_layer, *sizes in moved] == calls * [
        (8, 4, 5, "LSTM", 7, 0, 2, False, False)
    ]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_another_peer_that_fails_ends_no_bench_but_makes_it_fail(tmp_path: Path) -> None:
    bundle = read_bundle(make_bundle(tmp_path / "m"))
    peers, missing = make_peers(("cudnn", "cudnn in a graph"), bundle, 4, CPU, "fp32")
    assert peers == {}
    assert set(missing) == {"cudnn", "cudnn in a graph"}
    assert not are_dispensable(missing)
    assert not are_dispensable(["compiled", "cudnn"])
    assert are_dispensable(["compiled"])
    assert are_dispensable([])


def test_a_peer_that_is_not_known() -> None:
    assert words("compiled,cudnn in a graph") == ("compiled", "cudnn in a graph")
    with pytest.raises(
        argparse.ArgumentTypeError, match="got tensorrt, expected some of cudnn, cudnn in a graph, compiled"
    ):
        words("cudnn,tensorrt")
