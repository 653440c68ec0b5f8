"""The source `synthetic`: rendered heads with exact albedo, normals, mask and light.

Each head is a function of its number and the seed alone: image = albedo * max(shading, 0) in
linear light, with the stored albedo, normals and spherical harmonics; no shadow, no gloss. Values
above 1 are clipped, the background is black.
"""

import functools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from relightx.color import LUMINANCE, to_srgb8
from relightx.sample import MAX_LIGHTS, Portrait, Provenance
from relightx.sh import dominant_direction
from shards.rendering import ict, makehuman
from shards.rendering.casting import check_caster
from shards.rendering.detail import Detail, random_detail, random_skin
from shards.rendering.environments import read_environments, shipped_environments
from shards.rendering.glasses import Glasses, random_glasses
from shards.rendering.heads import Person, random_person, with_open_mouth
from shards.rendering.illumination import random_illumination
from shards.rendering.lights import exposed, random_light
from shards.rendering.scene import FRAMINGS, Scene, random_scene
from shards.rendering.skin import Appearance, random_appearance
from shards.rendering.skins import skin_files
from shards.rendering.surroundings import Surroundings, read_surroundings, shipped_surroundings
from shards.rendering.traced import Taken, traced_pictures

SIZES = (16, 1024)
LIGHTS = ("sh", "traced")
CAMERAS = ("colour", "gray")
ASPECTS = (0.5, 1.0)
_GLASSES, _OPEN = 0.15, 0.2  # share of heads with occluders that wear glasses, that open the mouth
# Of a head's random generators, by number.
_BODY, _POSE, _LIGHT, _OCCLUDERS, _SKIN, _DETAIL, _SHAPE = 0, 1, 2, 3, 11, 12, 13
_HEADS = {"sh": 2, "traced": 3}  # counts changes of what a seed gives


@dataclass(frozen=True)
class HeadJob:
    """One head to render; plain values, so that it travels between processes."""

    head: int
    lights: int = 8
    size: int = 128
    seed: int = 0
    environments: Path | None = None
    """Folder of equirectangular .hdr or .exr maps; the shipped environments when None."""
    light: str = "sh"
    """One of LIGHTS."""
    framing: str = "portrait"
    """One of FRAMINGS."""
    camera: str = "colour"
    """One of CAMERAS."""
    aspect: float = 1.0
    """Width of the pictures by their height."""
    shapes: Path | None = None
    """The ICT face model, for its shapes; MakeHuman's when None."""
    layers: bool = False
    """Whether to add depth, parts and, under traced light, what each light does."""
    occluders: bool = False
    """Whether some heads wear glasses, and some have an open mouth with teeth."""
    skins: Path | None = None
    """Folder of MakeHuman skin textures to colour the skin by."""

    def __post_init__(self) -> None:
        if self.head < 0 or self.seed < 0:
            raise ValueError(f"head {self.head} with seed {self.seed}: neither may be negative")
        if not 1 <= self.lights <= MAX_LIGHTS:
            raise ValueError(f"lights is {self.lights}; 1 to {MAX_LIGHTS} needed")
        if self.light not in LIGHTS:
            raise ValueError(f"light is {self.light!r}, needed is one of {LIGHTS}")
        if not ASPECTS[0] <= self.aspect <= ASPECTS[1]:
            raise ValueError(f"aspect is {self.aspect:g}; {ASPECTS[0]} to {ASPECTS[1]:g} needed")
        if self.camera not in CAMERAS:
            raise ValueError(f"camera is {self.camera!r}, needed is one of {CAMERAS}")
        if self.framing not in FRAMINGS:
            raise ValueError(f"framing is {self.framing!r}, needed is one of {tuple(FRAMINGS)}")
        if self.shapes is not None and self.skins is not None:
            raise ValueError(
                "skins are laid out for MakeHuman's shape: give shapes or skins, not both"
            )
        if not SIZES[0] <= self.size <= SIZES[1]:
            raise ValueError(f"size is {self.size} pixels; {SIZES[0]} to {SIZES[1]} needed")


def synthetic(*, heads: int, first_head: int = 0, **settings: Any) -> Iterator[Portrait]:
    """Portraits of `heads` people, numbered from `first_head`; settings: of HeadJob.

    Raises ValueError for numbers out of range, unreadable maps, or when a package is not installed.
    """
    return map(render_head, synthetic_jobs(heads=heads, first_head=first_head, **settings))


def synthetic_jobs(*, heads: int, first_head: int = 0, **settings: Any) -> list[HeadJob]:
    """The jobs of `synthetic`, for a pool of processes to map `render_head` over."""
    if heads < 1:
        raise ValueError(f"heads is {heads}; at least 1 needed")
    jobs = [HeadJob(number, **settings) for number in range(first_head, first_head + heads)]
    if jobs[0].environments is not None:
        # Unreadable maps are refused before any work.
        (_surroundings if jobs[0].light == "traced" else _environments)(jobs[0].environments)
    makehuman.data_directory()
    if jobs[0].light == "traced":
        check_caster()
    if jobs[0].shapes is not None:
        ict.ict_surface(jobs[0].shapes)  # kept for the heads
    if jobs[0].skins is not None:
        skin_files(jobs[0].skins)
    return jobs


def synthetic_one(head: int, **settings: Any) -> Portrait:
    """The portrait of one head, the same as in any run of `synthetic` with these settings."""
    return render_head(HeadJob(head, **settings))


