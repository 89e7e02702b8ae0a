"""Which systems of `training/configs/compare/` begin with what others have learned.

A recipe says that parts of its network start from another run (`starts_from`); here stands which run that is. A recipe
of 0 steps is put together of such parts, and nothing is trained.
"""

from collections.abc import Mapping

_BASES = {f"bases.{name}": name for name in ("adabins", "bts", "lapdepth")}

STARTS: Mapping[str, Mapping[str, str]] = {
    "cnn_transformer_multi_stage": {"encoder": "cnn_transformer_first_stage"},
    "stacked_average": _BASES,
    "stacked_d": _BASES,
    "stacked_rgb": _BASES,
    "stacked_rgbd": _BASES,
}
"""By system: part of its network -> system."""
