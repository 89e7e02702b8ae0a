"""Points and triangles by hand, and the files that hold them as trimesh reads them."""

import io
import json
import struct

import hypothesis
import numpy as np
import pytest
import trimesh
from hypothesis import strategies as st

from service.imaging.cloud import View, distance, grid_size, is_floating, triangles
from service.imaging.glb import encode_glb
from service.imaging.ply import encode_ply

SEEDED = hypothesis.settings(max_examples=60, deadline=None, derandomize=True, database=None)


def view(z: np.ndarray, focal_share: float = 0.5, values: np.ndarray | None = None) -> View:
    height, width = z.shape
    colours = np.random.default_rng(1).integers(0, 256, (height, width, 3), np.uint8)
    z = z.astype(np.float32)
    return View(z, z if values is None else values, colours, focal_share, (height, width), {"Depth-Unit": "m"})


def said(glb: bytes) -> dict:
    magic, version, length, text_length, kind = struct.unpack_from("<4sIII4s", glb)
    assert (magic, version, length, kind) == (b"glTF", 2, len(glb), b"JSON")
    return json.loads(glb[20 : 20 + text_length])


def mesh(glb: bytes) -> trimesh.Trimesh:
    (geometry,) = trimesh.load_scene(io.BytesIO(glb), file_type="glb").geometry.values()
    return geometry


def test_points_by_hand() -> None:
    """Four pixels by two, focal length 2 pixels: the first is 1.5 to the left and 0.5 up, at z = 2 as far again."""
    points = view(np.full((2, 4), 2.0)).points()
    np.testing.assert_allclose(points[0, 0], [-1.5, -0.5, 2])
    np.testing.assert_allclose(points[1, 3], [1.5, 0.5, 2])


def test_a_coarse_grid_covers_the_same_photo() -> None:
    fine, z = view(np.full((4, 8), 3.0)), np.full((2, 4), 3.0, np.float32)
    coarse = View(z, z, fine.colours[::2, ::2], 0.5, (4, 8), {})
    np.testing.assert_allclose(coarse.points()[0, 0], fine.points()[:2, :2].mean(axis=(0, 1)))


def test_relative_depth_goes_from_one_to_the_ratio() -> None:
    z = distance(np.array([[0.0, 5.0, 10.0]], np.float32), 4.0)
    np.testing.assert_allclose(z, [[4, 1 / (0.25 + 0.5 * 0.75), 1]], rtol=1e-6)


def test_no_triangle_bridges_a_step() -> None:
    z = np.ones((3, 4), np.float32)
    z[:, 2:] = 2
    assert len(triangles(z, 100)) == 2 * 2 * 3
    cut = triangles(z, 0.5)
    assert len(cut) == 2 * 2 * 2
    assert {tuple(np.unique(row % 4)) for row in cut} == {(0, 1), (2, 3)}


def test_one_point_beyond_a_step_costs_a_triangle() -> None:
    for corner in range(4):
        z = np.ones((2, 2), np.float32)
        z.flat[corner] = 3
        (kept,) = triangles(z, 0.5)
        assert corner not in kept


@SEEDED
@hypothesis.given(st.integers(0, 2**32 - 1), st.floats(0.001, 3))
def test_every_triangle_is_within_the_threshold_and_faces_the_camera(seed: int, edge: float) -> None:
    z = np.exp(np.random.default_rng(seed).normal(0, 0.3, (6, 7))).astype(np.float32)
    faces = triangles(z, edge).astype(int)
    depths = z.ravel()[faces]
    if len(faces):
        assert (depths.max(axis=1) <= depths.min(axis=1) * (1 + edge) * 1.000001).all()
    rows, columns = faces // 7, faces % 7
    first, second, third = (np.stack([columns[:, i], -rows[:, i]], axis=1) for i in range(3))
    ahead, beside = second - first, third - first
    assert (ahead[:, 0] * beside[:, 1] - ahead[:, 1] * beside[:, 0] > 0).all(), "counter-clockwise with y upwards"
    ratio = np.float32(1 + edge)
    kept = {tuple(sorted(face)) for face in faces.tolist()}
    for row in range(5):
        for column in range(6):
            cell = [row * 7 + column, row * 7 + column + 1, (row + 1) * 7 + column, (row + 1) * 7 + column + 1]
            corners = z.ravel()[cell]
            if corners.max() <= corners.min() * ratio:
                assert sum(set(face) <= set(cell) for face in kept) == 2, "what hangs together is whole"


