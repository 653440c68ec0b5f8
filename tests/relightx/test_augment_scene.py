"""A changed picture is the picture of a changed scene: rendered anew, from its labels and without.

Each change is held against two renderings: of its own labels, albedo times shading of normals and
light, and of the scene itself moved or lit in that way, which knows nothing of how labels change.
Each mistake that could be made in the labels is made once, to see that it would be found.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import cv2
import lit_scene
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from posed_scene import MIRROR, SIZE, PosedScene, turn
from torch.utils.data import DataLoader

from relightx.data.augment import (
    AugmentConfig,
    augment,
    exposed,
    mirrored,
    mixed,
    moved,
    reskinned,
    smooth_field,
)
from relightx.data.fit import Views
from relightx.data.portraits import Example, TrainingPortraits
from relightx.data.read import ShardReader
from relightx.data.turn import turned
from relightx.data.workers import use_one_thread
from relightx.index import read_index
from relightx.settings.data import DataConfig
from relightx.sh import mirror, shade

SCENE = PosedScene()
EXACT = 2e-6  # some roundings of numbers below 2
INTERPOLATED = 0.006  # bilinear, of this smooth scene; normals reach it, pictures half of it

GAIN = np.array([(0.5, 1.0, 2.0), (1.7, 1.0, 0.3), (1.2, 0.8, 1.0)])
WEIGHT = np.array([0.2, 1.0, 0.6])
OTHER = [2, 0, 1]  # the lights mixed with
SHIFT = np.array([3.3, -2.6])  # right and down
SKIN = 2.0 ** smooth_field(np.random.default_rng(0), SIZE, 1)
NONE = np.zeros(2)


@dataclass(frozen=True)
class Case:
    """A change of views and the scene that it should show."""

    change: Callable[[Views], Views]
    scene: PosedScene
    tolerance: float


def _lit_together() -> PosedScene:
    """Two lamps burn at once, each with its share of its strength."""
    share = WEIGHT[:, None]
    return replace(
        SCENE,
        toward=np.concatenate((SCENE.toward, SCENE.toward[OTHER]), axis=1),
        strength=np.concatenate(
            (SCENE.strength * share[..., None], SCENE.strength[OTHER] * (1 - share[..., None])),
            axis=1,
        ),
        ambient=SCENE.ambient * share + SCENE.ambient[OTHER] * (1 - share),
    )


def _lit(gain: np.ndarray) -> PosedScene:
    return replace(SCENE, strength=SCENE.strength * gain[:, None], ambient=SCENE.ambient * gain)


def _everything(views: Views) -> Views:
    views = moved(turned(mirrored(views), 4.0, -5.0), 11.0, 0.9, SHIFT)
    return exposed(reskinned(views, SKIN), GAIN)


CASES = {
    "mirror": Case(mirrored, SCENE.posed(MIRROR), EXACT),
    "roll left": Case(
        lambda v: moved(v, 12.0, 1.0, NONE), SCENE.posed(turn(roll_deg=12)), INTERPOLATED
    ),
    "roll right": Case(
        lambda v: moved(v, -25.0, 1.0, NONE), SCENE.posed(turn(roll_deg=-25)), INTERPOLATED
    ),
    "crop": Case(lambda v: moved(v, 0.0, 1.3, NONE), SCENE.posed(1.3 * np.eye(3)), INTERPOLATED),
    "shrink": Case(
        lambda v: moved(v, 0.0, 0.85, NONE), SCENE.posed(0.85 * np.eye(3)), INTERPOLATED
    ),
    "shift": Case(
        lambda v: moved(v, 0.0, 1.0, SHIFT), SCENE.posed(np.eye(3), (3.3, 2.6)), INTERPOLATED
    ),
    "pitch": Case(lambda v: turned(v, 8.0, 0.0), SCENE.posed(turn(8, 0)), INTERPOLATED),
    "yaw": Case(lambda v: turned(v, 0.0, -8.0), SCENE.posed(turn(0, -8)), INTERPOLATED),
    "pitch and yaw": Case(lambda v: turned(v, 5.0, 6.0), SCENE.posed(turn(5, 6)), INTERPOLATED),
    "expose": Case(lambda v: exposed(v, GAIN), _lit(GAIN), EXACT),
    "skin": Case(lambda v: reskinned(v, SKIN), replace(SCENE, skin=SKIN), EXACT),
    "mix": Case(lambda v: mixed(v, v.of_lights(OTHER), WEIGHT), _lit_together(), EXACT),
    "everything": Case(
        _everything,
        replace(
            _lit(GAIN).posed(MIRROR).posed(turn(4, -5)).posed(0.9 * turn(roll_deg=11), (3.3, 2.6)),
            skin=SKIN,
        ),
        4 * INTERPOLATED,  # fetched twice, then up to four times as bright
    ),
}


def pictures_of_labels(views: Views) -> np.ndarray:
    """Images, lights x size x size x 3, that the labels say there should be."""
    albedo, normal = (
        torch.from_numpy(np.ascontiguousarray(v)).movedim(-1, 0)
        for v in (views.albedo, views.normal)
    )
    return (albedo * shade(normal, torch.from_numpy(views.sh))).movedim(1, -1).numpy()


def from_labels(views: Views) -> float:
    """Largest difference of the pictures and what their labels say."""
    assert views.mask.sum() > 2000
    return float(np.abs(pictures_of_labels(views) - views.image)[:, views.mask].max())


def from_views(views: Views, expected: Views, names: tuple[str, ...]) -> float:
    """Largest difference of some of the pictures where both are in the mask."""
    where = views.mask & expected.mask
    assert where.sum() > 2000
    return max(
        float(np.abs(getattr(views, name) - getattr(expected, name))[..., where, :].max())
        for name in names
    )


def from_scene(views: Views, scene: PosedScene) -> float:
    """Largest difference of pictures, labels and light and the scene's own."""
    expected = scene.views()
    light = float(np.abs(views.sh - expected.sh).max())
    return max(light, from_views(views, expected, ("image", "albedo", "normal")))


