"""Labels of the parts of a head, and mouths that show teeth."""

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("anny", reason="the extra `synthetic` is not installed")

from relightx.index import read_index
from relightx.layers import PARTS, decode_layer
from relightx.sample import Portrait, encode
from shards.looking.verify import verify
from shards.read import read_members
from shards.rendering import makehuman
from shards.rendering.heads import head_vertices, mouth_vertices, random_person, with_open_mouth
from shards.rendering.mouth import mouth_piece
from shards.rendering.parts import MOUTH, most_seen
from shards.rendering.scene import random_scene
from shards.rendering.skin import random_appearance
from shards.rendering.surface import makehuman_surface
from shards.rendering.synthetic import synthetic, synthetic_one
from shards.rewriting.copying import Target
from shards.rewriting.rewrite import reshard
from shards.write import write_dataset

HEADS = 60


@pytest.fixture(scope="module")
def portraits() -> list[Portrait]:
    return list(synthetic(heads=HEADS, lights=1, size=64, seed=4, layers=True, occluders=True))


def of(portrait: Portrait, name: str) -> np.ndarray:
    """The pixels of a part."""
    return portrait.layers["parts"][..., 0] == PARTS.index(name)


def test_every_pixel_has_a_part_and_background_is_what_is_outside(portraits):
    for portrait in portraits:
        parts = portrait.layers["parts"]
        assert parts.dtype == np.uint8 and parts.max() < len(PARTS)
        np.testing.assert_array_equal(of(portrait, "background"), ~portrait.mask)


def test_every_part_is_seen_where_it_belongs(portraits):
    rows = {}
    for name in PARTS[1:]:
        found = [np.nonzero(of(portrait, name))[0] for portrait in portraits]
        rows[name] = np.median(np.concatenate(found))
        assert sum(len(place) > 0 for place in found) >= 3, name
    upward = ("cloth", "beard", "lips", "eye", "brow", "hair")
    assert [rows[name] for name in upward] == sorted((rows[n] for n in upward), reverse=True)


def test_parts_agree_with_the_shares_of_skin_and_eye(portraits):
    for portrait in portraits:
        skin, eye = (portrait.layers[name][..., 0] for name in ("skin", "eye"))
        assert eye[of(portrait, "eye")].min() > 0.3
        assert eye[~of(portrait, "eye")].max() <= 0.51
        assert skin[of(portrait, "skin")].mean() > 0.8
        for name in ("hair", "beard", "cloth", "glasses"):
            if of(portrait, name).any():
                assert skin[of(portrait, name)].mean() < 0.66


def test_some_heads_wear_glasses_and_some_open_the_mouth(portraits):
    glasses = sum(of(portrait, "glasses").sum() > 20 for portrait in portraits)
    mouths = sum(of(portrait, "mouth").sum() > 12 for portrait in portraits)
    assert 0.05 < glasses / HEADS < 0.3
    assert 0.08 < mouths / HEADS < 0.4
    for portrait in synthetic(heads=12, lights=1, size=64, seed=4, layers=True):
        assert not of(portrait, "glasses").any()
        assert of(portrait, "mouth").sum() < 12


def test_heads_without_occluders_are_the_same_with_the_switch_on(portraits):
    plain = list(synthetic(heads=12, lights=1, size=64, seed=4, layers=True))
    same = [encode(a) == encode(b) for a, b in zip(plain, portraits[:12], strict=True)]
    assert 4 <= sum(same) < 12


def test_a_pixel_is_what_most_of_it_shows_and_the_later_of_two():
    part = np.array([1, 1, 2, 4, 4, 1, 6, 5, 5], np.uint8)
    pixel = np.array([0, 1, 4, 5, 2, 3, 6, 8, 9])  # two by two in each of the four pixels
    mask = np.array([[True, True], [True, False]])
    assert most_seen(part, pixel, mask, 2).tolist() == [[1, 6], [5, 0]]
    tied = most_seen(np.array([1, 9], np.uint8), np.array([0, 1]), np.ones((1, 1), bool), 2)
    assert tied.tolist() == [[9]]


def test_teeth_lie_within_the_head_and_show_where_it_is_open():
    brightest = []
    for head in range(8):
        body, pose, mouth = (np.random.default_rng([6, head, part]) for part in range(3))
        person = random_person(body)
        appearance = random_appearance(body, person)
        laughing = with_open_mouth(mouth, person)
        scene = random_scene(laughing, appearance, pose, 96, "face")
        shown = scene.part == MOUTH
        assert shown.sum() > 15
        brightest.append(np.quantile(scene.albedo[shown].mean(axis=1), 0.9))
        lips = np.nonzero(scene.part == PARTS.index("lips"))
        teeth = np.nonzero(shown & (scene.albedo.mean(axis=2) > 0.3))
        for inner, outer in zip(teeth, lips, strict=True):
            assert inner.min() >= outer.min() - 1 and inner.max() <= outer.max() + 1
    assert np.median(brightest) > 0.35


def test_the_lower_teeth_follow_the_jaw():
    person = random_person(np.random.default_rng(0))
    shares = zip(("african", "asian", "caucasian"), person.ancestry, strict=True)
    jaw = {f"expression/units/{race}/mouth-open": 0.5 * share for race, share in shares}
    opened = replace(person, features=person.features | jaw, open_mouth=True)
    moved = mouth_piece(opened).vertices - mouth_piece(person).vertices
    template = mouth_piece(person).template
    upper, lower = template[:, 0] > 2, template[:, 0] < -2
    assert np.abs(moved[upper]).max() < 1e-6
    assert moved[lower, 1].mean() < -0.05
    mesh = makehuman.head_mesh()
    lips = mesh.lips > 0.5
    drop = (head_vertices(opened) - head_vertices(person))[lips, 1]
    assert drop.min() < -0.05
    assert len(mouth_vertices(person)) == len(makehuman.mouth_mesh().vertices)


def test_teeth_of_a_closed_mouth_are_left_out():
    person = random_person(np.random.default_rng(0))
    appearance = random_appearance(np.random.default_rng(1), person)
    closed, opened = (
        random_scene(replace(person, open_mouth=shown), appearance, np.random.default_rng(2), 64)
        for shown in (False, True)
    )
    assert len(closed.triangles) == len(makehuman_surface().triangles)
    assert len(opened.triangles) > len(closed.triangles)


@pytest.mark.parametrize("light", ["sh", "traced"])
def test_occluders_are_a_function_of_the_seed(light):
    settings = {"lights": 1, "size": 32, "seed": 4, "light": light, "occluders": True}
    first, again = (encode(synthetic_one(3, **settings)) for _ in range(2))
    assert first == again


def test_shards_with_parts_are_verified_and_rewritten(portraits, tmp_path):
    write_dataset(portraits[:3], tmp_path / "heads", lambda _: "train")
    assert not verify(tmp_path / "heads").faults
    reshard(tmp_path / "heads", Target(tmp_path / "again"))
    folder = tmp_path / "again" / "train"
    shard = read_index(folder).shards[0]
    for group, portrait in zip(shard.groups, portraits[:3], strict=True):
        members = read_members(folder, shard.name, group)
        np.testing.assert_array_equal(decode_layer(members, "parts"), portrait.layers["parts"])
