"""Arrays in, arrays out: the protocol the gateway computes through, and Triton's gRPC behind it.

The only module that sees tritonclient, so the only place where Triton's errors become this service's, by the rules of
`service.triton_errors`.
"""

import asyncio
import json
import re
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import InferInput, InferRequestedOutput, InferResult
from tritonclient.grpc.aio import InferenceServerClient
from tritonclient.utils import InferenceServerException

from service import tracing
from service.contract import ADAPT, CHECKPOINT, LEFT, MODEL_NAME, MODELS, RIGHT, STEREO, ModelSpec, TensorSpec, spec_of
from service.depth_client import Adapt, Checkpoint, Pair
from service.depth_client import DepthClient as DepthClient
from service.depth_client import Image as Image
from service.depth_client import Prediction as Prediction
from service.depth_client import ServedModel as ServedModel
from service.errors import ContractViolation, DeadlineExceeded, ModelFailed, ModelUnavailable, UnknownModel
from service.triton_errors import SequenceNotStarted, VersionGone, translate

CHANNEL_ARGUMENTS: tuple[tuple[str, int], ...] = (
    # tritonclient replaces its own arguments by ours, also its 2 GiB message limits: gRPC's 4 MiB would be left.
    ("grpc.max_send_message_length", 2**31 - 1),
    ("grpc.max_receive_message_length", 2**31 - 1),
    # gRPC waits up to 2 minutes before it tries a lost server again; a restart takes seconds.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
    # A peer that vanished without closing is noticed during a call, and the connection made anew. Triton takes so many
    # pings only because the canary's calls lie between them (it counts pings without data, and few of those).
    ("grpc.keepalive_time_ms", 5_000),
    ("grpc.keepalive_timeout_ms", 3_000),
    # This one, a minute unless given, is what ends a connection whose ping is not answered (measured on grpcio 1.85).
    ("grpc.http2.ping_timeout_ms", 3_000),
    ("grpc.keepalive_permit_without_calls", 0),
)

_MICROSECONDS = 1_000_000
_INFER = "inference.GRPCInferenceService/ModelInfer"
_CONTROL_TIMEOUT_S = 5.0