@pytest.fixture(scope="module")
def views() -> Views:
    return SCENE.views()


def test_the_scene_obeys_its_labels_and_lies_in_no_symmetry(views):
    assert from_labels(views) < EXACT
    for pose in (MIRROR, turn(roll_deg=12), turn(8, 0), turn(0, -8)):
        assert from_scene(views, SCENE.posed(pose)) > 10 * INTERPOLATED


@pytest.mark.parametrize("name", CASES)
def test_the_labels_after_a_change_give_its_picture(name, views):
    case = CASES[name]
    assert from_labels(case.change(views)) < case.tolerance


@pytest.mark.parametrize("name", CASES)
def test_a_changed_picture_is_that_of_the_changed_scene(name, views):
    case = CASES[name]
    changed, there = case.change(views), case.scene.mask()
    assert from_scene(changed, case.scene) < case.tolerance
    assert not (changed.mask & ~there).any() and changed.mask.sum() > 0.9 * there.sum()


@pytest.mark.parametrize("name", CASES)
def test_so_it_is_under_lamps_that_leave_a_dark_side(name):
    """Lambert's law without the smoothing of nine coefficients."""
    case = CASES[name]
    changed = case.change(SCENE.lambert_views())
    assert from_views(changed, case.scene.lambert_views(), ("image",)) < case.tolerance


