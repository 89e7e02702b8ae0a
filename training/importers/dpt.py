"""Names of DPT's tensors, in isl-org/DPT's own files (and MiDaS 3.0's, the same) and in those for transformers."""

from collections.abc import Mapping

from training.importers.layout import Layout

_LEVELS = range(4)
_DEEPEST = 24  # blocks of the largest transformer
PLAIN = {1: "conv1", 3: "conv2"}
"""Parts of a residual unit without batch norm."""
NORMED = {1: "conv1", 2: "bn1", 4: "conv2", 5: "bn2"}
"""And with it."""
_TRANSFORMERS_WORDS = {"conv1": "convolution1", "conv2": "convolution2", "bn1": "batch_norm1", "bn2": "batch_norm2"}


def published_fusion(scratch: str, unit: Mapping[int, str]) -> dict[str, str]:
    """Of `training.models.dpt.Fusion` in files of MiDaS, DPT and Depth Anything, below `scratch`."""
    names = {}
    for level in _LEVELS:
        block = f"{scratch}refinenet{level + 1}."
        names[f"decoder.narrow.{level}."] = f"{scratch}layer{level + 1}_rn."
        names[f"decoder.project.{level}."] = f"{block}out_conv."
        for index, part in unit.items():
            names[f"decoder.skip.{level}.body.{index}."] = f"{block}resConfUnit1.{part}."
            names[f"decoder.refine.{level}.body.{index}."] = f"{block}resConfUnit2.{part}."
    return names


def transformers_fusion(unit: Mapping[int, str]) -> dict[str, str]:
    """The same in files for transformers, which count fusion from coarse to fine."""
    names = {}
    for level in _LEVELS:
        block = f"neck.fusion_stage.layers.{3 - level}."
        names[f"decoder.narrow.{level}."] = f"neck.convs.{level}."
        names[f"decoder.project.{level}."] = f"{block}projection."
        for index, part in unit.items():
            word = _TRANSFORMERS_WORDS[part]
            names[f"decoder.skip.{level}.body.{index}."] = f"{block}residual_layer1.{word}."
            names[f"decoder.refine.{level}.body.{index}."] = f"{block}residual_layer2.{word}."
    return names


def transformers_blocks(layer: str, words: Mapping[str, str]) -> dict[str, str]:
    """Of a transformer's blocks in files for transformers; `words` says what the parts outside attention are called."""
    names = {}
    for number in range(_DEEPEST):
        ours, theirs = f"encoder.body.blocks.{number}.", f"{layer}{number}."
        names[f"{ours}attn.qkv."] = f"{theirs}attention.attention.query|key|value."
        names[f"{ours}attn.proj."] = f"{theirs}attention.output.dense."
        names |= {ours + here: theirs + there for here, there in words.items()}
    return names


_PUBLISHED_UNUSED = (
    "pretrained.model.norm.",
    "pretrained.model.head.",
    "scratch.refinenet4.resConfUnit1.",
    "auxlayer.",
)
_TRANSFORMERS_UNUSED = (
    "dpt.layernorm.",
    "dpt.pooler.",
    "neck.fusion_stage.layers.0.residual_layer1.",
    "auxiliary_head.",
)
_TRANSFORMERS_BLOCKS = transformers_blocks(
    "dpt.encoder.layer.",
    {
        "norm1.": "layernorm_before.",
        "norm2.": "layernorm_after.",
        "mlp.fc1.": "intermediate.dense.",
        "mlp.fc2.": "output.dense.",
    },
)
_DEPTH_HEAD = {"head.before.": "0.", "head.after.0.": "2.", "head.after.2.": "4."}
_PERSON_HEAD = {"head.body.": ""}


def _published(unit: Mapping[int, str], head: Mapping[str, str], first: int) -> Layout:
    """`first`: which level the first of the features read from tokens is."""
    names = {"encoder.body.": "pretrained.model."}
    for number in range(4 - first):
        operation = f"pretrained.act_postprocess{number + first + 1}."
        names[f"encoder.read.{number}.project.0."] = f"{operation}0.project.0."
        names[f"encoder.resample.{number}.0."] = f"{operation}3."
        names[f"encoder.resample.{number}.1."] = f"{operation}4."
    names |= {ours: f"scratch.output_conv.{theirs}" for ours, theirs in head.items()}
    return Layout("pretrained.model.cls_token", names | published_fusion("scratch.", unit), _PUBLISHED_UNUSED)


def _transformers(unit: Mapping[int, str], head: Mapping[str, str], first: int) -> Layout:
    embeddings = "dpt.embeddings."
    names = {
        "encoder.body.cls_token": f"{embeddings}cls_token",
        "encoder.body.pos_embed": f"{embeddings}position_embeddings",
        "encoder.body.patch_embed.proj.": f"{embeddings}{'' if first else 'patch_embeddings.'}projection.",
        "encoder.body.patch_embed.backbone.stem.conv.": f"{embeddings}backbone.bit.embedder.convolution.",
        "encoder.body.patch_embed.backbone.stem.norm.": f"{embeddings}backbone.bit.embedder.norm.",
    }
    for stage in range(3):
        for block in range(9):
            names[f"encoder.body.patch_embed.backbone.stages.{stage}.blocks.{block}."] = (
                f"{embeddings}backbone.bit.encoder.stages.{stage}.layers.{block}."
            )
    for number in range(4 - first):
        layer = f"neck.reassemble_stage.layers.{number + first}."
        names[f"encoder.read.{number}.project."] = f"neck.reassemble_stage.readout_projects.{number + first}."
        names[f"encoder.resample.{number}.0."] = f"{layer}projection."
        names[f"encoder.resample.{number}.1."] = f"{layer}resize."
    names |= {ours: f"head.head.{theirs}" for ours, theirs in head.items()}
    names |= _TRANSFORMERS_BLOCKS | transformers_fusion(unit)
    return Layout("dpt.embeddings.cls_token", names, _TRANSFORMERS_UNUSED)


DEPTH = (_published(PLAIN, _DEPTH_HEAD, 0), _transformers(PLAIN, _DEPTH_HEAD, 0))
HYBRID = (_published(PLAIN, _DEPTH_HEAD, 2), _transformers(PLAIN, _DEPTH_HEAD, 2))
SEGMENTATION = (_published(NORMED, _PERSON_HEAD, 0), _transformers(NORMED, _PERSON_HEAD, 0))