class TritonClient:
    """`DepthClient` over gRPC; belongs to the event loop that first uses it.

    It stays with the version of a model that answered it first, as long as that one is loaded: a version that somebody
    loads beside it is not served before it has been chosen (`service.rollout`), and may be broken.

    Args:
        url: `host:port` of Triton's gRPC endpoint.
        admin: metadata key and value that open a restricted model control, as that of the embedded server.
    """

    def __init__(self, url: str, *, admin: tuple[str, str] | None = None) -> None:
        host, _, port = url.rpartition(":")
        self._peer: dict[str, str | int] = {"server.address": host, "server.port": int(port), "rpc.system.name": "grpc"}
        self._triton = InferenceServerClient(url, channel_args=list(CHANNEL_ARGUMENTS))
        self._admin_headers = dict([admin]) if admin else None
        self._versions: dict[str, str] = {}
        self._specs: dict[str, ModelSpec] = dict(MODELS)

    async def infer(
        self,
        model: str,
        image: Image,
        *,
        outputs: Sequence[str] | None = None,
        timeout_s: float,
        request_id: str | None = None,
    ) -> Prediction:
        """See `DepthClient.infer`. Cancelling the task cancels the call."""
        ends_at = time.monotonic() + timeout_s
        ask = partial(self.infer_version, model, image=image, outputs=outputs, request_id=request_id)
        version = self._versions.get(model, "")
        try:
            prediction = await ask(version=version, timeout_s=timeout_s)
        except VersionGone:
            if not version:
                raise
            chosen = self._versions[model]  # by somebody else meanwhile?
            prediction = await ask(version=chosen if chosen != version else "", timeout_s=ends_at - time.monotonic())
            if self._versions[model] == version:
                self._versions[model] = prediction.version
        self._versions.setdefault(model, prediction.version)
        return prediction

    async def infer_version(
        self,
        model: str,
        version: str,
        image: Image,
        *,
        outputs: Sequence[str] | None = None,
        timeout_s: float,
        request_id: str | None = None,
    ) -> Prediction:
        """As `infer`, from one version of the model; the newest loaded one where `version` is empty.

        Raises:
            VersionGone: it is not loaded.
        """
        spec = await self.spec(model)
        if not spec.takes_image:
            raise ContractViolation(f"{model} takes more than a photo")
        wanted = [tensor for tensor in spec.outputs if outputs is None or tensor.name in outputs]
        if outputs is not None and len(wanted) != len(set(outputs)):
            raise ContractViolation(f"{model} has no outputs {', '.join(sorted(set(outputs)))}")
        if timeout_s <= 0:
            raise DeadlineExceeded("The deadline passed before the model was asked.")
        with tracing.call(_INFER, {**self._peer, "depthlens.model": model}) as headers:
            async with _mapped_errors(model):
                # gRPC's limit ends the call and cancels it in Triton; the queue's limit counts only where a model's
                # config allows it, which none does here (see the network's config.pbtxt).
                result = await self._triton.infer(
                    model,
                    [_input(spec.inputs[0], image)],
                    model_version=version,
                    outputs=[InferRequestedOutput(tensor.name) for tensor in wanted],
                    request_id=request_id or "",
                    headers=headers,
                    timeout=max(1, int(timeout_s * _MICROSECONDS)),
                    client_timeout=timeout_s,
                )
        return Prediction(
            {t.name: _output(t, result, model) for t in wanted}, model, result.get_response().model_version
        )

    async def match(self, pair: Pair, *, timeout_s: float, request_id: str | None = None) -> Prediction:
        """See `DepthClient.match`. Triton says which sequences it knows, so nothing is remembered here."""
        try:
            return await self._match(pair, pair.sequence is None, timeout_s, request_id)
        except SequenceNotStarted:
            return await self._match(pair, True, timeout_s, request_id)

    async def _match(self, pair: Pair, start: bool, timeout_s: float, request_id: str | None) -> Prediction:
        if timeout_s <= 0:
            raise DeadlineExceeded("The deadline passed before the model was asked.")
        choices = (get_args(Adapt).index(pair.adapt), get_args(Checkpoint).index(pair.checkpoint))
        adapt, checkpoint = (np.array([choice], np.uint8) for choice in choices)
        given = ((LEFT, pair.left), (RIGHT, pair.right), (ADAPT, adapt), (CHECKPOINT, checkpoint))
        with tracing.call(_INFER, {**self._peer, "depthlens.model": STEREO.name}) as headers:
            async with _mapped_errors(STEREO.name):
                result = await self._triton.infer(
                    STEREO.name,
                    [_input(tensor, array) for tensor, array in given],
                    request_id=request_id or "",
                    sequence_id=pair.sequence or secrets.randbits(63) + 1,
                    sequence_start=start,
                    sequence_end=pair.end or pair.sequence is None,
                    headers=headers,
                    client_timeout=timeout_s,
                )
        outputs = {tensor.name: _output(tensor, result, STEREO.name) for tensor in STEREO.outputs}
        return Prediction(outputs, STEREO.name, result.get_response().model_version)

    def choose(self, model: str, version: str) -> None:
        """Ask this version from now on."""
        self._versions[model] = version

    def version(self, model: str) -> str | None:
        """The version that is asked, None before the first answer."""
        return self._versions.get(model)

    async def is_ready(self, model: str) -> bool:
        """See `DepthClient.is_ready`."""
        try:
            async with _mapped_errors(model):
                return bool(await self._triton.is_model_ready(model, client_timeout=_CONTROL_TIMEOUT_S))
        except (ModelUnavailable, ModelFailed, DeadlineExceeded, ContractViolation):
            return False

    async def spec(self, model: str) -> ModelSpec:
        """See `DepthClient.spec`; asked once, and again after a load here."""
        if model in self._specs:
            return self._specs[model]
        if not re.fullmatch(MODEL_NAME, model):
            raise UnknownModel("No model can have this name.")
        try:
            spec = spec_of(await self.config(model))
        except (VersionGone, KeyError, ValueError) as error:
            raise UnknownModel(f"No model is called {model}.") from error
        self._specs[model] = spec
        return spec

    async def names(self) -> list[str]:
        """Models of the repository, loaded or not, as far as the server may say; those of `MODELS` first."""
        try:
            async with _mapped_errors("index"):
                index = await self._triton.get_model_repository_index(
                    headers=self._admin_headers, client_timeout=_CONTROL_TIMEOUT_S
                )
        except (ModelUnavailable, ModelFailed, DeadlineExceeded, ContractViolation):
            return list(self._specs)
        found = sorted({entry.name for entry in index.models if re.fullmatch(MODEL_NAME, entry.name)})
        return list(dict.fromkeys([*self._specs, *found]))

    async def served_models(self) -> list[ServedModel]:
        """See `DepthClient.served_models`; where the repository's index is restricted, those that were asked for."""
        names = dict.fromkeys((*await self.names(), STEREO.name))
        served = await asyncio.gather(*map(self._served, names))
        return [entry for entries in served for entry in entries]

    async def _served(self, name: str) -> list[ServedModel]:
        try:
            async with _mapped_errors(name):
                metadata = await self._triton.get_model_metadata(name, client_timeout=_CONTROL_TIMEOUT_S)
            spec = None if name in MODELS else await self.spec(name)
        except (ModelUnavailable, ModelFailed, DeadlineExceeded, ContractViolation, UnknownModel):
            return [ServedModel(name, "", False)] if name in MODELS else []
        ready = await self.is_ready(name)
        return [ServedModel(name, version, ready, spec) for version in sorted(metadata.versions, key=int)]

    async def serving(self, model: str) -> list[str]:
        """Versions of the model that are loaded here, the one that is asked first.

        Raises:
            ModelUnavailable: none is, or the server does not answer.
        """
        async with _mapped_errors(model):
            metadata = await self._triton.get_model_metadata(model, client_timeout=_CONTROL_TIMEOUT_S)
        chosen = self._versions.get(model)
        return sorted(metadata.versions, key=lambda version: (version == chosen, int(version)), reverse=True)

    async def config(self, model: str) -> dict[str, Any]:
        """The configuration that the loaded model runs with, as `load` takes it."""
        async with _mapped_errors(model):
            answer = await self._triton.get_model_config(model, as_json=True, client_timeout=_CONTROL_TIMEOUT_S)
        config: dict[str, Any] = answer["config"]
        return config

    async def executions(self, model: str) -> int:
        """How many batches the loaded model has run: a count that stands still while it hangs."""
        async with _mapped_errors(model):
            answer = await self._triton.get_inference_statistics(model, as_json=True, client_timeout=_CONTROL_TIMEOUT_S)
        return sum(int(version.get("execution_count", 0)) for version in answer.get("model_stats", ()))

    async def load(self, model: str, config: dict[str, Any] | None = None, *, timeout_s: float = 60.0) -> None:
        """Load or reload a model; a no-op on a loaded model whose files and configuration are unchanged.

        The old one serves until the new one is loaded, and on when that fails.

        Args:
            model: name of the model.
            config: instead of its `config.pbtxt`.
            timeout_s: deadline of the call.

        Raises:
            ContractViolation: the server refuses the model or the admin secret.
        """
        if model not in MODELS:
            self._specs.pop(model, None)  # its files may say something else now
        async with _mapped_errors(model):
            await self._triton.load_model(
                model,
                headers=self._admin_headers,
                config=None if config is None else json.dumps(config),
                client_timeout=timeout_s,
            )

    async def unload(self, model: str, *, timeout_s: float = 60.0) -> None:
        """Unload a model; requests in flight end first."""
        async with _mapped_errors(model):
            await self._triton.unload_model(model, headers=self._admin_headers, client_timeout=timeout_s)

    async def reload(self, model: str) -> None:
        """Unload, then load the same version: what gives a model a new process when its old one died.

        The same one, because files of a newer version may lie there that nobody has chosen yet.
        """
        version = self._versions.get(model)
        config = only_versions(await self.config(model), version) if version else None
        await self.unload(model)
        await self.load(model, config)

    async def close(self) -> None:
        """See `DepthClient.close`."""
        await self._triton.close()


