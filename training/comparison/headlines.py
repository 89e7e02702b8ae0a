"""Numbers the papers print, to stand beside ours: other data, other weights, other budgets. None was reproduced."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Headline:
    """A row of a paper.

    Attributes:
        paper: Which.
        system: As the paper names it.
        ours: The recipe of `training/configs/compare/` it corresponds to.
        delta1: None where the paper has no number; so for all.
        abs_rel: AbsRel.
        rmse: RMSE, in the paper's unit: metres, except for seed 1, which states none.
        more: What else the paper says.
        differs: What the paper had and we have not.
    """

    paper: str
    system: str
    ours: str
    delta1: float | None
    abs_rel: float | None
    rmse: float | None
    more: str
    differs: str


_NYU = "NYUv2, Eigen crop, 654 pictures"
_STACK = f"{_NYU}; 24,231 to train on; encoders from ImageNet; ten GPUs"
_STUDENT = "NYUv2; encoder from ImageNet; teacher DPT"

HEADLINES = (
    Headline(
        "seed 0", "FocusOnDepth, ViT-B", "focus_on_depth", None, None, None, "plots only", "3,969 pictures, 60 epochs"
    ),
    Headline(
        "seed 1", "ResNet50 and transposed convolutions", "resnet50", None, None, 2.57, "SSIM 0.46",
        "rendered course set, unit not stated; encoder from ImageNet; 20 epochs",
    ),
    Headline("seed 2", "baseline", "student", 0.701, None, 0.619, "MAE 0.470", _STUDENT),
    Headline("seed 2", "with teacher", "student_unaligned", 0.417, None, 1.151, "MAE 0.817", _STUDENT),
    Headline("seed 2", "filling", "student_filled", 0.407, None, 1.181, "MAE 0.907", _STUDENT),
    Headline("seed 3", "AdaBins", "adabins", 0.8106, 0.1463, 0.5019, "log10 0.0604", _STACK),
    Headline("seed 3", "LapDepth", "lapdepth", 0.8306, 0.1320, 0.4561, "log10 0.0564", _STACK),
    Headline("seed 3", "BTS", "bts", 0.8567, 0.1202, 0.4326, "log10 0.0521", _STACK),
    Headline("seed 3", "average", "stacked_average", 0.8564, 0.1216, 0.4261, "log10 0.0518", _STACK),
    Headline("seed 3", "meta-learner, D", "stacked_d", 0.8590, 0.1189, 0.4267, "", _STACK),
    Headline("seed 3", "meta-learner, RGB, bases frozen", "stacked_rgb", 0.8578, 0.1195, 0.4290, "", _STACK),
    Headline("seed 3", "meta-learner, RGB+D", "stacked_rgbd", 0.8595, 0.1193, 0.4267, "log10 0.0514", _STACK),
)  # fmt: skip
