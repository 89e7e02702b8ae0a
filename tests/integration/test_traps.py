"""Known traps of this Triton, each with a control that shows the trap where it can be shown safely."""

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from embedded_triton import (
    ServedTriton,
    eventually,
    expected_outputs,
    make_python_repository,
    make_repository,
    noise,
    write_tiny_network,
)
from tritonclient.grpc import InferInput
from tritonclient.grpc.aio import InferenceServerClient
from tritonclient.utils import InferenceServerException

from service.embedded.settings import EmbeddedSettings
from service.embedded.supervisor import Supervisor
from service.errors import DepthlensError, ModelFailed
from service.inference import CHANNEL_ARGUMENTS, TritonClient

pytestmark = pytest.mark.integration

NUMPY2 = Path(sys.prefix) / "numpy2"
LARGE = (1300, 1300)  # 5.1 MB in, 6.8 MB per output: beyond gRPC's own limit of 4 MiB both ways


def test_messages_beyond_4_mib_pass(triton: ServedTriton) -> None:
    async def scenario() -> None:
        client = TritonClient(triton.grpc_url)
        image = noise(LARGE)
        prediction = await client.infer("focus", image, timeout_s=20.0)
        np.testing.assert_array_equal(prediction.outputs["person"], expected_outputs(image)["person"])
        await client.close()

    asyncio.run(scenario())


def test_control_other_channel_arguments_alone_drop_the_limits(triton: ServedTriton) -> None:
    async def scenario() -> None:
        arguments = [(key, value) for key, value in CHANNEL_ARGUMENTS if "message_length" not in key]
        batch = noise(LARGE)[np.newaxis]
        tensor = InferInput("image", list(batch.shape), "UINT8")
        tensor.set_data_from_numpy(batch)
        async with InferenceServerClient(triton.grpc_url, channel_args=arguments) as client:
            with pytest.raises(InferenceServerException, match="larger than max"):
                await client.infer("focus", [tensor])

    asyncio.run(scenario())


AS_NUMPY_MODEL = """
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        answers = []
        for request in requests:
            image = pb_utils.get_input_tensor_by_name(request, "image").as_numpy()
            outputs = [("inverse_depth", image.sum(axis=3) / 765), ("person", image[..., 0] > 127.5)]
            tensors = [pb_utils.Tensor(name, value.astype("float32")) for name, value in outputs]
            answers.append(pb_utils.InferenceResponse(tensors))
        return answers
"""


async def outcome_under_numpy2(repository: Path, models: tuple[str, ...]) -> bool:
    """Whether the answer is exact when the models' Python finds NumPy 2 first."""
    settings = EmbeddedSettings(repository, models=models, canaries=(), working_directory=NUMPY2, exit_timeout_s=0)
    image = noise((320, 320))
    async with Supervisor(settings) as supervisor:
        client = TritonClient(supervisor.grpc_url)
        try:
            prediction = await client.infer(models[0], image, timeout_s=10.0)
        except DepthlensError:
            return False
        finally:
            await client.close()
    expected = expected_outputs(image)
    depth, person = prediction.outputs["inverse_depth"], prediction.outputs["person"]
    return (
        depth.shape == (320, 320)
        and np.allclose(depth, expected["inverse_depth"], atol=1e-6, rtol=0)
        and np.array_equal(person, expected["person"])
    )


needs_numpy2 = pytest.mark.skipif(
    not (NUMPY2 / "numpy").is_dir(), reason=f"no NumPy 2 in {NUMPY2.name}/ of the environment: run `make test`"
)


@needs_numpy2
def test_numpy_2_does_not_corrupt_tensors(tmp_path: Path) -> None:
    repository = make_repository(tmp_path / "repository", precision="f32")
    assert asyncio.run(outcome_under_numpy2(repository, ("focus_on_depth", "focus")))


@needs_numpy2
def test_control_as_numpy_corrupts_under_numpy_2(tmp_path: Path) -> None:
    repository = make_python_repository(tmp_path / "repository", AS_NUMPY_MODEL)
    assert not asyncio.run(outcome_under_numpy2(repository, ("focus_on_depth",)))


PARALLEL_STEPS = """
ensemble_scheduling {
  step [
    {
      model_name: "focus_on_depth" model_version: -1
      input_map { key: "image" value: "image" }
      output_map { key: "inverse_depth" value: "inverse_depth" }
    },
    {
      model_name: "second" model_version: -1
      input_map { key: "image" value: "image" }
      output_map { key: "person" value: "person" }
    }
  ]
}
"""