def render_head(job: HeadJob) -> Portrait:
    """The finished portrait of a job."""
    scene = _scene(job)
    paint = _traced if job.light == "traced" else _shaded
    names, taken = paint(job, scene, _random(job, _LIGHT))
    layers = {**scene.layers(), **taken.layers} if job.layers else {}
    key = f"head{job.head:06d}"
    pictures = taken.pictures[..., :1] if job.camera == "gray" else taken.pictures
    left = round(job.size * (1 - job.aspect) / 2)
    shown = slice(left, job.size - left)
    return Portrait(
        key=key,
        subject=key,
        image=pictures[:, :, shown],
        light_name=names,
        provenance=Provenance(
            source=f"relightx synthetic heads {_HEADS[job.light]}, seed {job.seed}",
            licence=_licence(job),
            crop="rendered; chin to hairline fills {:g} to {:g} of the height".format(
                *FRAMINGS[job.framing]
            ),
            transfer="srgb",
            albedo="real",
            normal="real",
            light="real",
        ),
        albedo=scene.albedo[:, shown],
        normal=scene.normal[:, shown],
        mask=scene.mask[:, shown],
        sh=taken.sh,
        direction=dominant_direction(torch.from_numpy(taken.sh)).numpy(),
        pose_deg=scene.pose_deg,
        layers={name: layer[:, shown] for name, layer in layers.items()},
    )


def _scene(job: HeadJob) -> Scene:
    """The job's head before its camera."""
    # One generator for each part: more lights leave the head as it is.
    body = _random(job, _BODY)
    person, surface, glasses = random_person(body), None, None
    appearance = random_appearance(body, person)
    if job.occluders:
        person, glasses = _occluded(_random(job, _OCCLUDERS), person)
    if job.shapes is not None:  # a mouth that is opened shows MakeHuman's teeth
        features = ict.random_features(_random(job, _SHAPE))
        person = replace(person, features=features, open_mouth=False)
        surface = ict.ict_surface(job.shapes)
    detail, pose = _detail(job, person, appearance), _random(job, _POSE)
    scene = random_scene(person, appearance, pose, job.size, job.framing, surface, glasses, detail)
    if job.camera == "gray":
        return replace(scene, albedo=_gray(scene.albedo))
    return scene


def _random(job: HeadJob, part: int) -> np.random.Generator:
    return np.random.default_rng([job.seed, job.head, part])


def _occluded(rng: np.random.Generator, person: Person) -> tuple[Person, Glasses | None]:
    """The person, perhaps with an open mouth, and perhaps glasses."""
    glasses = random_glasses(rng) if rng.random() < _GLASSES else None
    return (with_open_mouth(rng, person) if rng.random() < _OPEN else person), glasses


def _detail(job: HeadJob, person: Person, appearance: Appearance) -> Detail | None:
    """What the skin shows from near: under traced light, or when it is coloured by textures."""
    skin = None if job.skins is None else random_skin(_random(job, _SKIN), person, job.skins)
    if job.light == "traced":
        return random_detail(_random(job, _DETAIL), person, appearance, skin)
    return None if skin is None else Detail(person.lightness, skin=skin)


def _licence(job: HeadJob) -> str:
    terms = [makehuman.LICENCE]
    if job.shapes is not None:
        terms.append(ict.LICENCE)
    if job.skins is not None:
        terms.append(f"skin textures of {job.skins.name}: their own terms")
    return "; ".join(terms)


def _shaded(job: HeadJob, scene: Scene, rng: np.random.Generator) -> tuple[tuple[str, ...], Taken]:
    """Pictures that are albedo times shading by the light's nine coefficients."""
    environments = _environments(job.environments)
    lights = [random_light(rng, environments) for _ in range(job.lights)]
    mask, sh = scene.mask, np.stack([light.sh for light in lights])
    if job.camera == "gray":
        sh = np.repeat(sh.mean(axis=1, keepdims=True), 3, axis=1)
    sh, seen = exposed(rng, sh, scene.albedo[mask], scene.normal[mask])
    image = np.zeros((job.lights, job.size, job.size, 3), np.uint8)
    image[:, mask] = to_srgb8(seen)
    return tuple(light.name for light in lights), Taken(image, sh, {})


def _traced(job: HeadJob, scene: Scene, rng: np.random.Generator) -> tuple[tuple[str, ...], Taken]:
    maps, distance = _surroundings(job.environments), scene.camera.distance
    lights = [random_illumination(rng, maps, distance) for _ in range(job.lights)]
    if job.camera == "gray":
        lights = [light.without_colour() for light in lights]
    taken = traced_pictures(rng, scene, lights, job.layers)
    return tuple(light.name for light in lights), taken


def _gray(picture: Float[np.ndarray, "size size 3"]) -> Float[np.ndarray, "size size 3"]:
    return np.repeat((picture @ np.array(LUMINANCE, np.float32))[..., None], 3, axis=2)


@functools.cache
def _surroundings(folder: Path | None) -> dict[str, Surroundings]:
    return shipped_surroundings() if folder is None else read_surroundings(folder)


@functools.cache
def _environments(folder: Path | None) -> dict[str, Float[np.ndarray, "3 9"]]:
    return shipped_environments() if folder is None else read_environments(folder)
