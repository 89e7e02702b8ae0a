"""Names of Depth Anything V2's tensors, in its authors' files and in those for transformers."""

from training.importers.dpt import PLAIN, published_fusion, transformers_blocks, transformers_fusion
from training.importers.layout import Layout

_SCRATCH = "depth_head.scratch."

_PUBLISHED = Layout(
    mark="pretrained.cls_token",
    names={
        "encoder.body.": "pretrained.",
        **{f"encoder.resample.{level}.0.": f"depth_head.projects.{level}." for level in range(4)},
        **{f"encoder.resample.{level}.1.": f"depth_head.resize_layers.{level}." for level in range(4)},
        "head.before.": f"{_SCRATCH}output_conv1.",
        "head.after.": f"{_SCRATCH}output_conv2.",
        **published_fusion(_SCRATCH, PLAIN),
    },
    unused=("pretrained.mask_token", f"{_SCRATCH}refinenet4.resConfUnit1."),
)

_TRANSFORMERS = Layout(
    mark="backbone.embeddings.cls_token",
    names={
        "encoder.body.cls_token": "backbone.embeddings.cls_token",  # nosec B105  # no password: a token of a transformer
        "encoder.body.pos_embed": "backbone.embeddings.position_embeddings",
        "encoder.body.patch_embed.proj.": "backbone.embeddings.patch_embeddings.projection.",
        "encoder.body.norm.": "backbone.layernorm.",
        **{f"encoder.resample.{level}.0.": f"neck.reassemble_stage.layers.{level}.projection." for level in range(4)},
        **{f"encoder.resample.{level}.1.": f"neck.reassemble_stage.layers.{level}.resize." for level in range(4)},
        "head.before.": "head.conv1.",
        "head.after.0.": "head.conv2.",
        "head.after.2.": "head.conv3.",
        **transformers_blocks(
            "backbone.encoder.layer.",
            {
                "norm1.": "norm1.",
                "norm2.": "norm2.",
                "ls1.gamma": "layer_scale1.lambda1",
                "ls2.gamma": "layer_scale2.lambda1",
                "mlp.": "mlp.",
            },
        ),
        **transformers_fusion(PLAIN),
    },
    unused=("backbone.embeddings.mask_token", "neck.fusion_stage.layers.0.residual_layer1."),
)

LAYOUTS = (_PUBLISHED, _TRANSFORMERS)
