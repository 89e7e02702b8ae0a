"""The glTF reader: transforms, skins, poses, and what it refuses."""

import base64
import json
import struct

import numpy as np
import pytest

from training.data.synthetic.gltf import BrokenModelError, read_gltf
from training.data.synthetic.soup import turn_z

TRIANGLE = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]], np.float32)


def write_glb(path, vertices=TRIANGLE, nodes=None, skin=False):
    """One triangle; with `skin` all its vertices hang on the joint `Arm` (node 1)."""
    chunks = [vertices.astype("<f4").tobytes()]
    accessors = [{"componentType": 5126, "count": len(vertices), "type": "VEC3", "bufferView": 0}]
    attributes = {"POSITION": 0}
    if skin:
        chunks += [
            np.zeros((len(vertices), 4), "u1").tobytes(),
            np.tile([1, 0, 0, 0], (len(vertices), 1)).astype("<f4").tobytes(),
            np.eye(4, dtype="<f4").tobytes(),
        ]
        attributes |= {"JOINTS_0": 1, "WEIGHTS_0": 2}
        accessors += [
            {"componentType": 5121, "count": len(vertices), "type": "VEC4", "bufferView": 1},
            {"componentType": 5126, "count": len(vertices), "type": "VEC4", "bufferView": 2},
            {"componentType": 5126, "count": 1, "type": "MAT4", "bufferView": 3},
        ]
    starts = np.cumsum([0] + [len(chunk) for chunk in chunks[:-1]])
    tree = {
        "scene": 0,
        "scenes": [{"nodes": list(range(len(nodes or [1])))}],
        "nodes": nodes or [{"mesh": 0}],
        "meshes": [{"primitives": [{"attributes": attributes, "material": 0}]}],
        "materials": [{"name": "Skin", "pbrMetallicRoughness": {"baseColorFactor": [0.2, 0.4, 0.6, 1]}}],
        "skins": [{"joints": [1], "inverseBindMatrices": 3}],
        "accessors": accessors,
        "bufferViews": [
            {"buffer": 0, "byteOffset": int(start), "byteLength": len(chunk)}
            for start, chunk in zip(starts, chunks, strict=True)
        ],
        "buffers": [{"byteLength": sum(map(len, chunks))}],
    }
    text = json.dumps(tree).encode()
    text += b" " * (-len(text) % 4)
    data = b"".join(chunks)
    head = struct.pack("<III", 0x46546C67, 2, 12 + 8 + len(text) + 8 + len(data))
    path.write_bytes(
        head + struct.pack("<II", len(text), 0x4E4F534A) + text + struct.pack("<II", len(data), 0x004E4942) + data
    )
    return path


def test_a_model_stands_on_the_floor_in_its_nodes_size(tmp_path):
    path = write_glb(tmp_path / "a.glb", nodes=[{"mesh": 0, "scale": [2, 3, 1], "translation": [5, 7, 9]}])
    model = read_gltf(path).model()
    assert model.extent == pytest.approx([2, 3, 0])
    assert model.vertices[:, 1].min() == 0
    assert model.vertices[:, 0].min() == -model.vertices[:, 0].max()
    assert np.allclose(model.colours, [0.2, 0.4, 0.6])
    assert model.material_names == ("Skin",)
    assert np.allclose(np.abs(model.normals), [0, 0, 1])


def test_a_pose_turns_what_hangs_on_the_joint(tmp_path):
    path = write_glb(tmp_path / "a.glb", nodes=[{"mesh": 0, "skin": 0}, {"name": "Arm"}], skin=True)
    character = read_gltf(path)
    assert character.joints == ("Arm",)
    assert character.model().extent == pytest.approx([1, 1, 0], abs=1e-6)
    turned = character.model({"Arm": turn_z(np.pi / 4)})
    assert turned.extent == pytest.approx([np.sqrt(2), np.sqrt(0.5), 0], abs=1e-6)


def test_gltf_with_its_buffer_beside_it(tmp_path):
    tree = {
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0}}]}],
        "accessors": [{"componentType": 5126, "count": 3, "type": "VEC3", "bufferView": 0}],
        "bufferViews": [{"buffer": 0, "byteLength": 36}],
        "buffers": [{"uri": "a.bin", "byteLength": 36}],
    }
    (tmp_path / "a.gltf").write_text(json.dumps(tree))
    (tmp_path / "a.bin").write_bytes(TRIANGLE.tobytes())
    assert len(read_gltf(tmp_path / "a.gltf").model().faces) == 1


def test_models_that_are_not_finite_are_refused(tmp_path):
    broken = write_glb(tmp_path / "a.glb", vertices=np.array([[0, 0, 0], [1, 0, 0], [0, np.nan, 0]]))
    with pytest.raises(BrokenModelError, match="not finite"):
        read_gltf(broken).model()


@pytest.mark.parametrize("data", [b"", b"glTF", base64.b64decode("Z2xURgIAAAD/////")])
def test_damaged_files_are_refused(tmp_path, data):
    (tmp_path / "a.glb").write_bytes(data)
    with pytest.raises(BrokenModelError):
        read_gltf(tmp_path / "a.glb")
