"""Calls an onnxruntime session with inputs and results on the host or on the device, as wanted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from onnxruntime import OrtValue

from .onnx_device import GraphDevice, lost

HOST = None
Fetches = Mapping[str, GraphDevice | OrtValue | None]


def call(session: Any, device: GraphDevice, feeds: Mapping[str, Any], fetches: Fetches) -> list[Any]:
    """Runs the session, and returns the results in the order of `fetches`. Raises EngineLost if the device fails.

    session: on `device`. feeds: numpy arrays, which are copied to where the graph needs them, or OrtValues. fetches: by
    output name, HOST for a numpy array, the device for an OrtValue that stays there, or an OrtValue whose memory
    receives the result.
    """
    if not device.keeps_states:  # all values are on the host, and a binding costs as much as a small graph
        results: list[Any] = session.run(list(fetches), feeds)
        return results
    binding = session.io_binding()
    try:
        for name, value in feeds.items():
            given = value if isinstance(value, OrtValue) else OrtValue.ortvalue_from_numpy(np.asarray(value, order="C"))
            binding.bind_ortvalue_input(name, given)
        for name, place in fetches.items():
            if isinstance(place, OrtValue):
                binding.bind_ortvalue_output(name, place)
            elif place is HOST:
                binding.bind_output(name)
            else:
                binding.bind_output(name, place.kind, place.number)
        binding.synchronize_inputs()
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()
        return [
            result.numpy() if place is HOST else result
            for place, result in zip(fetches.values(), binding.get_outputs(), strict=True)
        ]
    except Exception as error:  # onnxruntime's errors have no public base class
        failed = lost(device, error)
        if failed is not None:
            raise failed from error
        raise
