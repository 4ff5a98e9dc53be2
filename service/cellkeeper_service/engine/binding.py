"""One call of an onnxruntime session, with inputs and results where they are wanted: on the host or on the device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from onnxruntime import OrtValue

from .onnx_device import GraphDevice, lost

HOST = None
Fetches = Mapping[str, GraphDevice | OrtValue | None]


def call(session: Any, device: GraphDevice, feeds: Mapping[str, Any], fetches: Fetches) -> list[Any]:
    """feeds: numpy arrays, which travel to where the graph wants them, or OrtValues. fetches: by the output's name,
    HOST for a result as a numpy array, the device on which it stays as an OrtValue, or the OrtValue whose memory takes
    it. The results come in that order.

    session: on `device`. Raises EngineLost where the device fails.
    """
    if not device.keeps_states:  # nothing is on a device then, and a binding costs as much as a small graph
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
