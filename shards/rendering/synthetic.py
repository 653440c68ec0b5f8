"""The source `synthetic`: rendered heads with exact albedo, normals, mask and light.

Each head is a function of its number and the seed alone: image = albedo * max(shading, 0) in
linear light, with the stored albedo, normals and spherical harmonics; no shadow, no gloss. Values
above 1 are clipped, the background is black.
"""

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Integer

from relightx.color import to_srgb8
from relightx.sample import MAX_LIGHTS, Portrait, Provenance
from relightx.sh import dominant_direction
from shards.rendering import makehuman
from shards.rendering.environments import read_environments, shipped_environments
from shards.rendering.hair import hair_offsets, surface_place
from shards.rendering.heads import head_vertices, random_person
from shards.rendering.lights import exposed, random_light, rotation
from shards.rendering.noise import field
from shards.rendering.render import (
    Camera,
    average_samples,
    project,
    rasterise,
    vertex_normals,
    view_directions,
)
from shards.rendering.skin import Appearance, eye_albedo, random_appearance, surface_albedo
from shards.rendering.subdivision import Subdivision

SIZES = (16, 1024)
_SAMPLES = 2  # along each side of a pixel
_CHIN, _HAIRLINE = (0.0, 6.17, 1.37), (0.0, 8.05, 1.37)
_POSE_DEG = (25.0, 12.0, 6.0)  # largest yaw, pitch and roll
_FACE_SHARE = (0.67, 0.76)  # of the picture's height, from chin to hairline


@dataclass(frozen=True)
class HeadJob:
    """One head to render; plain values, so that it travels between processes."""

    head: int
    lights: int = 8
    size: int = 128
    seed: int = 0
    environments: str | None = None
    """Folder of .hdr or .exr maps; the shipped environments when None."""

    def __post_init__(self) -> None:
        if self.head < 0 or self.seed < 0:
            raise ValueError(f"head {self.head} with seed {self.seed}: neither may be negative")
        if not 1 <= self.lights <= MAX_LIGHTS:
            raise ValueError(f"lights is {self.lights}; 1 to {MAX_LIGHTS} needed")
        if not SIZES[0] <= self.size <= SIZES[1]:
            raise ValueError(f"size is {self.size} pixels; {SIZES[0]} to {SIZES[1]} needed")


class Surface(NamedTuple):
    """The refined mesh that all heads share.

    template: undeformed place of each vertex. weights: lips, ears and mouth cavity.
    first_eye: triangles from here on are eyes. chin, hairline: numbers of two vertices.
    """

    refine: Subdivision
    triangles: Integer[np.ndarray, "triangles 3"]
    template: Float[np.ndarray, "vertices 3"]
    weights: Float[np.ndarray, "vertices 3"]
    first_eye: int
    chin: int
    hairline: int


def synthetic(
    *,
    heads: int,
    lights: int = 8,
    size: int = 128,
    seed: int = 0,
    first_head: int = 0,
    environments: Path | None = None,
) -> Iterator[Portrait]:
    """Portraits of `heads` people, numbered from `first_head`, each under `lights` lights.

    environments: a folder of equirectangular .hdr or .exr maps instead of the shipped ones.
    Raises ValueError for numbers out of range, unreadable maps, or when anny is not installed.
    """
    jobs = synthetic_jobs(
        heads=heads,
        lights=lights,
        size=size,
        seed=seed,
        first_head=first_head,
        environments=environments,
    )
    return map(render_head, jobs)


def synthetic_jobs(
    *,
    heads: int,
    lights: int = 8,
    size: int = 128,
    seed: int = 0,
    first_head: int = 0,
    environments: Path | None = None,
) -> list[HeadJob]:
    """The jobs of `synthetic`, for a pool of processes to map `render_head` over."""
    if heads < 1:
        raise ValueError(f"heads is {heads}; at least 1 needed")
    folder = None if environments is None else str(environments)
    if folder is not None:
        _environments(folder)  # unreadable maps are refused before any work
    makehuman.data_directory()
    numbers = range(first_head, first_head + heads)
    return [HeadJob(number, lights, size, seed, folder) for number in numbers]


