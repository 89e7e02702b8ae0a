"""Depth Anything V2's key map and arithmetic, against transformers."""

import torch
import torch.nn.functional as F  # noqa: N812  # as everybody writes it
from oracles import (
    IMAGENET,
    TO_DEPTH_ANYTHING,
    TOLERANCE,
    agree,
    both,
    depth_anything_oracle,
    pictures,
    pixels,
    randomise,
)

from training.importers import depth_anything as depth_anything_names
from training.models import depth_anything


def tiny_depth_anything():
    return randomise(depth_anything_oracle(70, 32, 4, 2, (1, 2, 3, 4), [8, 16, 24, 32], 16))


def dinov2_rule(oracle):
    """Position embeddings as DINOv2's own code resamples them."""
    embeddings = oracle.backbone.embeddings
    trained = embeddings.position_embeddings
    side = int((trained.shape[1] - 1) ** 0.5)

    def interpolate(_, height, width):
        rows, columns = height // 14, width // 14
        if rows == columns == side:
            return trained
        grid = trained[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
        grid = F.interpolate(grid, scale_factor=((rows + 0.1) / side, (columns + 0.1) / side), mode="bicubic")
        assert grid.shape[-2:] == (rows, columns)
        return torch.cat((trained[:, :1], grid.permute(0, 2, 3, 1).flatten(1, 2)), dim=1)

    embeddings.interpolate_pos_encoding = interpolate
    return oracle


def test_depth_anything_small_is_the_published_network(tmp_path):
    oracle = randomise(depth_anything_oracle())
    network, published = both(
        oracle, depth_anything.depth_anything_v2_small, depth_anything_names.LAYOUTS, TO_DEPTH_ANYTHING, tmp_path
    )
    assert len(published) == 239
    assert sum(value.numel() for value in published.values()) == 24_785_089
    image = pictures(518, 518, count=1)
    with torch.no_grad():
        agree(network, image, oracle(pixels(image, *IMAGENET)).predicted_depth)


def test_depth_anything_at_any_size(tmp_path):
    oracle = tiny_depth_anything()
    network, _ = both(
        oracle, depth_anything.depth_anything_v2_tiny, depth_anything_names.LAYOUTS, TO_DEPTH_ANYTHING, tmp_path
    )
    sizes = [(70, 70), (56, 70), (98, 42), (84, 84), (126, 168)]
    with torch.no_grad():
        as_transformers_has_it = [oracle(pixels(pictures(*size), *IMAGENET)).predicted_depth for size in sizes]
        dinov2_rule(oracle)
        for size, other in zip(sizes, as_transformers_has_it, strict=True):
            image = pictures(*size)
            expected = oracle(pixels(image, *IMAGENET)).predicted_depth
            agree(network, image, expected)
            if size != (70, 70):  # transformers resamples position embeddings by size, DINOv2 by its offset scale
                assert (other - expected).abs().max() > TOLERANCE