def test_a_mirrored_photograph_with_cast_shadows_is_that_of_the_mirrored_face():
    face = lit_scene.face()
    turned_depth = face.depth[:, ::-1]
    slope_x, slope_y = np.gradient(turned_depth, axis=1), np.gradient(turned_depth, axis=0)
    normal = np.stack((-slope_x, slope_y, np.ones_like(slope_x)), axis=-1)
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    other = lit_scene.Scene(normal, face.albedo[:, ::-1], turned_depth, face.mask[:, ::-1])
    toward = lit_scene.lamps(5)
    square = slice(8, 88)

    def photographs(scene: lit_scene.Scene, toward: np.ndarray) -> Views:
        image = scene.photograph(toward)[:, square]
        return Views(image, scene.mask[square], None, None, None, None)

    photograph = photographs(face, toward)
    expected = photographs(other, toward * np.float32([-1, 1, 1])).image
    difference = np.abs(mirrored(photograph).image - expected)
    # A pixel on the edge of a shadow, or between two of the 256 steps, may fall to either side.
    assert difference.mean() < 1e-4 and (difference > 1.5 / 255).mean() < 1e-3
    same_lamps = np.abs(mirrored(photograph).image - photographs(other, toward).image)
    assert same_lamps.mean() > 0.02


# -- mistakes that would be found ---------------------------------------------------------------

ROLL = turn(roll_deg=12).astype(np.float32)
YAW = turn(0, -8).astype(np.float32)

MISTAKES: dict[tuple[str, str], Callable[[Views, Views], Views]] = {
    ("mirror", "normals keep their x"): lambda before, after: replace(
        after, normal=before.normal[:, ::-1]
    ),
    ("mirror", "normals stay where they were"): lambda before, after: replace(
        after, normal=before.normal
    ),
    ("mirror", "light stays"): lambda before, after: replace(after, sh=before.sh),
    ("mirror", "light is mirrored twice"): lambda before, after: replace(
        after, sh=mirror(torch.from_numpy(after.sh)).numpy()
    ),
    ("mirror", "one of the nine signs is wrong"): lambda before, after: replace(
        after, sh=after.sh * np.float32([1, 1, 1, 1, -1, 1, 1, 1, 1])
    ),
    ("roll left", "normals do not turn"): lambda before, after: replace(
        after, normal=after.normal @ ROLL
    ),
    ("roll left", "normals turn the other way"): lambda before, after: replace(
        after, normal=after.normal @ ROLL @ ROLL
    ),
    ("roll left", "light stays"): lambda before, after: replace(after, sh=before.sh),
    ("roll left", "light turns the other way"): lambda before, after: replace(
        after, sh=moved(before, -12.0, 1.0, NONE).sh
    ),
    ("crop", "normals become steeper with the picture"): lambda before, after: replace(
        after, normal=SCENE.posed(np.diag((1.3, 1.3, 1.0))).normal().astype(np.float32)
    ),
    ("crop", "normals are not cropped"): lambda before, after: replace(after, normal=before.normal),
    ("shift", "labels stay"): lambda before, after: replace(
        after, normal=before.normal, albedo=before.albedo
    ),
    ("yaw", "normals do not turn"): lambda before, after: replace(after, normal=after.normal @ YAW),
    ("yaw", "light stays"): lambda before, after: replace(after, sh=before.sh),
    ("yaw", "light turns the other way"): lambda before, after: replace(
        after, sh=turned(before, 0.0, 8.0).sh
    ),
    ("expose", "light stays"): lambda before, after: replace(after, sh=before.sh),
    ("expose", "the picture stays"): lambda before, after: replace(after, image=before.image),
    ("expose", "light forgets the colours"): lambda before, after: replace(
        after, sh=before.sh * GAIN.mean(1)[:, None, None].astype(np.float32)
    ),
    ("expose", "light mixes up the lights"): lambda before, after: replace(
        after, sh=before.sh * GAIN[::-1, :, None].astype(np.float32)
    ),
    ("skin", "albedo stays"): lambda before, after: replace(after, albedo=before.albedo),
    ("skin", "the picture stays"): lambda before, after: replace(after, image=before.image),
    ("mix", "light is the first's"): lambda before, after: replace(after, sh=before.sh),
    ("mix", "light is the mean of both"): lambda before, after: replace(
        after, sh=(before.sh + before.sh[OTHER]) / 2
    ),
}


