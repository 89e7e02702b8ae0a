"""glTF 2.0 in its binary form (GLB): a mesh of what the camera saw, with the photo as its texture.

Khronos Group, glTF 2.0 specification, 2021 (ISO/IEC 12113:2022). Axes are glTF's: x to the right, y up, the camera at
the origin looking along -z; so the mesh stands upright in every viewer. The material is unlit (KHR_materials_unlit):
the photo has its light already.
"""

import json
import math
import struct
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from service.imaging.cloud import FloatMap, View, triangles
from service.imaging.encoding import encode_image
from service.imaging.geometry import resize

TEXTURE_PX: Final = 2048
"""Longest side of a texture: larger ones are refused by some phones."""

_FLOAT, _UINT32 = 5126, 5125
_VERTICES, _INDICES = 34962, 34963
_TEXTURE_QUALITY: Final = 90
_SAMPLER: Final = {"magFilter": 9729, "minFilter": 9987, "wrapS": 33071, "wrapT": 33071}  # linear, mipmaps, clamped


class _Binary:
    """The binary part as it grows, and the views and accessors into it."""

    def __init__(self) -> None:
        self.body = bytearray()
        self.views: list[dict[str, int]] = []
        self.accessors: list[dict[str, Any]] = []

    def view(self, data: bytes, target: int | None = None) -> int:
        """Number of a new view on `data`, which begins at a multiple of 4 bytes."""
        said = {"buffer": 0, "byteOffset": len(self.body), "byteLength": len(data)}
        self.views.append(said if target is None else said | {"target": target})
        self.body += data
        self.body += b"\0" * (-len(self.body) % 4)
        return len(self.views) - 1

    def accessor(self, array: NDArray[Any], kind: str, target: int, bounds: bool = False) -> int:
        """Number of a new accessor on an array of float32 or uint32."""
        said: dict[str, Any] = {
            "bufferView": self.view(np.ascontiguousarray(array).tobytes(), target),
            "componentType": _FLOAT if array.dtype.kind == "f" else _UINT32,
            "count": len(array) if kind != "SCALAR" else array.size,
            "type": kind,
        }
        if bounds:
            said |= {"min": array.min(axis=0).tolist(), "max": array.max(axis=0).tolist()}
        self.accessors.append(said)
        return len(self.accessors) - 1


def encode_glb(view: View, photo: NDArray[np.uint8], depth_edge: float) -> bytes:
    """A textured mesh, the view's notes as `asset.extras`, with a camera where the photo's was.

    Where the network's own value is not the distance itself, each vertex has it as `_INVERSE_DEPTH`.

    Args:
        view: its grid gives the vertices; those that no triangle needs are left out.
        photo: uint8 (H, W, 3), of any size, for the texture.
        depth_edge: see `cloud.triangles`.
    """
    faces = triangles(view.z, depth_edge)
    notes = view.notes | {"axes": "x right, y up, z backward; camera at the origin"}
    document: dict[str, Any] = {
        "asset": {"version": "2.0", "generator": "Depthlens", "extras": notes},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"name": "camera", "camera": 0}],
        "cameras": [_camera(view)],
    }
    binary = _Binary()
    if len(faces):  # a mesh needs one; a picture of a pixel's width has none
        document["scenes"][0]["nodes"].append(1)
        document["nodes"].append({"name": "photo", "mesh": 0})
        document |= _mesh(view, faces, photo, binary)
        document |= {
            "buffers": [{"byteLength": len(binary.body)}],
            "bufferViews": binary.views,
            "accessors": binary.accessors,
        }
    return _packed(document, bytes(binary.body))


def _mesh(view: View, faces: NDArray[np.uint32], photo: NDArray[np.uint8], binary: _Binary) -> dict[str, Any]:
    used = np.zeros(view.z.size, np.bool_)
    used[faces.ravel()] = True
    number = np.cumsum(used, dtype=np.uint32) - np.uint32(1)
    points = view.points().reshape(-1, 3)[used] * np.array([1, -1, -1], np.float32)
    attributes = {
        "POSITION": binary.accessor(points, "VEC3", _VERTICES, bounds=True),
        "TEXCOORD_0": binary.accessor(_places(*view.z.shape)[used], "VEC2", _VERTICES),
    }
    if view.values is not view.z:
        attributes["_INVERSE_DEPTH"] = binary.accessor(view.values.reshape(-1)[used], "SCALAR", _VERTICES)
    indices = binary.accessor(number[faces].ravel(), "SCALAR", _INDICES)
    texture = encode_image(_bounded(photo), "jpeg", quality=_TEXTURE_QUALITY)
    return {
        "extensionsUsed": ["KHR_materials_unlit"],
        "meshes": [{"primitives": [{"attributes": attributes, "indices": indices, "material": 0}]}],
        "materials": [
            {
                "pbrMetallicRoughness": {
                    "baseColorTexture": {"index": 0},
                    "metallicFactor": 0.0,
                    "roughnessFactor": 1.0,
                },
                "doubleSided": True,
                "extensions": {"KHR_materials_unlit": {}},
            }
        ],
        "textures": [{"source": 0, "sampler": 0}],
        "samplers": [_SAMPLER],
        "images": [{"mimeType": "image/jpeg", "bufferView": binary.view(texture)}],
    }


def _places(height: int, width: int) -> FloatMap:
    """Where on the texture each point is: float32 (height * width, 2) in 0..1, from the top left."""
    places = np.empty((height, width, 2), np.float32)
    places[..., 0] = (np.arange(width) + 0.5) / width
    places[..., 1] = ((np.arange(height) + 0.5) / height)[:, None]
    return places.reshape(-1, 2)


def _bounded(photo: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = photo.shape[:2]
    shrink = min(1.0, TEXTURE_PX / max(height, width))
    return resize(photo, (max(1, round(height * shrink)), max(1, round(width * shrink))))


def _camera(view: View) -> dict[str, Any]:
    height, width = view.photo_size
    focal_px = view.focal_share * max(height, width)
    return {
        "type": "perspective",
        "perspective": {
            "yfov": 2 * math.atan(height / (2 * focal_px)),
            "aspectRatio": width / height,
            "znear": float(view.z.min()) / 10,
        },
    }


def _packed(document: dict[str, Any], body: bytes) -> bytes:
    text = json.dumps(document, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    chunks = struct.pack("<I4s", len(text), b"JSON") + text
    if body:
        chunks += struct.pack("<I4s", len(body), b"BIN\0") + body
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks
