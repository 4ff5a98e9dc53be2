"""Every layer's vector for every word, streamed word by word through Cellkeeper and compared with the 64 x 35 run."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from cellkeeper import Client
from numpy.typing import NDArray
from torch import Tensor, nn

from examples.serving import served

from .model import LAYERS, State, WordModel
from .training import WINDOW

Floats = NDArray[np.float32]


class Streamed(NamedTuple):
    """The results for one row. h: every layer's vector after each word, [T, LAYERS, SIZE]. logits: [T, vocabulary]."""

    h: Floats
    logits: Floats


def represent(model: WordModel, bundle: Path, ids: Tensor, counted: slice) -> tuple[Streamed, dict[str, Any]]:
    """Streams rows of ids [T + 1, B], one session each. Returns the first row's vectors, and the comparison."""
    with served(bundle) as (client, _, _):
        rows = [stream(client, f"row-{i}", row[:-1]) for i, row in enumerate(ids[:, counted].T)]
        top, last = chunk(client, "in chunks", ids[:-1, 0])
    h = np.stack([row.h for row in rows], axis=1)  # [T, B, LAYERS, SIZE]
    logits = torch.from_numpy(np.stack([row.logits for row in rows], axis=1))
    loss = float(nn.functional.cross_entropy(logits.flatten(0, 1), ids[1:, counted].flatten()))
    layers = [layer[:, counted] for layer in batch(model, ids[:-1])]
    results: dict[str, Any] = {
        "loss": loss,
        "vectors": int(np.prod(h.shape[:3])),
        "apart": [float(np.abs(h[:, :, i] - layers[i]).max()) for i in range(LAYERS)],
        "largest": float(np.abs(h).max()),
        "hidden is the top layer, same bits": bool(np.array_equal(top, rows[0].h[:, -1])),
        "state after a chunk, same bits": bool(np.array_equal(last, rows[0].h[WINDOW - 1 :: WINDOW])),
    }
    return rows[0], results


def stream(client: Client, name: str, ids: Tensor) -> Streamed:
    """Streams word by word, pipelined. state["h"] holds every layer's vector; "hidden" would be only the top one's."""
    session = client.session(name, outputs=("prediction", "state"))
    replies = list(session.stream_replies(ids.tolist()))
    return Streamed(np.stack([reply.state["h"] for reply in replies]), np.stack([reply.output for reply in replies]))


def chunk(client: Client, name: str, ids: Tensor) -> tuple[Floats, Floats]:
    """Steps in chunks of WINDOW words: the top layer at each word [T, SIZE], every layer after each chunk."""
    session = client.session(name, outputs=("hidden", "state"))
    replies = [session.step_reply(part.numpy()) for part in torch.split(ids, WINDOW)]
    return np.concatenate([reply.output for reply in replies]), np.stack([reply.state["h"] for reply in replies])


def batch(model: WordModel, ids: Tensor) -> list[Floats]:
    """Returns the same vectors from PyTorch, all rows at once, WINDOW words at a time: for each layer [T, B, SIZE]."""
    states: list[State] | None = None
    parts: list[list[Tensor]] = []
    with torch.no_grad():
        for part in torch.split(ids, WINDOW):
            seen = model(part, states)
            states = seen.states
            parts.append(seen.layers)
    return [torch.cat(layer).numpy() for layer in zip(*parts, strict=True)]
