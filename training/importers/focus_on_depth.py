"""Names of FocusOnDepth's tensors in its authors' checkpoints, which hold two optimisers' states beside them."""

from training.importers.layout import Layout

_HEAD = {"conv1.": "head.0.", "conv2.": "head.2.", "last.": "head.4."}

LAYOUTS = (
    Layout(
        mark="transformer_encoders.cls_token",
        names={
            "encoder.": "transformer_encoders.",
            **{f"reassembles.{level}.read.": f"reassembles.{level}.read." for level in range(4)},
            **{f"reassembles.{level}.project.": f"reassembles.{level}.resample.conv1." for level in range(4)},
            **{f"reassembles.{level}.resample.": f"reassembles.{level}.resample.conv2." for level in range(4)},
            **{f"fusions.{level}.unit1.": f"fusions.{level}.res_conv1." for level in range(4)},
            **{f"fusions.{level}.unit2.": f"fusions.{level}.res_conv2." for level in range(4)},
            **{f"depth_head.{here}": f"head_depth.{there}" for here, there in _HEAD.items()},
            **{f"person_head.{here}": f"head_segmentation.{there}" for here, there in _HEAD.items()},
        },
    ),
)