def parallel_repository(directory: Path) -> Path:
    """`focus` as two networks side by side."""
    repository = make_repository(directory)
    network = (repository / "focus_on_depth" / "config.pbtxt").read_text()
    write_tiny_network(repository / "second" / "1" / "model.onnx")
    (repository / "second" / "config.pbtxt").write_text(network.replace('name: "focus_on_depth"', 'name: "second"'))
    ensemble = (repository / "focus" / "config.pbtxt").read_text()
    head = ensemble[: ensemble.index("ensemble_scheduling")]
    (repository / "focus" / "config.pbtxt").write_text(head + PARALLEL_STEPS)
    return repository


def test_a_parallel_ensemble_survives_many_calls(tmp_path: Path) -> None:
    repository = parallel_repository(tmp_path / "repository")
    images = [noise((224, 416), seed) for seed in range(8)]

    async def scenario() -> None:
        settings = EmbeddedSettings(repository, models=("second", "focus_on_depth", "focus"), exit_timeout_s=0)
        async with Supervisor(settings) as supervisor:
            client = TritonClient(supervisor.grpc_url)
            for timeout_s in (20.0, 0.05, 20.0):  # in the middle a storm of deadlines
                calls = [client.infer("focus", images[index % 8], timeout_s=timeout_s) for index in range(200)]
                outcomes = await asyncio.gather(*calls, return_exceptions=True)
                if timeout_s > 1:
                    for index, outcome in enumerate(outcomes):
                        assert not isinstance(outcome, BaseException), outcome
                        expected = expected_outputs(images[index % 8])["person"]
                        np.testing.assert_array_equal(outcome.outputs["person"], expected)
            assert (supervisor.restarts, supervisor.reloads) == (0, 0)
            await client.close()

    asyncio.run(scenario())


def test_control_a_full_queue_in_a_parallel_ensemble_ends_the_server(tmp_path: Path) -> None:
    repository = parallel_repository(tmp_path / "repository")
    for network in ("focus_on_depth", "second"):
        config = repository / network / "config.pbtxt"
        bounded = "dynamic_batching { default_queue_policy { max_queue_size: 4 } }"
        config.write_text(config.read_text().replace("dynamic_batching { }", bounded))

    async def scenario() -> None:
        settings = EmbeddedSettings(repository, models=("second", "focus_on_depth", "focus"), exit_timeout_s=0)
        async with Supervisor(settings) as supervisor:
            client = TritonClient(supervisor.grpc_url)
            started = time.monotonic()
            while supervisor.restarts == 0:
                assert time.monotonic() - started < 60, "this Triton survives: the config check can be relaxed"
                calls = [client.infer("focus", noise((224, 416)), timeout_s=5.0) for _ in range(200)]
                await asyncio.gather(*calls, return_exceptions=True)
            await client.close()

    asyncio.run(scenario())


def test_a_batch_that_fails_leaves_the_server_alive(tmp_path: Path) -> None:
    """One error object shared by the responses of a batch ended tritonserver with a segmentation fault."""
    repository = make_repository(tmp_path / "repository")
    config = repository / "focus_on_depth" / "config.pbtxt"
    # Ragged batches join unequal shapes, which the network then cannot stack.
    config.write_text(
        config.read_text().replace("dims: [ -1, -1, 3 ]\n", "dims: [ -1, -1, 3 ] allow_ragged_batch: true\n")
    )

    async def scenario() -> None:
        settings = EmbeddedSettings(repository, models=("focus_on_depth",), canary_period_s=0.2, exit_timeout_s=0)
        async with Supervisor(settings) as supervisor:
            client = TritonClient(supervisor.grpc_url)
            sizes = ((224, 416), (416, 224), (320, 320))
            calls = [client.infer("focus_on_depth", noise(sizes[i % 3]), timeout_s=10.0) for i in range(96)]
            outcomes = await asyncio.gather(*calls, return_exceptions=True)
            assert {type(outcome) for outcome in outcomes if isinstance(outcome, Exception)} == {ModelFailed}
            await eventually(lambda: supervisor.ready, 5)
            assert (supervisor.restarts, supervisor.reloads) == (0, 0)
            await client.close()

    asyncio.run(scenario())


def test_files_beside_the_caller_are_not_imported_by_the_models(repository: Path, tmp_path: Path) -> None:
    """The python backend puts its working directory first on `sys.path`; a stray file there would win."""
    (tmp_path / "openvino.py").write_text("raise RuntimeError('a stray file was imported')")
    log = tmp_path / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "service.embedded", "--repository", str(repository), "--exit-timeout-s=0"),
                *("--grpc-port=0", "--http-port=0", "--metrics-port=0"),
            ],
            stdout=out,
            stderr=out,
            cwd=tmp_path,
            env=os.environ.copy(),
        )
    try:
        deadline = time.monotonic() + 60
        while "is ready" not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
    finally:
        process.terminate()
        process.wait(15)
