"""DPT's key maps and arithmetic, against transformers: depth, people, and the hybrid."""

import torch
from oracles import HALF, TINY, TO_DPT, agree, both, pictures, pixels, randomise, transformers

from training.importers import dpt as dpt_names
from training.models import dpt
from training.models.focus_on_depth import Normalise


def dpt_of_transformers(oracle, image):
    """Its result for a picture that need not be square: `forward` takes the grid for a square one."""
    *_, height, width = image.shape
    outputs = oracle.dpt(image, output_hidden_states=True)
    if oracle.config.is_hybrid:
        taken = [*outputs.intermediate_activations, *(outputs.hidden_states[1:][i] for i in (2, 3))]
    else:
        taken = list(outputs.hidden_states[1:])
    result = oracle.head(oracle.neck(taken, height // 16, width // 16))
    return result if result.ndim == 3 else result.softmax(1)[:, dpt.PERSON]


def test_dpt_at_any_size(tmp_path):
    oracle = randomise(transformers.DPTForDepthEstimation(transformers.DPTConfig(**TINY)))
    network, _ = both(oracle, dpt.dpt_tiny, dpt_names.DEPTH, TO_DPT, tmp_path, lambda s: {"model": s, "optimizer": {}})
    for size in [(64, 64), (96, 96), (64, 96), (128, 32)]:
        image = pictures(*size)
        with torch.no_grad():
            expected = dpt_of_transformers(oracle, pixels(image))
            if size[0] == size[1]:
                assert torch.equal(expected, oracle(pixels(image)).predicted_depth)
        agree(network, image, expected)


def test_dpt_for_people_gives_the_probability_of_class_12(tmp_path):
    config = transformers.DPTConfig(
        **TINY, num_labels=dpt.ADE20K_CLASSES, use_batch_norm_in_fusion_residual=True, use_auxiliary_head=True
    )
    oracle = randomise(transformers.DPTForSemanticSegmentation(config))
    with torch.no_grad():
        oracle.head.head[4].bias[dpt.PERSON] += 5  # of 150, else hardly ever seen
    network, published = both(oracle, dpt.dpt_ade20k_tiny, dpt_names.SEGMENTATION, TO_DPT, tmp_path)
    assert any(name.startswith("auxlayer.") for name in published)
    for size in [(64, 64), (96, 64)]:
        image = pictures(*size)
        with torch.no_grad():
            expected = dpt_of_transformers(oracle, pixels(image))
        agree(lambda image: torch.sigmoid(network(image)), image, expected)


def tiny_hybrid():
    body = dpt.timm_body("vit_base_r50_s16_384", embed_dim=32, depth=4, num_heads=2, img_size=64)
    encoder = dpt.HybridEncoder(body, (2, 3))
    return dpt.Dpt(Normalise(HALF, HALF), encoder, dpt.Fusion(encoder.channels, 16), dpt.DepthHead(16))


def test_dpt_hybrid(tmp_path):
    config = transformers.DPTConfig(
        **TINY | {"neck_hidden_sizes": [256, 512, 32, 32]}, is_hybrid=True, backbone_featmap_shape=[1, 1024, 4, 4]
    )
    oracle = randomise(transformers.DPTForDepthEstimation(config))
    network, _ = both(oracle, tiny_hybrid, dpt_names.HYBRID, TO_DPT, tmp_path)
    for size in [(64, 64), (64, 96)]:
        oracle.dpt.embeddings.image_size = size  # it refuses others, though it resamples position embeddings
        image = pictures(*size, count=1)
        with torch.no_grad():
            agree(network, image, dpt_of_transformers(oracle, pixels(image)))