def test_points_in_the_air_between_two_things() -> None:
    row = np.array([[1, 1, 1.5, 2.2, 2.2]], np.float32)
    assert is_floating(np.repeat(row, 3, axis=0), 0.2).tolist() == [[False, False, True, False, False]] * 3
    assert is_floating(np.repeat(row, 3, axis=0).T, 0.2).T.tolist() == [[False, False, True, False, False]] * 3
    assert not is_floating(np.array([[1, 1, 2, 2]], np.float32), 0.2).any(), "a clean step has none"


@SEEDED
@hypothesis.given(st.integers(1, 70_000), st.integers(1, 70_000), st.integers(4, 1_000_000))
def test_the_grid_never_has_more_points_than_asked_for(height: int, width: int, most: int) -> None:
    rows, columns = grid_size((height, width), most)
    assert 1 <= rows <= height
    assert 1 <= columns <= width
    assert rows * columns <= most
    if height * width <= most:
        assert (rows, columns) == (height, width)
    elif min(rows, columns) > 20:
        assert rows / columns == pytest.approx(height / width, rel=0.1)
        assert rows * columns > 0.8 * most


def test_ply_as_trimesh_reads_it() -> None:
    values = np.arange(12, dtype=np.float32).reshape(3, 4)
    shown = view(1 + values / 10, values=values)
    cloud = trimesh.load(io.BytesIO(encode_ply(shown, 10)), file_type="ply")
    np.testing.assert_array_equal(cloud.vertices.astype(np.float32), shown.points().reshape(-1, 3))
    np.testing.assert_array_equal(cloud.colors[:, :3], shown.colours.reshape(-1, 3))
    raw = cloud.metadata["_ply_raw"]["vertex"]["data"]
    np.testing.assert_array_equal(raw["inverse_depth"].ravel(), values.ravel())


def test_ply_says_its_unit_and_axes_and_leaves_out_what_floats() -> None:
    body = encode_ply(view(np.repeat([[1.0, 1.0, 1.5, 2.2, 2.2]], 3, axis=0)), 0.2)
    header = body[: body.index(b"end_header")].decode()
    assert "comment Depth-Unit: m\n" in header
    assert "comment axes: x right, y down, z forward" in header
    assert "element vertex 12\n" in header
    assert "inverse_depth" not in header, "metres are z itself"


def test_glb_is_upright_and_not_mirrored() -> None:
    """Through the camera in the file each vertex falls on the place that its texture coordinates name."""
    z = np.random.default_rng(2).uniform(1, 1.4, (5, 8)).astype(np.float32)
    shown = view(z, focal_share=0.9)
    glb = encode_glb(shown, shown.colours, 10)
    loaded, document = mesh(glb), said(glb)
    lens = document["cameras"][0]["perspective"]
    x, y, depth = loaded.vertices[:, 0], loaded.vertices[:, 1], -loaded.vertices[:, 2]
    assert (depth > 0).all(), "the camera looks along -z"
    up = y / depth / np.tan(lens["yfov"] / 2)
    right = x / depth / np.tan(lens["yfov"] / 2) / lens["aspectRatio"]
    np.testing.assert_allclose((right + 1) / 2, loaded.visual.uv[:, 0], atol=1e-5)
    np.testing.assert_allclose((up + 1) / 2, loaded.visual.uv[:, 1], atol=1e-5)  # trimesh turns v upwards
    np.testing.assert_allclose(np.sort(depth), np.sort(z.ravel()), rtol=1e-6)
    assert document["asset"]["extras"]["Depth-Unit"] == "m"
    assert loaded.visual.material.baseColorTexture.size == (8, 5)
    assert (loaded.face_normals[:, 2] > 0).all(), "faces look at the camera"


def test_glb_keeps_the_networks_own_values_and_no_lonely_vertex() -> None:
    values = np.arange(20, dtype=np.float32).reshape(4, 5)
    z = np.ones((4, 5), np.float32)
    z[1, 1] = 9
    glb = encode_glb(view(z, values=values), np.zeros((4, 5, 3), np.uint8), 0.1)
    loaded = mesh(glb)
    assert len(loaded.vertices) == 19
    assert set(np.unique(loaded.faces)) == set(range(19))
    own = loaded.vertex_attributes["_INVERSE_DEPTH"].ravel()
    assert own.tolist() == [value for value in range(20) if value != 6]


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1), (2, 2)])
def test_the_smallest_photos_make_valid_files(shape: tuple[int, int]) -> None:
    shown = view(np.ones(shape))
    glb = encode_glb(shown, shown.colours, 0.1)
    assert ("meshes" in said(glb)) == (min(shape) > 1), "one row of points has no triangle"
    trimesh.load_scene(io.BytesIO(glb), file_type="glb")
    assert len(trimesh.load(io.BytesIO(encode_ply(shown, 0.1)), file_type="ply").vertices) == shape[0] * shape[1]
