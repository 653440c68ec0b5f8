"""A head turned with its light is a picture that could have been taken."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from relightx.data.augment import AugmentConfig, augment
from relightx.data.fit import Views, fit
from relightx.data.turn import depth, turned
from relightx.sh import dominant_direction, shade


@pytest.fixture
def views(make_portrait) -> Views:
    """A ball, small enough in the picture that turning leaves it whole."""
    return fit(make_portrait(size=96), 96)


def inside(views: Views) -> np.ndarray:
    return views.mask & (views.normal[..., 2] > 0.5)


def test_the_depth_of_a_ball_is_its_height(views):
    place = ((np.arange(96) + 0.5) / 96 * 2 - 1) / 0.9
    column, row = np.meshgrid(place, -place)
    mask = column**2 + row**2 < 0.7
    height = np.sqrt(np.maximum(1 - column**2 - row**2, 0)) * 0.9 * 48
    error = depth(views.normal, mask) - (height - height[mask].mean())
    assert np.abs(error[mask]).max() < 0.02 * np.ptp(height[mask])


def test_the_depth_of_a_tilted_plane_is_its_slope_also_at_odd_sizes():
    normal = np.tile(np.array([-0.3, 0.2, 1.0], np.float32) / np.sqrt(1.13), (33, 33, 1))
    surface = depth(normal, np.ones((33, 33), bool))
    np.testing.assert_allclose(np.diff(surface, axis=1)[5:-5, 5:-5], 0.3, atol=0.03)
    np.testing.assert_allclose(np.diff(surface, axis=0)[5:-5, 5:-5], 0.2, atol=0.03)


def test_no_turn_changes_nothing(views):
    same = turned(views, 0.0, 0.0)
    np.testing.assert_allclose(same.image, views.image, atol=1e-5)
    np.testing.assert_allclose(same.sh, views.sh, atol=1e-4)


@pytest.mark.parametrize(("pitch", "yaw"), [(8.0, 0.0), (0.0, -8.0), (5.0, 6.0)])
def test_a_turned_picture_is_albedo_times_its_shading(pitch, yaw, views):
    after = turned(views, pitch, yaw)
    albedo, normal = (
        torch.from_numpy(v.copy()).movedim(-1, 0) for v in (after.albedo, after.normal)
    )
    rendered = (albedo * shade(normal, torch.from_numpy(after.sh))).movedim(1, -1).numpy()
    where = inside(after)
    assert where.sum() > 2000
    assert np.abs(rendered - after.image)[:, where].max() < 0.015


def test_confidence_turns_with_the_albedo_it_speaks_of(views):
    spoken = replace(views, confidence=views.albedo[..., 0].copy())
    after = turned(spoken, 5.0, -6.0)
    np.testing.assert_allclose(after.confidence, after.albedo[..., 0], atol=1e-6)
    assert np.abs(after.confidence - spoken.confidence).max() > 0.05
    assert turned(views, 5.0, -6.0).confidence is None


@pytest.mark.parametrize(("pitch", "yaw"), [(8.0, 0.0), (0.0, 8.0)])
def test_a_turned_ball_is_a_ball_about_the_place_its_centre_went_to(pitch, yaw, views):
    """The turn is about the middle of what is seen; the ball's centre lies behind it."""
    after = turned(views, pitch, yaw)
    radius, size = 0.9 * 48, 96
    height = np.sqrt(np.maximum(1 - np.square(views.normal[..., :2]).sum(-1), 0)) * radius
    behind = height[views.mask].mean()
    right = -behind * np.sin(np.deg2rad(yaw))
    up = behind * np.sin(np.deg2rad(pitch))
    column, row = np.meshgrid(np.arange(size), np.arange(size))
    x = (column - (size - 1) / 2 - right) / radius
    y = ((size - 1) / 2 - row - up) / radius
    ball = np.stack((x, y, np.sqrt(np.maximum(1 - x**2 - y**2, 0))), axis=-1)
    where = inside(after) & (ball[..., 2] > 0.5)
    cosine = (after.normal * ball).sum(-1)[where].clip(-1, 1)
    assert np.rad2deg(np.arccos(cosine)).mean() < 1.0


def test_pitch_tips_down_and_yaw_goes_to_the_right(views):
    for pitch, yaw, axis, sign in ((8.0, 0.0, 1, -1), (0.0, 8.0, 0, 1)):
        ahead = np.broadcast_to(np.array([0, 0, 1], np.float32), views.normal.shape)
        flat = replace(views, normal=ahead)
        after = turned(flat, pitch, yaw)
        assert sign * after.normal[48, 48, axis] > 0.1
        before, now = (dominant_direction(torch.from_numpy(v.sh)) for v in (flat, after))
        assert bool((sign * (now - before)[:, axis] > 0).all())


def test_without_normals_there_is_no_turning(views):
    bare = replace(views, normal=None)
    with pytest.raises(ValueError, match="without normals"):
        turned(bare, 5.0, 0.0)


def test_a_withheld_normal_label_shapes_no_picture(views):
    config = AugmentConfig(False, 0.0, 0.0, shift=0.0, zoom=0.0, roll_deg=0.0, turn_deg=10.0)
    withheld = augment(views, config, np.random.default_rng(0), has_normal=False)
    kept = augment(views, config, np.random.default_rng(0), has_normal=True)
    np.testing.assert_array_equal(withheld.image, views.image)
    assert np.abs(kept.image - views.image).max() > 0.05