def synthetic_one(
    head: int,
    *,
    lights: int = 8,
    size: int = 128,
    seed: int = 0,
    environments: Path | None = None,
) -> Portrait:
    """The portrait of one head, the same as in any run of `synthetic` with this seed."""
    folder = None if environments is None else str(environments)
    return render_head(HeadJob(head, lights, size, seed, folder))


def render_head(job: HeadJob) -> Portrait:
    """The finished portrait of a job."""
    # One generator for each part: more lights leave the head as it is.
    body, pose, light = (np.random.default_rng([job.seed, job.head, part]) for part in range(3))
    person = random_person(body)
    appearance = random_appearance(body, person)
    albedo, normal, mask = _render(head_vertices(person), appearance, pose, job.size)
    environments = _environments(job.environments)
    chosen = [random_light(light, environments) for _ in range(job.lights)]
    sh, seen = exposed(light, np.stack([c.sh for c in chosen]), albedo[mask], normal[mask])
    image = np.zeros((job.lights, job.size, job.size, 3), np.uint8)
    image[:, mask] = to_srgb8(seen)
    key = f"head{job.head:06d}"
    return Portrait(
        key=key,
        subject=key,
        image=image,
        light_name=tuple(c.name for c in chosen),
        provenance=Provenance(
            source=f"relightx synthetic heads 1, seed {job.seed}",
            licence=makehuman.LICENCE,
            crop="rendered; chin to hairline fills 0.67 to 0.76 of the height",
            transfer="srgb",
            albedo="real",
            normal="real",
            light="real",
        ),
        albedo=albedo,
        normal=normal,
        mask=mask,
        sh=sh,
        direction=dominant_direction(torch.from_numpy(sh)).numpy(),
    )


def _render(
    vertices: Float[np.ndarray, "coarse 3"],
    appearance: Appearance,
    rng: np.random.Generator,
    size: int,
) -> tuple[
    Float[np.ndarray, "{size} {size} 3"],
    Float[np.ndarray, "{size} {size} 3"],
    Bool[np.ndarray, "{size} {size}"],
]:
    """Albedo, normal and mask of a head in a random pose."""
    surface = _surface()
    refined = surface.refine(vertices)
    height = float(np.linalg.norm(refined[surface.hairline] - refined[surface.chin]))
    middle = (refined[surface.hairline] + refined[surface.chin]) / 2
    lips, ears, _ = surface.weights.T
    refined += hair_offsets(surface.template, lips, ears, appearance.hair)
    normals = vertex_normals(refined, surface.triangles)
    turn = _random_pose(rng)
    camera = Camera(
        distance=float(rng.uniform(8, 18)),
        scale=float(rng.uniform(*_FACE_SHARE)) * size * _SAMPLES / height,
        centre=_jittered_centre(rng, size * _SAMPLES),
    )
    side = size * _SAMPLES
    placed = _turned(refined - middle, turn)
    seen = rasterise(project(placed, camera), surface.triangles, side, side)
    known = np.concatenate((normals, surface.template, surface.weights), axis=1)
    at = seen.interpolate(known.astype(np.float32), surface.triangles)
    gaze = turn.T @ np.array([0, 0, 1.0]) + rng.normal(0, 0.1, 3) * (1, 0.5, 0)
    gaze *= (0.5, 0.5, 1)  # less than all the way: the eyes also follow the head
    albedo, bump = _shade_free(at, seen.triangle >= surface.first_eye, gaze, appearance)
    normal = _turned(at[:, :3] + bump, turn)
    mean, mask = average_samples(
        np.concatenate((albedo, normal), axis=1), seen.pixel, size, _SAMPLES
    )
    mean *= mask[..., None]
    return mean[..., :3], _facing(mean[..., 3:], view_directions(camera, side, _SAMPLES)), mask


