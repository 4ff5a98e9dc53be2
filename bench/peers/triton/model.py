"""An LSTM for Triton's Python backend: all states in one arena, one call of the network for a whole sequence batch.

Its folder also holds `shape.json` and the weights, as `network.onnx` or `weights.npz`. The parameter `compute` chooses
how it computes: onnxruntime runs the graph that Cellkeeper runs; torch runs nn.LSTM.
"""

import json
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils

SLOTS = 16384
START, END = 1, 2  # flags of a request


class OnnxNetwork:
    def __init__(self, folder, shape):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            str(folder / "network.onnx"), options, providers=["CPUExecutionProvider"]
        )

    def run(self, inputs, states):
        """Returns outputs [T, B, 1] and states [B, S], for inputs [T, B, F] and states [B, S]."""
        return self._session.run(["prediction", "next"], {"input": inputs, "state": states})


class TorchNetwork:
    def __init__(self, folder, shape):
        import torch

        torch.set_num_threads(1)
        self._torch, self._shape = torch, shape
        weights = {name: torch.from_numpy(value) for name, value in np.load(folder / "weights.npz").items()}
        self._lstm = torch.nn.LSTM(shape["features"], shape["hidden"], shape["layers"]).eval()
        self._lstm.load_state_dict({name[4:]: value for name, value in weights.items() if name.startswith("rnn.")})
        self._head = torch.nn.Linear(shape["hidden"], 1).eval()
        self._head.load_state_dict({name[7:]: value for name, value in weights.items() if name.startswith("head.0.")})

    def run(self, inputs, states):
        torch, layers = self._torch, self._shape["layers"]
        with torch.inference_mode():
            split = torch.from_numpy(states).view(len(states), 2, layers, -1).permute(1, 2, 0, 3).contiguous()
            hidden, (h, c) = self._lstm(torch.from_numpy(inputs), (split[0], split[1]))
            after = torch.stack((h, c)).permute(2, 0, 1, 3).reshape(len(states), -1)
            return self._head(hidden).numpy(), after.numpy()


class TritonPythonModel:
    def initialize(self, args):
        folder = Path(args["model_repository"]) / args["model_version"]
        shape = json.loads((folder / "shape.json").read_text())
        compute = json.loads(args["model_config"])["parameters"]["compute"]["string_value"]
        self._network = (TorchNetwork if compute == "torch" else OnnxNetwork)(folder, shape)
        self._states = np.zeros((SLOTS, 2 * shape["layers"] * shape["hidden"]), np.float32)
        self._slot_of = {}
        self._free = list(range(SLOTS))

    def execute(self, requests):
        inputs = [pb_utils.get_input_tensor_by_name(request, "X").as_numpy()[0] for request in requests]
        slots = [self._slot(request) for request in requests]
        responses = [None] * len(requests)
        lengths = {len(one) for one in inputs}
        for length in lengths:
            chosen = [i for i, one in enumerate(inputs) if len(one) == length]
            rows = np.array([slots[i] for i in chosen])
            outputs, after = self._network.run(np.stack([inputs[i] for i in chosen], axis=1), self._states[rows])
            self._states[rows] = after
            by_session = np.ascontiguousarray(outputs.transpose(1, 0, 2))
            for at, i in enumerate(chosen):
                responses[i] = pb_utils.InferenceResponse([pb_utils.Tensor("Y", by_session[at : at + 1])])
        return responses

    def _slot(self, request):
        sequence, flags = request.correlation_id(), request.flags()
        slot = self._slot_of.get(sequence)
        if slot is None:
            slot = self._slot_of[sequence] = self._free.pop()
            self._states[slot] = 0
        elif flags & START:
            self._states[slot] = 0
        if flags & END:
            self._free.append(self._slot_of.pop(sequence))
        return slot
