"""glTF 2.0 files (.glb, .gltf) as triangle models: node transforms, skinning, posing by named joints.

Only what the scenes need: positions, normals, one colour per face (base colour factor times the base colour texture at
the middle of the face). No animation, no sparse accessors, no compression.
"""

import io
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from training.errors import TrainingError

Floats = npt.NDArray[np.float32]
Matrix = npt.NDArray[np.float64]
Pose = Mapping[str, Matrix]
"""Joint name -> (3, 3) rotation about that joint in the model's axes."""

_COMPONENTS = {5120: np.int8, 5121: np.uint8, 5122: np.int16, 5123: np.uint16, 5125: np.uint32, 5126: np.float32}
_WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT4": 16}
_TRIANGLES = 4


class BrokenModelError(TrainingError):
    """A model file cannot be read, or gives vertices that are not finite."""


@dataclass(frozen=True, slots=True)
class Model:
    """Triangles standing on y = 0 around x = z = 0, in the file's own units.

    Attributes:
        vertices: float32 (V, 3), y up.
        normals: float32 (V, 3), unit length.
        faces: int32 (F, 3), indices into the vertices.
        colours: float32 (F, 3), linear RGB, 0..1.
        materials: int32 (F,), indices into `material_names`.
        material_names: One name per material.
    """

    vertices: Floats
    normals: Floats
    faces: npt.NDArray[np.int32]
    colours: Floats
    materials: npt.NDArray[np.int32]
    material_names: tuple[str, ...]

    @property
    def extent(self) -> Floats:
        """Size along x, y and z, float32 (3,)."""
        return np.asarray(np.ptp(self.vertices, axis=0), np.float32)


def standing(model: Model) -> Model:
    """`model` moved so that it stands on y = 0 with its middle above the origin."""
    low, high = model.vertices.min(axis=0), model.vertices.max(axis=0)
    offset = np.array([(low[0] + high[0]) / 2, low[1], (low[2] + high[2]) / 2], np.float32)
    return Model(
        model.vertices - offset, model.normals, model.faces, model.colours, model.materials, model.material_names
    )