def _shade_free(
    at: Float[np.ndarray, "num 9"],
    on_eye: Bool[np.ndarray, "num"],
    gaze: Float[np.ndarray, "3"],
    appearance: Appearance,
) -> tuple[Float[np.ndarray, "num 3"], Float[np.ndarray, "num 3"]]:
    """Albedo of each sample, and what its fine relief adds to the normal."""
    template, on_skin = at[:, 3:6], ~on_eye
    albedo = np.empty((len(at), 3), np.float32)
    unit_gaze = gaze / np.linalg.norm(gaze)
    albedo[on_eye] = eye_albedo(template[on_eye], unit_gaze, appearance)
    skin = template[on_skin]
    albedo[on_skin], hair = surface_albedo(skin, *at[on_skin, 6:].T, appearance)
    place = surface_place(skin)
    strands = field(place, "strands", appearance.hair.offset + 1)
    curls = field(place, "fine", appearance.hair.offset + 4)
    curl = appearance.hair.curl
    relief = hair * ((1 - curl) * 0.22 * strands + curl * 0.25 * curls)
    relief += (1 - hair) * 0.02 * field(place, "fine", appearance.offset + 9)
    bump = np.zeros((len(at), 3), np.float32)
    # Strands run down the head: their relief tilts normals around the vertical axis.
    around = np.stack((skin[:, 2] - 0.55, -skin[:, 0]), axis=1)
    around /= np.maximum(np.linalg.norm(around, axis=1, keepdims=True), 1e-6)
    bump[on_skin, 0] = relief * around[:, 0]
    bump[on_skin, 2] = relief * around[:, 1]
    bump[on_skin, 1] = hair * curl * 0.2 * field(place, "fine", appearance.hair.offset + 6)
    return albedo, bump


def _turned(
    vectors: Float[np.ndarray, "num 3"], turn: Float[np.ndarray, "3 3"]
) -> Float[np.ndarray, "num 3"]:
    # Not @: BLAS rounds differently with another number of threads.
    return np.einsum("nk,jk->nj", vectors, turn)


def _facing(
    normal: Float[np.ndarray, "height width 3"], view: Float[np.ndarray, "height width 3"]
) -> Float[np.ndarray, "height width 3"]:
    """Unit normals turned just toward the camera where they look away; +z where there is none."""
    length = np.linalg.norm(normal, axis=-1, keepdims=True)
    unit = np.where(length > 1e-6, normal / np.maximum(length, 1e-6), np.array([0, 0, 1.0]))
    away = np.minimum((unit * view).sum(axis=-1, keepdims=True) - 0.02, 0)
    unit = unit - away * view
    return (unit / np.linalg.norm(unit, axis=-1, keepdims=True)).astype(np.float32)


def _random_pose(rng: np.random.Generator) -> Float[np.ndarray, "3 3"]:
    spread = np.clip(rng.normal(0, 0.5, 3), -1, 1)
    yaw, pitch, roll = np.radians(spread * _POSE_DEG)
    return rotation(float(yaw), float(pitch), float(roll))


def _jittered_centre(rng: np.random.Generator, side: int) -> tuple[float, float]:
    # The face sits a little low, so that the hair has room.
    column, row = side * (np.array([0.5, 0.535]) + rng.uniform(-0.025, 0.025, 2))
    return float(column), float(row)


@functools.cache
def _surface() -> Surface:
    mesh = makehuman.head_mesh()
    refine = Subdivision(mesh.quads, len(mesh.vertices))
    known = np.column_stack((mesh.vertices, mesh.lips, mesh.ears, mesh.cavity))
    known = refine(known)
    template = known[:, :3]
    chin, hairline = (
        int(np.argmin(np.linalg.norm(template - np.array(place), axis=1)))
        for place in (_CHIN, _HAIRLINE)
    )
    return Surface(
        refine=refine,
        triangles=refine.quads[:, [[0, 1, 2], [0, 2, 3]]].reshape(-1, 3),
        template=template,
        weights=np.clip(known[:, 3:], 0, 1),
        first_eye=mesh.first_eye_quad * 8,
        chin=chin,
        hairline=hairline,
    )


@functools.cache
def _environments(folder: str | None) -> dict[str, Float[np.ndarray, "3 9"]]:
    return shipped_environments() if folder is None else read_environments(Path(folder))
