"""The trained weights in three places: PyTorch in one run, Keras call by call, Cellkeeper over gRPC."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cellkeeper import Session

from examples.serving import served

from .keras_twin import KerasTwin, keras_installed
from .model import CharacterModel
from .text import Ids
from .training import WINDOW

CALLS, CALL_STEPS = 4, 50
STREAMED = 1024  # characters for the losses as served


def compare(model: CharacterModel, bundle: Path, ids: Ids) -> dict[str, Any]:
    """Returns how far apart the logits are, and whether a reset restores the first ones. ids: held-out text, [N]."""
    calls = [ids[i * CALL_STEPS :][:CALL_STEPS] for i in range(CALLS)]
    with torch.no_grad():
        whole = model(torch.from_numpy(np.concatenate(calls))[:, None])[0][:, 0].numpy()
    results: dict[str, Any] = {"largest logit": float(np.abs(whole).max())}
    with served(bundle) as (client, _, _):
        session = client.session("by chunks")
        ours = np.concatenate([session.step(call) for call in calls])
        single = client.session("one by one")
        results["cellkeeper, chunks and single steps, same bits"] = bool(
            np.array_equal(ours, np.stack(list(single.stream(np.concatenate(calls)))))
        )
        results["cellkeeper, from torch"] = _apart(ours, whole)
        session.reset()
        results["cellkeeper, after reset, same bits"] = bool(np.array_equal(session.step(calls[0]), ours[:CALL_STEPS]))
        results["served"] = _losses(client.session("losses"), ids[: STREAMED + 1])
    if not keras_installed():
        print("keras is not installed: its part is left out (pip install keras)")
        return results
    twin = KerasTwin(model)
    theirs = np.concatenate([twin.step(call) for call in calls])
    results["keras, from torch"] = _apart(theirs, whole)
    results["keras, from cellkeeper"] = _apart(theirs, ours)
    twin.reset()
    results["keras, after reset_states, from before"] = _apart(twin.step(calls[0]), theirs[:CALL_STEPS])
    return results


def _losses(session: Session, ids: Ids) -> dict[str, float]:
    """Returns a session's bits per character: never reset, and reset before every window of the training's length."""
    carried = np.stack(list(session.stream(ids[:-1], chunk_steps=64)))
    parts = []
    for start in range(0, len(ids) - 1, WINDOW):
        session.reset()
        parts.append(session.step(ids[start : start + WINDOW]))
    return {"carried": _bits(carried, ids[1:]), "reset": _bits(np.concatenate(parts), ids[1:])}


def _bits(logits: np.ndarray[Any, np.dtype[np.float32]], wanted: Ids) -> float:
    return float(torch.nn.functional.cross_entropy(torch.from_numpy(logits), torch.from_numpy(wanted))) / math.log(2)


def _apart(left: np.ndarray[Any, Any], right: np.ndarray[Any, Any]) -> float:
    return float(np.abs(left - right).max())