@pytest.mark.parametrize(("name", "mistake"), MISTAKES)
def test_it_would_be_seen_if(name, mistake, views):
    """In the labels alone, and beside the scene."""
    case = CASES[name]
    wrong = MISTAKES[name, mistake](views, case.change(views))
    assert from_labels(wrong) > 5 * INTERPOLATED
    assert from_scene(wrong, case.scene) > 5 * INTERPOLATED


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("roll left", lambda v: moved(v, -12.0, 1.0, NONE)),
        ("shift", lambda v: moved(v, 0.0, 1.0, -SHIFT)),
        ("crop", lambda v: moved(v, 0.0, 1 / 1.3, NONE)),
        ("pitch", lambda v: turned(v, -8.0, 0.0)),
        ("pitch and yaw", lambda v: turned(v, 5.0, -6.0)),
    ],
)
def test_a_consistent_change_the_other_way_is_seen_beside_the_scene(name, change, views):
    """Its labels give its picture: only the scene tells that it is another one."""
    wrong = change(views)
    assert from_labels(wrong) < INTERPOLATED
    assert from_scene(wrong, CASES[name].scene) > 5 * INTERPOLATED


# -- what is drawn ------------------------------------------------------------------------------


@given(
    seed=st.integers(0, 2**32),
    config=st.builds(
        AugmentConfig,
        mirror=st.booleans(),
        exposure_stops=st.floats(0, 1),
        tint_stops=st.floats(0, 0.5),
        shift=st.floats(0, 0.06),
        zoom=st.floats(0, 0.2),
        roll_deg=st.floats(0, 30),
        turn_deg=st.floats(0, 8),
        stretch=st.floats(0, 0.03),
        skin_stops=st.floats(0, 0.5),
    ),
)
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_whatever_is_drawn_the_labels_give_the_picture(views, seed, config):
    changed = augment(views, config, np.random.default_rng(seed), has_normal=True)
    brightness = max(1.0, float(changed.image.max() / views.image.max()))
    assert from_labels(changed) < 2 * INTERPOLATED * brightness
    np.testing.assert_allclose(np.linalg.norm(changed.normal[changed.mask], axis=-1), 1, atol=1e-5)


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_a_visit_is_the_same_in_any_process_whatever_was_drawn_there_before(tiny_shards):
    config = DataConfig(
        image_size=32,
        augment=AugmentConfig(turn_deg=5.0, stretch=0.02, skin_stops=0.3, mix=0.5),
    )
    indexes = [read_index(tiny_shards / "train")]
    portraits = TrainingPortraits(indexes, ShardReader(indexes), config)
    expected = portraits[(7, 2)]
    among_others = [(number, epoch) for epoch in range(2) for number in range(7)]
    visits = [*among_others, (7, 2), (7, 2), (7, 2), (8, 2), (7, 3)]
    loader = DataLoader(
        portraits,
        batch_size=None,
        sampler=visits,
        num_workers=3,
        collate_fn=_as_it_is,
        worker_init_fn=_with_other_numbers,
    )
    *_, first, second, third, other, later = loader
    for same in (first, second, third):
        assert _differ(same, expected) == 0
    assert _differ(other, expected) > 0.01 and _differ(later, expected) > 0.01


def _as_it_is(example: Example) -> Example:
    return example


def _with_other_numbers(worker: int) -> None:
    """Each worker's global generators differ."""
    use_one_thread()  # one or more would wait for threads of OpenCV that no fork has
    np.random.seed(worker)
    torch.manual_seed(worker)
    cv2.setRNGSeed(worker)


def _differ(one: Example, other: Example) -> float:
    names = ("image", "mask", "albedo", "normal", "sh")
    pairs = [(getattr(one.views, name), getattr(other.views, name)) for name in names]
    return float(max(np.abs(a.astype(float) - b.astype(float)).max() for a, b in pairs))
