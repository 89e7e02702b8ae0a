"""Every committed `config.pbtxt`, parsed with Triton's own protobuf, against the contract and the known traps."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from service.contract import CANARY_SIZE, MODELS, NETWORK_SIZES, ModelSpec, TensorSpec

REPOSITORY = Path(__file__).parents[2] / "model_repository"
TYPES = {"uint8": model_config_pb2.TYPE_UINT8, "float32": model_config_pb2.TYPE_FP32}
ModelConfig = model_config_pb2.ModelConfig


def parse(text: str) -> ModelConfig:
    return text_format.Parse(text, ModelConfig())


def config_of(name: str) -> ModelConfig:
    return parse((REPOSITORY / name / "config.pbtxt").read_text())


NETWORKS = sorted(name for name, spec in MODELS.items() if spec.kind == "network")
ENSEMBLES = sorted(name for name, spec in MODELS.items() if spec.kind == "ensemble")


def test_the_repository_has_the_contracts_models() -> None:
    """And those that somebody exported beside them, which git does not see."""
    assert {path.parent.name for path in REPOSITORY.glob("*/config.pbtxt")} >= set(MODELS)


def tensors(specs: tuple[TensorSpec, ...]) -> list[tuple[str, int, list[int]]]:
    return [(spec.name, TYPES[spec.dtype], list(spec.dims)) for spec in specs]


@pytest.mark.parametrize("spec", MODELS.values(), ids=lambda spec: spec.name)
def test_config_is_the_contract(spec: ModelSpec) -> None:
    config = config_of(spec.name)
    assert config.name == spec.name
    assert config.max_batch_size == spec.max_batch_size
    assert [(entry.name, entry.data_type, list(entry.dims)) for entry in config.input] == tensors(spec.inputs)
    assert [(entry.name, entry.data_type, list(entry.dims)) for entry in config.output] == tensors(spec.outputs)
    assert (config.platform == "ensemble") == (spec.kind == "ensemble")


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_run_on_openvino_on_the_cpu(name: str) -> None:
    config = config_of(name)
    assert (config.backend, config.default_model_filename) == ("openvino", "model.onnx")
    assert [(group.kind, group.count) for group in config.instance_group] == [
        (model_config_pb2.ModelInstanceGroup.KIND_CPU, 1)
    ]
    assert config.HasField("dynamic_batching")


@pytest.mark.parametrize("name", NETWORKS)
def test_every_size_the_gateway_sends_is_warm(name: str) -> None:
    warm = set()
    for sample in config_of(name).model_warmup:
        [image] = sample.inputs.values()
        assert (sample.batch_size, image.data_type) == (1, model_config_pb2.TYPE_UINT8)
        warm.add(tuple(image.dims))
    assert warm == {(*size, 3) for size in (*NETWORK_SIZES, CANARY_SIZE)}


@pytest.mark.parametrize("name", ENSEMBLES)
def test_ensembles_are_wired_to_their_steps(name: str) -> None:
    config = config_of(name)
    known = {entry.name for entry in config.input}
    for step in config.ensemble_scheduling.step:
        inputs = {entry.name for entry in config_of(step.model_name).input}
        outputs = {entry.name for entry in config_of(step.model_name).output}
        assert set(step.input_map) == inputs
        assert set(step.output_map) <= outputs
        assert set(step.input_map.values()) <= known
        known |= set(step.output_map.values())
        assert config_of(step.model_name).max_batch_size >= config.max_batch_size
    assert {entry.name for entry in config.output} <= known
    assert (REPOSITORY / name / "1").is_dir(), "Triton wants a version folder, also for an ensemble"


def queue_policies(config: ModelConfig) -> Iterator[model_config_pb2.ModelQueuePolicy]:
    yield config.dynamic_batching.default_queue_policy
    yield from config.dynamic_batching.priority_queue_policy.values()


def traps(configs: dict[str, ModelConfig]) -> list[str]:
    """What in these configs is known to hurt Triton 2.51, one sentence each."""
    found = []
    for name, config in configs.items():
        if any(policy.default_timeout_microseconds for policy in queue_policies(config)):
            found.append(f"{name}: a queue timeout makes the batcher stall (server issue 8870)")
        if config.dynamic_batching.max_queue_delay_microseconds:
            found.append(f"{name}: a queue delay makes single requests wait 0.5 s")
        steps = config.ensemble_scheduling.step
        for step in steps if len(steps) > 1 else ():
            if any(policy.max_queue_size for policy in queue_policies(configs[step.model_name])):
                found.append(f"{name}: {step.model_name} has a max_queue_size, which ends the server when it is full")
    return found


def test_no_config_steps_into_a_known_trap() -> None:
    assert traps({name: config_of(name) for name in MODELS}) == []


STEP = 'step { model_name: "network" model_version: -1 }'


@pytest.mark.parametrize(
    ("batching", "steps", "count"),
    [
        ("", 1, 0),
        ("", 2, 0),
        ("default_queue_policy { max_queue_size: 8 }", 1, 0),
        ("default_queue_policy { max_queue_size: 8 }", 2, 2),
        ("priority_levels: 2 priority_queue_policy { key: 2 value { max_queue_size: 8 } }", 2, 2),
        ("default_queue_policy { default_timeout_microseconds: 1 }", 1, 1),
        ("max_queue_delay_microseconds: 100", 1, 1),
    ],
)
def test_the_check_finds_the_traps(batching: str, steps: int, count: int) -> None:
    configs = {
        "network": parse(f'name: "network" dynamic_batching {{ {batching} }}'),
        "ensemble": parse(f'name: "ensemble" ensemble_scheduling {{ {STEP * steps} }}'),
    }
    assert len(traps(configs)) == count