@dataclass(slots=True)
class GltfFile:
    """One parsed file; `model()` gives its triangles in a pose."""

    path: Path
    tree: dict[str, Any]
    buffers: list[bytes]
    _images: dict[int, npt.NDArray[np.uint8]] = field(default_factory=dict)

    @property
    def joints(self) -> tuple[str, ...]:
        """Names of the joints of the first skin; empty without a skin."""
        skins = self.tree.get("skins", [])
        return tuple(self.tree["nodes"][index].get("name", "") for index in skins[0]["joints"]) if skins else ()

    def model(self, pose: Pose | None = None) -> Model:
        """The triangles of the file with `pose` applied.

        Raises:
            BrokenModelError: No triangles, or vertices that are not finite.
        """
        transforms = self._transforms(pose or {})
        parts = [
            self._primitive(node, primitive, transforms, index)
            for index, node in enumerate(self.tree["nodes"])
            if "mesh" in node and index in transforms
            for primitive in self.tree["meshes"][node["mesh"]]["primitives"]
            if primitive.get("mode", _TRIANGLES) == _TRIANGLES
        ]
        if not parts:
            raise BrokenModelError(f"{self.path}: no triangles")
        names = tuple(str(material.get("name", "")) for material in self.tree.get("materials", [])) or ("",)
        starts = np.cumsum([0] + [len(part.vertices) for part in parts[:-1]])
        model = Model(
            np.concatenate([part.vertices for part in parts]),
            np.concatenate([part.normals for part in parts]),
            np.concatenate([part.faces + start for part, start in zip(parts, starts, strict=True)]).astype(np.int32),
            np.concatenate([part.colours for part in parts]),
            np.concatenate([part.materials for part in parts]),
            names,
        )
        if not (np.isfinite(model.vertices).all() and np.isfinite(model.colours).all()):
            raise BrokenModelError(f"{self.path}: vertices or colours that are not finite")
        return standing(model)

    def _transforms(self, pose: Pose) -> dict[int, Matrix]:
        """Node index -> (4, 4) transform into the model's axes."""
        nodes = self.tree["nodes"]
        scene = self.tree["scenes"][self.tree.get("scene", 0)]
        result: dict[int, Matrix] = {}
        waiting = [(index, np.eye(4)) for index in scene["nodes"]]
        while waiting:
            index, parent = waiting.pop()
            matrix = parent @ _local(nodes[index])
            rotation = pose.get(nodes[index].get("name", ""))
            if rotation is not None:
                matrix[:3, :3] = rotation @ matrix[:3, :3]
            result[index] = matrix
            waiting.extend((child, matrix) for child in nodes[index].get("children", []))
        return result

    def _primitive(
        self, node: dict[str, Any], primitive: dict[str, Any], transforms: dict[int, Matrix], index: int
    ) -> Model:
        attributes = primitive["attributes"]
        vertices = self._accessor(attributes["POSITION"]).astype(np.float64)
        count = len(vertices)
        faces = self._accessor(primitive["indices"]) if "indices" in primitive else np.arange(count)
        faces = faces.astype(np.int32).reshape(-1, 3)
        if "NORMAL" in attributes:
            normals = self._accessor(attributes["NORMAL"]).astype(np.float64)
        else:
            normals = vertex_normals(vertices, faces)
        if "skin" in node and "JOINTS_0" in attributes:
            matrices = self._skin(node["skin"], attributes, transforms)
            vertices = np.einsum("nij,nj->ni", matrices[:, :3, :3], vertices) + matrices[:, :3, 3]
            normals = np.einsum("nij,nj->ni", matrices[:, :3, :3], normals)
        else:
            matrix = transforms[index]
            vertices = vertices @ matrix[:3, :3].T + matrix[:3, 3]
            normals = normals @ np.linalg.inv(matrix[:3, :3] + 1e-12 * np.eye(3))
        normals /= np.linalg.norm(normals, axis=1, keepdims=True).clip(1e-12)
        return Model(
            vertices.astype(np.float32),
            normals.astype(np.float32),
            faces,
            self._colours(primitive, faces),
            np.full(len(faces), primitive.get("material", 0), np.int32),
            (),
        )

    def _skin(self, skin: int, attributes: dict[str, int], transforms: dict[int, Matrix]) -> Matrix:
        """(V, 4, 4) blended joint transforms."""
        tree = self.tree["skins"][skin]
        inverse_bind = self._accessor(tree["inverseBindMatrices"]).reshape(-1, 4, 4).transpose(0, 2, 1)
        joints = np.stack([transforms[node] @ inverse_bind[k] for k, node in enumerate(tree["joints"])])
        weights = self._accessor(attributes["WEIGHTS_0"]).astype(np.float64)
        weights /= weights.sum(axis=1, keepdims=True).clip(1e-9)
        chosen = self._accessor(attributes["JOINTS_0"]).astype(np.int64)
        blended = np.zeros((len(weights), 4, 4))
        for k in range(4):
            blended += joints[chosen[:, k]] * weights[:, k, None, None]
        return blended

    def _colours(self, primitive: dict[str, Any], faces: npt.NDArray[np.int32]) -> Floats:
        """Linear RGB per face, float32 (F, 3)."""
        material = self.tree["materials"][primitive["material"]] if "material" in primitive else {}
        surface = material.get("pbrMetallicRoughness", {})
        factor = np.array(surface.get("baseColorFactor", [0.6, 0.6, 0.6, 1.0])[:3])
        colours = np.tile(factor, (len(faces), 1))
        if "baseColorTexture" in surface and "TEXCOORD_0" in primitive["attributes"]:
            image = self._image(self.tree["textures"][surface["baseColorTexture"]["index"]]["source"])
            middle = self._accessor(primitive["attributes"]["TEXCOORD_0"]).astype(np.float64)[faces].mean(axis=1) % 1.0
            size = np.array([image.shape[1], image.shape[0]])
            columns, rows = np.minimum((middle * size).astype(int), size - 1).T
            colours *= (image[rows, columns] / 255.0) ** 2.2
        return colours.astype(np.float32)

    def _image(self, index: int) -> npt.NDArray[np.uint8]:
        if index not in self._images:
            entry = self.tree["images"][index]
            if "uri" in entry:
                source: Any = self.path.parent / entry["uri"]
            else:
                view = self.tree["bufferViews"][entry["bufferView"]]
                start = view.get("byteOffset", 0)
                source = io.BytesIO(self.buffers[view["buffer"]][start : start + view["byteLength"]])
            with Image.open(source) as picture:
                self._images[index] = np.asarray(picture.convert("RGB"))
        return self._images[index]

    def _accessor(self, index: int) -> npt.NDArray[Any]:
        """(count, width) values of an accessor; normalised integers as 0..1."""
        accessor = self.tree["accessors"][index]
        view = self.tree["bufferViews"][accessor["bufferView"]]
        kind, width = np.dtype(_COMPONENTS[accessor["componentType"]]), _WIDTHS[accessor["type"]]
        start = view.get("byteOffset", 0) + accessor.get("byteOffset", 0)
        stride = view.get("byteStride", kind.itemsize * width)
        values: npt.NDArray[Any] = np.ndarray(
            (accessor["count"], width), kind, self.buffers[view["buffer"]], start, (stride, kind.itemsize)
        )
        if accessor.get("normalized"):
            return np.asarray(values.astype(np.float32) / float(np.iinfo(kind.name).max))
        return values


def read_gltf(path: Path) -> GltfFile:
    """Parses a .glb, or a .gltf with its .bin beside it.

    Raises:
        BrokenModelError: Unreadable.
    """
    try:
        data = path.read_bytes()
        if path.suffix == ".glb":
            length = struct.unpack_from("<I", data, 12)[0]
            tree = json.loads(data[20 : 20 + length])
            start = 20 + length
            size = struct.unpack_from("<I", data, start)[0]
            buffers = [data[start + 8 : start + 8 + size]]
        else:
            tree = json.loads(data)
            buffers = [(path.parent / entry["uri"]).read_bytes() for entry in tree["buffers"]]
    except (OSError, ValueError, KeyError, struct.error) as error:
        raise BrokenModelError(f"{path}: {error}") from error
    return GltfFile(path, tree, buffers)


def vertex_normals(vertices: Matrix, faces: npt.NDArray[np.int32]) -> Matrix:
    """Area-weighted vertex normals, float64 (V, 3)."""
    corners = vertices[faces]
    across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals = np.zeros_like(vertices)
    for k in range(3):
        np.add.at(normals, faces[:, k], across)
    return np.asarray(normals / np.linalg.norm(normals, axis=1, keepdims=True).clip(1e-12))


def _local(node: dict[str, Any]) -> Matrix:
    if "matrix" in node:
        return np.array(node["matrix"], np.float64).reshape(4, 4).T
    matrix = np.eye(4)
    matrix[:3, :3] = _quaternion(node.get("rotation", [0, 0, 0, 1])) * np.array(node.get("scale", [1, 1, 1]))
    matrix[:3, 3] = node.get("translation", [0, 0, 0])
    return matrix


def _quaternion(values: list[float]) -> Matrix:
    x, y, z, w = np.array(values) / np.linalg.norm(values)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )
