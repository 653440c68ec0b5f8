"""A head before the camera, and what each pixel shows of it: no light yet.

Lengths are MakeHuman's decimetres, the origin lies between chin and hairline; frame of relightx:
+x right in the picture, +y up, +z to the camera.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Integer, Shaped, UInt8

from relightx.pose import Pose, pose_of
from shards.rendering.detail import Detail
from shards.rendering.glasses import Glasses, glasses_piece
from shards.rendering.gloss import gloss
from shards.rendering.hair import hair_offsets, surface_place
from shards.rendering.heads import Person
from shards.rendering.lights import rotation
from shards.rendering.mouth import mouth_piece
from shards.rendering.noise import field
from shards.rendering.parts import head_parts, most_seen
from shards.rendering.pieces import joined, samples_of
from shards.rendering.render import (
    Camera,
    Fragments,
    average_samples,
    coarse_pixel,
    project,
    rasterise,
    vertex_normals,
    view_directions,
)
from shards.rendering.skin import Appearance, eye_albedo, surface_albedo
from shards.rendering.strands import strands
from shards.rendering.surface import Surface, makehuman_surface

_SAMPLES = 2  # along each side of a pixel
_POSE_DEG = (25.0, 12.0, 6.0)  # largest yaw, pitch and roll
FRAMINGS = {"portrait": (0.67, 0.76), "face": (0.95, 1.45), "features": (1.35, 1.65)}
"""Shares of the picture's height from chin to hairline: the whole head, the face alone, or what
lies between brows and chin, as Extended Yale B is cropped."""


@dataclass(frozen=True)
class Scene:
    """A posed head and what is seen of it.

    vertices, triangles: its mesh, and behind it those of its pieces (shards.rendering.pieces).
    albedo, normal (with fine relief), mask: the labels.
    place: where one of a pixel's samples lies. facing: unit normal there without fine relief.
    view: unit vector to the camera. roughness: of the gloss, 0 to 1 (GGX's alpha is its square).
    gloss: reflectance of the gloss when looked at straight on. skin, eye: share of the pixel.
    part: what most of the pixel shows, a number of `relightx.layers.PARTS`.
    camera: of a picture with `samples` times as many pixels along a side.
    pose_deg: as in relightx.pose.
    """

    vertices: Float[np.ndarray, "vertices 3"]
    triangles: Integer[np.ndarray, "triangles 3"]
    albedo: Float[np.ndarray, "size size 3"]
    normal: Float[np.ndarray, "size size 3"]
    mask: Bool[np.ndarray, "size size"]
    place: Float[np.ndarray, "size size 3"]
    facing: Float[np.ndarray, "size size 3"]
    view: Float[np.ndarray, "size size 3"]
    roughness: Float[np.ndarray, "size size"]
    gloss: Float[np.ndarray, "size size"]
    skin: Float[np.ndarray, "size size"]
    eye: Float[np.ndarray, "size size"]
    part: UInt8[np.ndarray, "size size"]
    camera: Camera
    pose_deg: Pose = (0.0, 0.0, 0.0)
    samples: int = _SAMPLES

    def layers(self) -> dict[str, Shaped[np.ndarray, "size size 1"]]:
        """depth: from the camera along the view axis, decimetres. skin, eye: shares of a pixel.
        parts: classes (relightx.layers).
        """
        depth = np.where(self.mask, self.camera.distance - self.place[..., 2], 0)
        found = {"depth": depth, "skin": self.skin, "eye": self.eye, "parts": self.part}
        return {name: (self.mask * values)[..., None] for name, values in found.items()}


def random_scene(
    person: Person,
    appearance: Appearance,
    rng: np.random.Generator,
    size: int,
    framing: str = "portrait",
    surface: Surface | None = None,
    glasses: Glasses | None = None,
    detail: Detail | None = None,
) -> Scene:
    """A person in a random pose before a random camera.

    framing: one of FRAMINGS. surface: the kind of head that the person has; MakeHuman's when None.
    detail: of the skin, that a simple scene does without.
    """
    surface = surface or makehuman_surface()
    refined = surface.vertices_of(person)
    height = float(np.linalg.norm(refined[surface.hairline] - refined[surface.chin]))
    middle = (refined[surface.hairline] + refined[surface.chin]) / 2
    lips, ears, _ = surface.weights.T
    pieces = [mouth_piece(person)] if person.open_mouth else []
    hair = hair_offsets(surface.template, lips, ears, appearance.hair)
    if glasses is not None:
        worn = (refined, hair, surface.triangles, surface.template, ears)
        pieces.append(glasses_piece(glasses, *worn))
    refined += hair
    normals = vertex_normals(refined, surface.triangles)
    turn = _random_pose(rng)
    side = size * _SAMPLES
    distance, share = float(rng.uniform(8, 18)), float(rng.uniform(*FRAMINGS[framing]))
    camera = Camera(distance, share * side / height, _jittered_centre(rng, side, share))
    known = np.concatenate((normals, surface.template, surface.weights, surface.uv), axis=1)
    vertices, triangles, known = joined(refined, surface.triangles, known, pieces)
    placed = _turned(vertices - middle, turn)
    seen = rasterise(project(placed, camera), triangles, side, side)
    known = np.concatenate((known, placed), axis=1)
    at = seen.interpolate(known.astype(np.float32), triangles)
    gaze = turn.T @ np.array([0, 0, 1.0]) + rng.normal(0, 0.1, 3) * (1, 0.5, 0)
    gaze *= (0.5, 0.5, 1)  # less than all the way: the eyes also follow the head
    first_piece = len(surface.triangles)
    on_eye = (seen.triangle >= surface.first_eye) & (seen.triangle < first_piece)
    close = None
    if detail is not None:
        appearance = detail.drawn_elsewhere(appearance)
        bare = at[~on_eye]
        close = detail.skin_of(bare[:, :9], bare[:, 9:12], appearance, 1 / camera.scale)
    albedo, bump, cover = _shade_free(at, on_eye, gaze, appearance, close, 1 / camera.scale)
    materials = gloss(at[:, 3:6], at[:, 6], cover, on_eye, appearance)
    part = head_parts(at[:, 3:6], at[:, 6:9], cover, on_eye, appearance)
    for piece, rows in samples_of(pieces, seen.triangle, first_piece):
        albedo[rows], bump[rows] = piece.paint(at[rows, 3:6]), 0
        materials[rows], part[rows] = (piece.roughness, piece.reflectance, 0, 0), piece.part
    normal = _turned(at[:, :3] + bump, turn)
    mean, mask = average_samples(
        np.concatenate((albedo, normal, materials), axis=1), seen.pixel, size, _SAMPLES
    )
    mean *= mask[..., None]
    view = view_directions(camera, side, _SAMPLES)
    place, facing = _one_sample(seen, at[:, 12:], _turned(at[:, :3], turn), size)
    return Scene(
        placed,
        triangles,
        albedo=mean[..., :3],
        normal=_facing(mean[..., 3:6], view),
        mask=mask,
        place=place,
        facing=_facing(facing, view),
        view=view.astype(np.float32),
        roughness=mean[..., 6],
        gloss=mean[..., 7],
        skin=mean[..., 8],
        eye=mean[..., 9],
        part=most_seen(part, seen.pixel, mask, _SAMPLES),
        camera=camera,
        pose_deg=pose_of(turn),
    )


def _shade_free(
    at: Float[np.ndarray, "num 15"],
    on_eye: Bool[np.ndarray, "num"],
    gaze: Float[np.ndarray, "3"],
    appearance: Appearance,
    close: tuple[Float[np.ndarray, "skin 3"], Float[np.ndarray, "skin 3"] | None] | None,
    spacing: float,
) -> tuple[
    Float[np.ndarray, "num 3"],
    Float[np.ndarray, "num 3"],
    Float[np.ndarray, "num"],
]:
    """Of each sample: albedo, what its fine relief adds to the normal, how far hair covers it.

    close: `Detail.skin_of` the samples that are not on the eyes. spacing: of the samples.
    """
    bare, slope = (None, None) if close is None else close
    template, on_skin = at[:, 3:6], ~on_eye
    albedo = np.empty((len(at), 3), np.float32)
    unit_gaze = gaze / np.linalg.norm(gaze)
    albedo[on_eye] = eye_albedo(template[on_eye], unit_gaze, appearance)
    skin = template[on_skin]
    near = None if slope is None else spacing
    place, weights = surface_place(skin), at[on_skin, 6:9].T
    combed = strands(place, appearance.hair.offset + 1, near)
    albedo[on_skin], hair = surface_albedo(skin, *weights, appearance, combed, bare, near)
    curls = field(place, "fine", appearance.hair.offset + 4)
    curl = appearance.hair.curl
    relief = hair * ((1 - curl) * 0.22 * combed + curl * 0.25 * curls)
    if slope is None:
        relief += (1 - hair) * 0.02 * field(place, "fine", appearance.offset + 9)
    bump = np.zeros((len(at), 3), np.float32)
    # Strands run down the head: their relief tilts normals around the vertical axis.
    around = np.stack((skin[:, 2] - 0.55, -skin[:, 0]), axis=1)
    around /= np.maximum(np.linalg.norm(around, axis=1, keepdims=True), 1e-6)
    bump[on_skin, 0] = relief * around[:, 0]
    bump[on_skin, 2] = relief * around[:, 1]
    bump[on_skin, 1] = hair * curl * 0.2 * field(place, "fine", appearance.hair.offset + 6)
    if slope is not None:
        bump[on_skin] += (1 - hair)[:, None] * slope
    cover = np.zeros(len(at), np.float32)
    cover[on_skin] = hair
    return albedo, bump, cover


def _one_sample(
    seen: Fragments,
    place: Float[np.ndarray, "num 3"],
    normal: Float[np.ndarray, "num 3"],
    size: int,
) -> tuple[Float[np.ndarray, "{size} {size} 3"], Float[np.ndarray, "{size} {size} 3"]]:
    """Place and normal of one covered sample of each pixel: a mean of two surfaces lies on none."""
    pixel = coarse_pixel(seen.pixel, size, _SAMPLES)
    found = np.zeros((2, size * size, 3), np.float32)
    found[0, pixel] = place
    found[1, pixel] = normal
    places, normals = found.reshape(2, size, size, 3)
    return places, normals


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


def _jittered_centre(rng: np.random.Generator, side: int, share: float) -> tuple[float, float]:
    # The face sits a little low, so that the hair has room; of one that fills the picture, which
    # loses the forehead first, it is the chin that has, until that is lost too.
    middle = max(0.535 - 0.4 * max(share - FRAMINGS["portrait"][1], 0), 0.385)
    column, row = side * (np.array([0.5, middle]) + rng.uniform(-0.025, 0.025, 2))
    return float(column), float(row)
