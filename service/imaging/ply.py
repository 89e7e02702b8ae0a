"""Stanford PLY, the format of point clouds: a text header, then one record a point, little-endian.

G. Turk, The PLY polygon file format, 1994.
"""

import numpy as np
from numpy.typing import NDArray

from service.imaging.cloud import View, is_floating

_TYPES = {"f": "float", "u": "uchar"}


def encode_ply(view: View, depth_edge: float) -> bytes:
    """A coloured point cloud in OpenCV's axes, the view's notes as comments.

    Each point has x, y, z in the view's unit, red, green, blue in 0..255, and, where the network's own value is not z
    itself, that value as `inverse_depth`. Points in rows of the grid, top to bottom.

    Args:
        view: what to write.
        depth_edge: see `cloud.is_floating`; such points are left out.
    """
    kept = ~is_floating(view.z, depth_edge)
    own = view.values is not view.z
    fields = [("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("red", "u1"), ("green", "u1"), ("blue", "u1")]
    records: NDArray[np.void] = np.empty(int(np.count_nonzero(kept)), fields + [("inverse_depth", "<f4")] * own)
    points, colours = view.points()[kept], view.colours[kept]
    for place, name in enumerate(("x", "y", "z")):
        records[name] = points[:, place]
    for place, name in enumerate(("red", "green", "blue")):
        records[name] = colours[:, place]
    if own:
        records["inverse_depth"] = view.values[kept]
    notes = view.notes | {"axes": "x right, y down, z forward; camera at the origin"}
    lines = ["ply", "format binary_little_endian 1.0"]
    lines += [f"comment {name}: {text}" for name, text in notes.items()]
    lines += [f"element vertex {records.size}"]
    lines += [f"property {_TYPES[records.dtype[name].kind]} {name}" for name in records.dtype.names or ()]
    return "\n".join([*lines, "end_header\n"]).encode("ascii", "replace") + records.tobytes()
