"""After any change the picture is still albedo times the shading of its normals and light."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

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
from relightx.data.fit import Views, fit
from relightx.sh import dominant_direction, shade

STILL = AugmentConfig(
    mirror=False, exposure_stops=0.0, tint_stops=0.0, shift=0.0, zoom=0.0, roll_deg=0.0
)


@pytest.fixture
def views(make_portrait) -> Views:
    return fit(make_portrait(size=96), 96)


def render(views: Views) -> np.ndarray:
    """Images (lights x size x size x 3) that the labels say there should be."""
    albedo, normal = (
        torch.from_numpy(v.copy()).movedim(-1, 0) for v in (views.albedo, views.normal)
    )
    image = albedo * shade(normal, torch.from_numpy(views.sh))
    return image.movedim(1, -1).numpy()


def worst(views: Views) -> float:
    """Largest relative difference of a picture and its labels where the ball is not too steep."""
    inside = views.mask & (views.normal[..., 2] > 0.4)
    assert inside.sum() > 1000
    difference = np.abs(render(views) - views.image)[:, inside]
    return float((difference / (views.image[:, inside] + 0.05)).max())


EXACT = 1e-3  # of 16-bit storage
INTERPOLATED = 0.012  # of bilinear sampling on top, away from the ball's rim

CHANGES: dict[str, tuple[Callable[[Views], Views], float]] = {
    "mirror": (mirrored, EXACT),
    "roll left": (lambda v: moved(v, 12.0, 1.0, np.zeros(2)), INTERPOLATED),
    "roll right": (lambda v: moved(v, -25.0, 1.0, np.zeros(2)), INTERPOLATED),
    "zoom": (lambda v: moved(v, 0.0, 1.1, np.zeros(2)), INTERPOLATED),
    "shift": (lambda v: moved(v, 0.0, 1.0, np.array([3.3, -2.6])), INTERPOLATED),
    "expose": (
        lambda v: exposed(v, np.array([[0.5, 1, 2], [3, 1, 0.3], [1, 1, 1]])),
        EXACT,
    ),
    "warp": (
        lambda v: moved(
            v, 0.0, 1.0, np.zeros(2), 3 * smooth_field(np.random.default_rng(0), 96, 2)
        ),
        INTERPOLATED,
    ),
    "skin": (
        lambda v: reskinned(v, 2 ** smooth_field(np.random.default_rng(0), 96, 1)),
        EXACT,
    ),
    "mix": (
        lambda v: mixed(v, v.of_lights([2, 0, 1]), np.array([0.2, 1.0, 0.6])),
        EXACT,
    ),
}


def test_the_portrait_obeys_its_labels_to_begin_with(views):
    assert worst(views) < EXACT


@pytest.mark.parametrize("name", CHANGES)
def test_physics_is_kept_by(name, views):
    change, tolerance = CHANGES[name]
    assert worst(change(views)) < tolerance


def test_physics_is_kept_by_all_changes_together(views):
    for change, _ in CHANGES.values():
        views = moved(change(views), 0.0, 1.0, np.zeros(2))
    # Rolls, zoom and shift sample the picture four times.
    assert worst(views) < 3 * INTERPOLATED


@pytest.mark.parametrize("seed", range(4))
def test_physics_is_kept_by_drawn_changes(seed, views):
    config = AugmentConfig(True, 1.0, 0.5, shift=0.06, zoom=0.15, roll_deg=20.0)
    changed = augment(views, config, np.random.default_rng(seed))
    assert np.abs(changed.image - views.image).mean() > 0.01
    assert worst(changed) < INTERPOLATED


@pytest.mark.parametrize("name", ["mirror", "roll left", "expose", "mix"])
def test_light_that_did_not_follow_would_be_seen(name, views):
    change, tolerance = CHANGES[name]
    assert worst(replace(change(views), sh=views.sh)) > 5 * tolerance


@pytest.mark.parametrize("name", ["mirror", "roll left"])
def test_normals_that_did_not_follow_would_be_seen(name, views):
    """The ball is its own mirror image and keeps its shape when turned; a tilted plane does not."""
    tilted = np.broadcast_to(np.float32([0.6, 0.48, 0.64]), views.normal.shape)
    plane = replace(views, normal=tilted, albedo=np.full_like(views.albedo, 0.5))
    plane = replace(plane, image=render(plane), mask=np.ones_like(views.mask))
    change, tolerance = CHANGES[name]
    inside = (slice(20, 76), slice(20, 76))

    def error(views: Views) -> float:
        return float(np.abs(render(views) - views.image)[:, *inside].max())

    assert error(change(plane)) < tolerance
    assert error(replace(change(plane), normal=tilted)) > 0.02


@pytest.mark.parametrize("name", CHANGES)
def test_confidence_goes_where_the_pixels_go(name, views):
    change, _ = CHANGES[name]
    height = views.normal[..., 2]
    albedo = np.repeat(height[..., None], 3, axis=2)
    changed = change(replace(views, confidence=height, albedo=albedo))
    expected = height if name == "skin" else changed.albedo[..., 0]  # skin changes albedo alone
    np.testing.assert_allclose(changed.confidence, expected, atol=1e-6)
    assert change(views).confidence is None


def test_confidence_is_in_range_after_all_drawn_changes(views):
    config = AugmentConfig(True, 1.0, 0.5, 0.06, 0.15, 20.0, turn_deg=8.0, skin_stops=1.0)
    half = replace(views, confidence=np.full_like(views.normal[..., 2], 0.5))
    changed = augment(half, config, np.random.default_rng(0), has_normal=True)
    np.testing.assert_allclose(changed.confidence[changed.mask], 0.5, atol=0.01)


def test_mirroring_twice_changes_nothing(views):
    twice = mirrored(mirrored(views))
    for name in ("image", "mask", "albedo", "normal", "sh"):
        np.testing.assert_array_equal(getattr(twice, name), getattr(views, name))


def test_a_light_from_the_right_comes_from_the_left_in_the_mirror(views):
    before = dominant_direction(torch.from_numpy(views.sh))
    after = dominant_direction(torch.from_numpy(mirrored(views).sh))
    torch.testing.assert_close(after, before * torch.tensor([-1.0, 1.0, 1.0]))


def test_a_roll_turns_picture_and_light_counter_clockwise(make_portrait):
    views = fit(make_portrait(size=96), 96)
    right = np.zeros_like(views.albedo)
    right[44:52, 80:88] = 1  # a spot at three o'clock
    turned = moved(replace(views, albedo=right), 90.0, 1.0, np.zeros(2))
    rows, columns = np.nonzero(turned.albedo[..., 0] > 0.5)
    assert rows.mean() < 20 and abs(columns.mean() - 47.5) < 1  # at twelve
    before = dominant_direction(torch.from_numpy(views.sh))
    after = dominant_direction(torch.from_numpy(turned.sh))
    quarter = torch.stack((-before[:, 1], before[:, 0], before[:, 2]), dim=-1)
    torch.testing.assert_close(after, quarter, atol=1e-5, rtol=0)


def test_what_moves_in_from_outside_is_not_in_the_mask(views):
    full = replace(views, mask=np.ones_like(views.mask))
    changed = moved(full, 10.0, 0.8, np.array([5.0, 0.0]))
    whole = replace(full, image=np.ones_like(views.image))
    covered = moved(whole, 10.0, 0.8, np.array([5.0, 0.0])).image[0, ..., 0]
    assert not changed.mask.all()
    assert covered[changed.mask].min() > 0.99


def test_no_change_asked_is_no_change(views):
    still = augment(views, STILL, np.random.default_rng(0))
    for name in ("image", "mask", "albedo", "normal", "sh"):
        np.testing.assert_array_equal(getattr(still, name), getattr(views, name))


def test_the_same_generator_draws_the_same_changes(views):
    first, second = (augment(views, AugmentConfig(), np.random.default_rng(7)) for _ in range(2))
    np.testing.assert_array_equal(first.image, second.image)
    np.testing.assert_array_equal(first.sh, second.sh)


def test_half_of_the_portraits_are_mirrored(views):
    config = replace(STILL, mirror=True)
    left = views.image[:, :, :20].sum()
    assert left != pytest.approx(views.image[:, :, -20:].sum(), rel=1e-3)
    flips = [
        augment(views, config, np.random.default_rng(seed)).image[:, :, :20].sum() != left
        for seed in range(40)
    ]
    assert 10 < sum(flips) < 30


def test_portraits_without_labels_are_changed_too(views):
    bare = replace(views, albedo=None, normal=None, sh=None)
    config = AugmentConfig()
    changed = augment(bare, config, np.random.default_rng(0))
    labelled = augment(views, config, np.random.default_rng(0))
    assert changed.albedo is changed.normal is changed.sh is None
    np.testing.assert_array_equal(changed.image, labelled.image)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"roll_deg": -1.0}, r"data.augment.roll_deg is -1"),
        ({"exposure_stops": float("nan")}, r"data.augment.exposure_stops is nan"),
        ({"zoom": 1.0}, "zoom must be below 1"),
        ({"mix": 1.5}, "mix at most 1"),
    ],
)
def test_impossible_amounts_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        AugmentConfig(**values)


def test_a_smooth_field_is_bounded_varied_and_smooth():
    field = smooth_field(np.random.default_rng(1), 64, 2)
    assert field.shape == (64, 64, 2) and np.abs(field).max() <= 1 and field.std() > 0.2
    # From one end of the range to the other in a cell of 12.8 px, 1.75 times as steep midway.
    assert np.abs(np.diff(field, axis=0)).max() < 1.75 * 2 / 12.8


def test_a_warp_fetches_each_pixel_from_where_it_says(views):
    warp = np.full((96, 96, 2), 0.0)
    warp[..., 0] = 5.0  # five columns from the right
    moved_views = moved(views, 0.0, 1.0, np.zeros(2), warp)
    np.testing.assert_allclose(moved_views.image[:, :, :-5], views.image[:, :, 5:], atol=1e-6)
    np.testing.assert_array_equal(moved_views.sh, views.sh)
