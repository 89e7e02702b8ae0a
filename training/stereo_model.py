"""`model.py` of the served `stereo_madnet`, copied into a model repository by `python -m training export`.

Pairs that adapt are worked off by one thread, pairs that do not by another, which goes first where the processor is
short: nobody who only wants a disparity map waits for somebody else's learning. Triton keeps the frames of a sequence
in order. Tensors move by DLPack, because the Python backend of Triton 2.51 is built against NumPy 1.
"""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, get_args

import torch
import torch.utils.dlpack
import triton_python_backend_utils as pb_utils

from training.adaptation import MODES, Mode
from training.errors import TrainingError
from training.stereo_evaluation import load_stereo_network
from training.stereo_serving import Checkpoint, StereoStreams

WEIGHTS = "model.safetensors"


_GIVEN_WAY = 5  # a third of the processor time of who does not adapt, where there is not enough for both


def _give_way() -> None:
    """Lower this thread's priority, which Linux has for each of its own."""
    lowest = 19
    os.setpriority(os.PRIO_PROCESS, 0, min(lowest, os.getpriority(os.PRIO_PROCESS, 0) + _GIVEN_WAY))


class TritonPythonModel:
    """What Triton's Python backend calls."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the weights and the parameters `threads`, `max_streams` and `checkpoints`."""
        given = json.loads(args["model_config"]).get("parameters", {})
        value = {name: entry["string_value"] for name, entry in given.items()}
        torch.set_num_threads(int(value["threads"]))
        base = load_stereo_network(Path(args["model_repository"], args["model_version"], WEIGHTS))
        folder = Path(value["checkpoints"]) if value.get("checkpoints") else None
        self._streams = StereoStreams(base, int(value["max_streams"]), folder)
        blank = torch.zeros((64, 64, 3), dtype=torch.uint8).numpy()
        self._streams.adapt(0, "mad", blank, blank, end=True)  # the first step loads seconds' worth of torch
        self._lanes = {False: ThreadPoolExecutor(1), True: ThreadPoolExecutor(1, initializer=_give_way)}

    def execute(self, requests: list[Any]) -> None:
        """Hand each request to its lane; answers are sent from there."""
        for request in requests:
            mode = int(self._tensor(request, "adapt").item())
            self._lanes[mode != 0].submit(self._send, request, mode, request.get_response_sender())

    def _send(self, request: Any, mode: int, sender: Any) -> None:
        try:
            if request.is_cancelled():
                raise InterruptedError("cancelled")
            response = self._answer(request, MODES[mode])
        except TrainingError as error:
            failure = pb_utils.TritonError(f"state of a sequence: {error}", pb_utils.TritonError.INVALID_ARG)
            response = pb_utils.InferenceResponse(error=failure)
        except Exception as error:  # whatever it was, Triton waits for an answer
            response = pb_utils.InferenceResponse(error=pb_utils.TritonError(f"{type(error).__name__}: {error}"))
        sender.send(response, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)

    def _answer(self, request: Any, mode: Mode) -> Any:
        left, right = (self._tensor(request, name)[0].numpy() for name in ("left", "right"))
        if mode == "none":
            answer = self._streams.predict(left, right)
        else:
            end = bool(request.flags() & pb_utils.TRITONSERVER_REQUEST_FLAG_SEQUENCE_END)
            checkpoint = get_args(Checkpoint)[int(self._tensor(request, "checkpoint").item())]
            sequence = request.correlation_id()
            if checkpoint == "forget":
                answer = self._streams.forget(sequence, left)
            else:
                answer = self._streams.adapt(sequence, mode, left, right, checkpoint=checkpoint, end=end)
        outputs = {"disparity_px": answer.adapted.disparity_px, "adaptation": answer.numbers()}
        tensors = {name: torch.from_numpy(values[None]).contiguous() for name, values in outputs.items()}
        return pb_utils.InferenceResponse([pb_utils.Tensor.from_dlpack(*entry) for entry in tensors.items()])

    @staticmethod
    def _tensor(request: Any, name: str) -> torch.Tensor:
        return torch.utils.dlpack.from_dlpack(pb_utils.get_input_tensor_by_name(request, name).to_dlpack())

    def finalize(self) -> None:
        """End the lanes."""
        for lane in self._lanes.values():
            lane.shutdown()
