"""Ray tracing with Embree, shading with NumPy.

Every pixel is traced with 2x2 samples, which is nearly free; it is shaded once where all four see the same smooth
surface, four times where an edge runs through. Light: sun or lamps with soft shadows, one diffuse bounce gathered by a
few rays (which are the ambient occlusion too), highlights, fog, sky. The noise of shadows and bounce is smoothed within
surfaces.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from embreex import rtcore_scene
from embreex.mesh_construction import TriangleMesh

from training.data.synthetic.camera import Camera
from training.data.synthetic.light import Light, Sky
from training.data.synthetic.soup import PLAIN, Soup
from training.data.synthetic.textures import Atlas

Floats = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]

SAMPLES = 2
BOUNCE_RAYS = 3
_CUTOUT_LAYERS = 12
_STEP_M = 2e-3


@dataclass(frozen=True, slots=True)
class View:
    """What one camera sees; arrays share (H, W).

    Attributes:
        radiance: float32 (H, W, 3), linear.
        inverse_depth: float32 (H, W), 1/m along the optical axis, 0 = sky.
        person: uint8 (H, W), share of the pixel that shows a person, 0..255.
        objects: int32 (H, W), object of the surface that `inverse_depth` belongs to, 0 = sky.
    """

    radiance: Floats
    inverse_depth: Floats
    person: npt.NDArray[np.uint8]
    objects: npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Hits:
    """Where n rays end: triangle (-1 = none), distance in steps of the direction, barycentric co-ordinates."""

    triangle: npt.NDArray[np.int64]
    distance: Floats
    u: Floats
    v: Floats

    def at(self, chosen: Indices) -> "Hits":
        """The hits of some rays."""
        return Hits(self.triangle[chosen], self.distance[chosen], self.u[chosen], self.v[chosen])


class Tracer:
    """A scene ready to be traced."""

    def __init__(self, soup: Soup, atlas: Atlas, lights: tuple[Light, ...], sky: Sky) -> None:
        self._soup, self._atlas, self._lights, self._sky = soup, atlas, lights, sky
        self._embree = rtcore_scene.EmbreeScene()
        self._mesh = TriangleMesh(self._embree, np.ascontiguousarray(soup.corners))
        edge_a, edge_b = soup.corners[:, 1] - soup.corners[:, 0], soup.corners[:, 2] - soup.corners[:, 0]
        across = np.cross(edge_a, edge_b)
        area = np.linalg.norm(across, axis=1) + 1e-12
        self._facing = (across / area[:, None]).astype(np.float32)
        uv_a, uv_b = soup.uv[:, 1] - soup.uv[:, 0], soup.uv[:, 2] - soup.uv[:, 0]
        self._tiles_per_m = np.sqrt(np.abs(uv_a[:, 0] * uv_b[:, 1] - uv_a[:, 1] * uv_b[:, 0]) / area)
        textured = soup.layers != PLAIN
        self._cutout = textured & atlas.cutout[soup.layers]
        self._mean = soup.colours * np.where(textured[:, None], atlas.means[soup.layers], 1).astype(np.float32)

    def view(self, camera: Camera, rng: np.random.Generator) -> View:
        """Renders one picture; `rng` places the rays of shadows and bounces."""
        height, width = camera.size
        rays = camera.rays(SAMPLES).transpose(0, 2, 1, 3, 4).reshape(-1, 3)
        eye = camera.position.astype(np.float32)
        hits = self.trace(np.broadcast_to(eye, rays.shape), rays)
        per_pixel = hits.triangle.reshape(-1, SAMPLES * SAMPLES)
        near = np.where(hits.triangle >= 0, 1 / np.maximum(hits.distance, 1e-3), 0).astype(np.float32)
        near = near.reshape(per_pixel.shape)
        objects = np.where(per_pixel >= 0, self._soup.objects[per_pixel], 0)
        person = np.where(per_pixel >= 0, self._soup.people[per_pixel], False).mean(axis=1)
        edges = self._edges(per_pixel, near, objects)

        order = np.argsort(-near, axis=1, kind="stable")[:, 1]  # an edge pixel shows what covers half of it
        rows = np.arange(len(near))
        inverse_depth = np.where(edges, near[rows, order], near.mean(axis=1))
        seen = np.where(edges, objects[rows, order], objects[:, 0])

        main = rows * SAMPLES * SAMPLES
        more = (main[edges][:, None] + np.arange(1, SAMPLES * SAMPLES)).ravel()
        colour = np.zeros((len(rays), 3), np.float32)
        colour[main] = self._shade(rays[main], hits.at(main), camera, rng, smooth=True)
        colour[more] = self._shade(rays[more], hits.at(more), camera, rng, smooth=False)
        colour = np.minimum(colour, 4.0).reshape(-1, SAMPLES * SAMPLES, 3)
        radiance = np.where(edges[:, None], colour.mean(axis=1), colour[:, 0])
        return View(
            radiance.reshape(height, width, 3).astype(np.float32),
            inverse_depth.reshape(height, width).astype(np.float32),
            np.rint(person * 255).astype(np.uint8).reshape(height, width),
            seen.reshape(height, width).astype(np.int32),
        )

    def trace(self, origins: Floats, directions: Floats) -> Hits:
        """First opaque hits of rays (n, 3)."""
        directions = np.ascontiguousarray(directions, np.float32)
        found = self._embree.run(np.ascontiguousarray(origins, np.float32), directions, query="INTERSECT", output=True)
        triangle = found["primID"].astype(np.int64)
        distance, u, v = found["tfar"].copy(), found["u"].copy(), found["v"].copy()
        waiting = np.flatnonzero((triangle >= 0) & self._cutout[triangle])
        for _ in range(_CUTOUT_LAYERS):
            hits = Hits(triangle[waiting], distance[waiting], u[waiting], v[waiting])
            waiting = waiting[~self._atlas.opaque(self._soup.layers[hits.triangle], self._uv(hits))]
            if not len(waiting):
                break
            skipped = distance[waiting] * (1 + 1e-5) + _STEP_M / 4
            start = origins[waiting] + directions[waiting] * skipped[:, None]
            found = self._embree.run(np.ascontiguousarray(start), directions[waiting], query="INTERSECT", output=True)
            triangle[waiting], distance[waiting] = found["primID"], found["tfar"] + skipped
            u[waiting], v[waiting] = found["u"], found["v"]
            waiting = waiting[triangle[waiting] >= 0]
            waiting = waiting[self._cutout[triangle[waiting]]]
        return Hits(triangle, distance, u, v)

    def _uv(self, hits: Hits) -> Floats:
        return self._blend(self._soup.uv, hits)

    @staticmethod
    def _blend(corners: Floats, hits: Hits) -> Floats:
        """Values at the hits, from values (T, 3, k) at the corners."""
        u, v = hits.u[:, None], hits.v[:, None]
        values = corners[hits.triangle]
        return np.asarray(values[:, 0] * (1 - u - v) + values[:, 1] * u + values[:, 2] * v)

    def _edges(
        self, triangles: npt.NDArray[np.int64], near: Floats, objects: npt.NDArray[np.int32]
    ) -> npt.NDArray[np.bool_]:
        """Pixels whose samples see different objects, surfaces, or depths, bool (pixels,)."""
        different = (triangles != triangles[:, :1]).any(axis=1)
        result = (objects != objects[:, :1]).any(axis=1)
        check = np.flatnonzero(different & ~result & (triangles >= 0).all(axis=1))
        facing = self._facing[triangles[check]]
        layers = self._soup.layers[triangles[check]]
        colours = self._mean[triangles[check]]
        turned = (np.abs((facing * facing[:, :1]).sum(axis=2)) < 0.9).any(axis=1)
        other = (layers != layers[:, :1]).any(axis=1) | (np.abs(colours - colours[:, :1]) > 0.05).any(axis=(1, 2))
        apart = near[check].max(axis=1) > 1.04 * near[check].min(axis=1)
        result[check] = turned | other | apart
        return np.asarray(result)

    def _shade(self, rays: Floats, hits: Hits, camera: Camera, rng: np.random.Generator, smooth: bool) -> Floats:
        """Radiance (n, 3) that comes back along `rays`; `smooth` when they are the pixels of the picture in order."""
        lengths = np.linalg.norm(rays, axis=1, keepdims=True)
        towards = rays / lengths
        radiance = np.empty_like(rays)
        missed = hits.triangle < 0
        radiance[missed] = self._sky.seen(towards[missed])
        solid = np.flatnonzero(~missed)
        if not len(solid):
            return radiance
        hits, view = hits.at(solid), -towards[solid]
        triangle = hits.triangle
        points = camera.position.astype(np.float32) + rays[solid] * hits.distance[:, None]
        normals = self._blend(self._soup.normals, hits)
        normals /= np.linalg.norm(normals, axis=1, keepdims=True).clip(1e-9)
        normals *= np.where((normals * view).sum(axis=1, keepdims=True) < 0, -1, 1).astype(np.float32)
        facing = self._facing[triangle]
        facing = facing * np.where((facing * view).sum(axis=1, keepdims=True) < 0, -1, 1).astype(np.float32)
        albedo = self._albedo(hits, np.abs((facing * view).sum(axis=1)), camera.focal_px)
        outside = points + facing * (_STEP_M + hits.distance[:, None] * 3e-4)

        received = self._bounce(outside, normals, rng)
        shine = np.zeros_like(received)
        for light in self._lights:
            direct, highlight = self._direct(light, outside, normals, view, rng)
            received += direct
            shine += highlight
        if smooth:
            received = self._smoothed(received, solid, triangle, normals, camera.size)
        emission = self._soup.emission[triangle][:, None]
        colour = albedo * received + shine * self._soup.gloss[triangle][:, None]
        colour = np.where(emission > 0, albedo * emission, colour)
        if self._sky.fog_per_m > 0:
            clear = np.exp(-self._sky.fog_per_m * hits.distance[:, None] * lengths[solid])
            colour = colour * clear + np.array(self._sky.horizon, np.float32) * (1 - clear)
        radiance[solid] = colour
        return radiance

    def _albedo(self, hits: Hits, cosine: Floats, focal_px: float) -> Floats:
        triangle = hits.triangle
        albedo = self._soup.colours[triangle]
        layers = self._soup.layers[triangle]
        textured = np.flatnonzero(layers != PLAIN)
        if len(textured):
            chosen = hits.at(textured)
            footprint = chosen.distance / focal_px * self._tiles_per_m[chosen.triangle]
            footprint = footprint / np.sqrt(np.maximum(cosine[textured], 0.05))
            texels = self._atlas.sample(layers[textured], self._uv(chosen), footprint.astype(np.float32))
            albedo[textured] *= texels
        return np.asarray(np.minimum(albedo, 0.95))

    def _direct(
        self, light: Light, points: Floats, normals: Floats, view: Floats, rng: np.random.Generator
    ) -> tuple[Floats, Floats]:
        """Irradiance (n, 3) from one light, shadowed, and its highlight on a glossy surface."""
        vectors, irradiance = light.towards(points, rng.standard_normal(points.shape, dtype=np.float32))
        vectors = np.broadcast_to(vectors, points.shape)
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(1e-6)
        cosine = (normals * unit).sum(axis=1)
        lit = np.flatnonzero(cosine > 0)
        hits = self.trace(points[lit], vectors[lit])
        free = (hits.triangle < 0) if light.sun else (hits.triangle < 0) | (hits.distance > 0.98)
        lit = lit[free]
        direct = np.zeros_like(points)
        direct[lit] = irradiance[lit] * cosine[lit, None]
        half = unit[lit] + view[lit]
        half /= np.linalg.norm(half, axis=1, keepdims=True).clip(1e-6)
        highlight = np.zeros_like(points)
        highlight[lit] = irradiance[lit] * (normals[lit] * half).sum(axis=1, keepdims=True).clip(0) ** 40
        return direct, highlight

    def _bounce(self, points: Floats, normals: Floats, rng: np.random.Generator) -> Floats:
        """Irradiance (n, 3) from the sky and from what one diffuse bounce of the lights brightens."""
        total = np.zeros_like(points)
        for _ in range(BOUNCE_RAYS):
            scatter = rng.standard_normal(points.shape, dtype=np.float32)
            scatter /= np.linalg.norm(scatter, axis=1, keepdims=True).clip(1e-6)
            directions = scatter + normals * 1.001
            directions /= np.linalg.norm(directions, axis=1, keepdims=True).clip(1e-6)
            found = self._embree.run(points, np.ascontiguousarray(directions), query="INTERSECT", output=True)
            triangle, distance = found["primID"].astype(np.int64), found["tfar"]
            light = self._sky.ambient(directions)
            hit = np.flatnonzero(triangle >= 0)
            target = triangle[hit]
            place = points[hit] + directions[hit] * distance[hit, None]
            facing = self._facing[target]
            back = (facing * directions[hit]).sum(axis=1, keepdims=True) > 0
            facing = np.where(back, -facing, facing)
            arriving = 0.5 * self._sky.ambient(facing)
            for source in self._lights:
                vectors, irradiance = source.towards(place, np.zeros(3, np.float32))
                unit = vectors / np.linalg.norm(np.atleast_2d(vectors), axis=1, keepdims=True).clip(1e-6)
                share = 0.45 if source.sun else 0.75  # of what the light would give without shadows
                arriving = arriving + share * irradiance * (facing * unit).sum(axis=1, keepdims=True).clip(0)
            glow = self._soup.emission[target][:, None]
            light[hit] = self._mean[target] * np.where(glow > 0, glow, arriving)
            total += np.minimum(light, 6.0)
        return total / BOUNCE_RAYS

    def _smoothed(
        self, received: Floats, solid: Indices, triangle: Indices, normals: Floats, size: tuple[int, int]
    ) -> Floats:
        """`received` averaged over 5x5 neighbours on the same object with a similar normal."""
        height, width = size
        light = np.zeros((height * width, 3), np.float32)
        light[solid] = received
        key = np.zeros((height * width, 4), np.float32)
        key[solid, 0] = self._soup.objects[triangle]
        key[solid, 1:] = normals
        image, guide = light.reshape(height, width, 3), key.reshape(height, width, 4)
        for axis in (0, 1):
            image = _along(image, guide, axis)
        return np.asarray(image.reshape(-1, 3)[solid])


def _along(image: Floats, guide: Floats, axis: int) -> Floats:
    """Mean over five neighbours along `axis` that have the same object and a similar normal."""
    total, count = image.copy(), np.ones((*image.shape[:2], 1), np.float32)
    for shift in (1, 2):
        here = [slice(None), slice(None)]
        there = [slice(None), slice(None)]
        here[axis], there[axis] = slice(shift, None), slice(None, -shift)
        a, b = tuple(here), tuple(there)
        same = guide[a][..., 0] == guide[b][..., 0]
        same &= np.einsum("hwc,hwc->hw", guide[a][..., 1:], guide[b][..., 1:]) > 0.9
        weight = same[..., None].astype(np.float32)
        total[a] += image[b] * weight
        total[b] += image[a] * weight
        count[a] += weight
        count[b] += weight
    return np.asarray(total / count, np.float32)
