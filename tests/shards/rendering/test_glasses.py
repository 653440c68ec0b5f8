"""Glasses on heads: clear of the face, before the eyes, and in the way of the light."""

import numpy as np
import pytest

pytest.importorskip("anny", reason="the extra `synthetic` is not installed")

from relightx.layers import PARTS
from shards.rendering.casting import Caster
from shards.rendering.glasses import Glasses, glasses_piece, random_glasses
from shards.rendering.hair import hair_offsets
from shards.rendering.heads import random_person
from shards.rendering.parts import GLASSES
from shards.rendering.pieces import Piece
from shards.rendering.points import Points
from shards.rendering.scene import Scene, random_scene
from shards.rendering.skin import EYE_CENTRE, random_appearance
from shards.rendering.surface import makehuman_surface
from shards.rendering.tubes import tube

HEADS = range(16)


def worn(head: int) -> tuple[np.ndarray, Piece]:
    """The bare skin of a head, and its glasses."""
    body, kind = (np.random.default_rng([2, head, part]) for part in range(2))
    person, surface = random_person(body), makehuman_surface()
    skin = surface.vertices_of(person)
    lips, ears, _ = surface.weights.T
    hair = hair_offsets(surface.template, lips, ears, random_appearance(body, person).hair)
    piece = glasses_piece(
        random_glasses(kind), skin, hair, surface.triangles, surface.template, ears
    )
    return skin, piece


def scene(glasses: Glasses | None, head: int = 0, size: int = 128) -> Scene:
    body, pose = (np.random.default_rng([2, head, part]) for part in range(2))
    person = random_person(body)
    return random_scene(
        person, random_appearance(body, person), pose, size, "face", glasses=glasses
    )


@pytest.mark.parametrize("head", HEADS)
def test_they_lie_before_the_face_and_touch_it(head):
    skin, piece = worn(head)
    face = Caster(skin, makehuman_surface().triangles)
    # All but the temples' ends. From within the head a ray to the front would meet its skin.
    front = piece.vertices[piece.vertices[:, 2] > piece.vertices[:, 2].max() - 0.4]
    ahead = np.broadcast_to(np.array([0, 0, 1.0]), front.shape)
    assert len(front) > 1700
    assert not face.blocked(front, ahead).any()
    assert face.blocked(front - 0.04 * ahead, ahead).any()


@pytest.mark.parametrize("head", HEADS)
def test_each_eye_is_looked_at_through_a_rim(head):
    skin, piece = worn(head)
    template = makehuman_surface().template
    for side in (-1, 1):
        near = np.linalg.norm(template - EYE_CENTRE * (side, 1, 1), axis=1).argmin()
        eye = skin[near]
        offset = piece.vertices - eye
        front = offset[(offset[:, 2] > 0) & (side * piece.vertices[:, 0] > 0)]
        degrees = np.degrees(np.arctan2(front[:, 1], front[:, 0]))
        counts, _ = np.histogram(degrees, bins=12, range=(-180, 180))
        assert counts.min() > 0
        assert np.linalg.norm(front[:, :2], axis=1).min() > 0.08


def test_temples_run_outside_of_the_head_to_the_ears():
    surface = makehuman_surface()
    for head in HEADS:
        skin, piece = worn(head)
        bare = Caster(skin, surface.triangles)
        for side in (-1, 1):
            ear = np.linalg.norm(surface.template - (side * 0.74, 7.35, 0.6), axis=1).argmin()
            away = np.linalg.norm(piece.vertices - skin[ear], axis=1)
            assert away.min() < 0.1
            front, depth = piece.vertices[:, 2].max() - 0.4, piece.vertices[:, 2]
            between = (depth < front) & (depth > skin[ear, 2] + 0.15)
            temple = piece.vertices[between & (side * piece.vertices[:, 0] > 0)]
            outward = np.broadcast_to(np.array([side, 0, 0.0]), temple.shape)
            assert len(temple) > 100
            assert not bare.blocked(temple, outward).any()


def test_tubes_are_closed_and_look_outward():
    circle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    ring = np.stack((np.cos(circle), np.sin(circle), 0 * circle), axis=1)
    line = np.stack((0 * circle, 0 * circle, circle), axis=1)
    for path, up, closed in ((ring, (0.0, 0.0, 1.0), True), (line, (0.0, 1.0, 0.0), False)):
        vertices, triangles = tube(path, np.full((40, 2), 0.1), up, ring=closed)
        edges = np.sort(triangles[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1)
        assert (np.unique(edges, axis=0, return_counts=True)[1] == 2).all()
        corner = vertices[triangles]
        # Six times the volume within: positive where all look outward.
        volume = np.linalg.det(corner).sum() / 6
        length = 2 * np.pi * 39 / 40 if path is line else 2 * np.pi
        assert volume == pytest.approx(np.pi * 0.01 * length, rel=0.06)


def test_glasses_are_seen_as_glasses_and_nothing_else_changes():
    glasses = random_glasses(np.random.default_rng(5))
    bare, with_glasses = scene(None), scene(glasses)
    changed = (np.abs(bare.albedo - with_glasses.albedo) > 1e-6).any(axis=2)
    seen = with_glasses.part == GLASSES
    assert 0.005 < seen.mean() < 0.2
    assert PARTS[GLASSES] == "glasses" and not (bare.part == GLASSES).any()
    assert changed[seen].mean() > 0.99
    # What changed and is not of them has a share of them.
    edge = changed & ~seen
    near = np.zeros_like(seen)
    for row in (-1, 0, 1):
        for column in (-1, 0, 1):
            near |= np.roll(seen, (row, column), axis=(0, 1))
    assert near[edge].mean() > 0.9
    assert not with_glasses.skin[seen].max() > 0.51


def test_glasses_have_their_own_albedo_and_gloss():
    glasses = random_glasses(np.random.default_rng(5))
    shown = scene(glasses, size=256)
    whole = np.zeros_like(shown.mask)
    whole[shown.part == GLASSES] = True
    inner = (
        whole & (shown.skin == 0) & (shown.eye == 0) & (shown.gloss > 0.999 * glasses.reflectance)
    )
    assert inner.sum() > 200
    np.testing.assert_allclose(shown.roughness[inner], glasses.roughness, rtol=0.02)
    ceiling = np.array(glasses.colour) + 1e-3
    assert (shown.albedo[inner] <= ceiling).all()


def test_a_lamp_from_above_throws_their_shadow_on_the_face():
    glasses = random_glasses(np.random.default_rng(5))
    toward = np.array([0, 0.6, 0.8], np.float32)
    lit = []
    for piece in (None, glasses):
        points = Points(scene(piece))
        seen = points.lit(toward, points.normal @ toward)
        lit.append(points.picture(seen.astype(np.float32)) > 0)
    bare, shown = scene(None), scene(glasses)
    skin = (bare.part == 1) & (shown.part == 1)
    shaded = skin & lit[0] & ~lit[1]
    assert shaded.sum() > 50
    # Shadows fall downward: nearly all lie lower than the top of the frame.
    top = np.nonzero(shown.part == GLASSES)[0].min()
    assert (np.nonzero(shaded)[0] > top).mean() > 0.95
    assert (skin & ~lit[0] & lit[1]).sum() < 0.1 * shaded.sum()