def only_versions(config: dict[str, Any], *versions: str) -> dict[str, Any]:
    """The configuration with these versions to load and no others."""
    return config | {"version_policy": {"specific": {"versions": [int(version) for version in versions]}}}


def _input(tensor: TensorSpec, image: Image) -> InferInput:
    if image.dtype != np.uint8 or image.ndim != len(tensor.dims) or image.shape[-1] != tensor.dims[-1]:
        raise ContractViolation(f"{tensor.name} must be uint8 {tensor.dims}, not {image.dtype} {image.shape}")
    batch = np.ascontiguousarray(image)[np.newaxis]
    infer_input = InferInput(tensor.name, list(batch.shape), "UINT8")
    infer_input.set_data_from_numpy(batch)
    return infer_input


def _output(tensor: TensorSpec, result: InferResult, model: str) -> NDArray[np.float32]:
    try:
        array = result.as_numpy(tensor.name)
    except ValueError:
        raise ModelFailed("The model's answer is damaged.") from None
    if array is None or array.dtype != np.float32 or array.ndim != len(tensor.dims) + 1 or array.shape[0] != 1:
        shape = "nothing" if array is None else f"{array.dtype} {array.shape}"
        raise ContractViolation(f"{model} answered {shape} for {tensor.name}, {len(tensor.dims)} float32 axes expected")
    if not np.isfinite(array).all():
        raise ModelFailed("The model answered values that are not numbers.")
    output: NDArray[np.float32] = array[0]
    return output


@asynccontextmanager
async def _mapped_errors(model: str) -> AsyncIterator[None]:
    """Turn everything tritonclient and gRPC raise into this service's errors, without their text.

    Raises:
        CancelledError: the task was cancelled just as the answer came; grpc.aio then gives the answer, and the cancel
            would be lost: a canary would probe for ever, and a stop wait for it.
    """
    caller = asyncio.current_task()
    cancels = caller.cancelling() if caller is not None else 0
    try:
        yield
        if caller is not None and caller.cancelling() > cancels:
            raise asyncio.CancelledError
    except InferenceServerException as error:
        raise translate(error.status() or "", error.message() or "", model) from error
    except asyncio.CancelledError:
        # grpc.aio cancels its calls when the channel closes; only a cancelled task may see that as its own cancel.
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise ModelUnavailable("The connection to the inference server was closed.") from None
