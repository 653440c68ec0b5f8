"""Pictures of a report are whole pictures in the page itself, and show what they say."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from relightx.gallery import (
    around_face,
    heads_gallery,
    light_ball,
    moving_tile,
    photo_gallery,
    tile,
)
from relightx.light import Light
from relightx.model import IntrinsicNet, ModelConfig
from relightx.portrait import Model, PortraitDecomposition
from shards.write import write_split


def opened(uri):
    assert uri.startswith("data:image/webp;base64,")
    return Image.open(io.BytesIO(base64.b64decode(uri.split(",", 1)[1])))


def photograph(height, width, rows, columns):
    """A decomposition whose face is a rectangle with normals to the camera."""
    mask = np.zeros((height, width), bool)
    mask[slice(*rows), slice(*columns)] = True
    weight = mask.astype(np.float32)
    ones = np.ones((height, width, 3), np.float32)
    light = Light.from_direction((0, 0, 1))
    return PortraitDecomposition(
        image=0.3 * ones,
        albedo=0.5 * ones * weight[..., None],
        normal=np.array([0, 0, 1], np.float32) * weight[..., None],
        shading=ones * weight[..., None],
        mask=mask,
        weight=weight,
        light=light,
        face_found=True,
    )


@pytest.fixture
def model():
    import torch

    return Model(IntrinsicNet(ModelConfig("unet", 8)).eval(), 32, torch.device("cpu"))


def test_a_tile_is_transparent_outside_its_mask():
    mask = np.zeros((8, 8), bool)
    mask[2:6, 2:6] = True
    shown = tile(np.full((8, 8, 3), 0.5, np.float32), "gray", mask)
    alpha = np.asarray(opened(shown.picture).convert("RGBA"))[..., 3]
    assert ((alpha > 0) == mask).all()


@pytest.mark.parametrize("strength", [0.01, 1.0, 50.0])
def test_a_balls_bright_side_faces_the_lamp_at_any_strength(strength):
    light = Light(Light.from_direction((1, 0, 0.2)).sh * np.float32(strength))
    ball = np.asarray(opened(light_ball(light)).convert("RGB")).astype(float)
    assert ball[32, 52].mean() > ball[32, 12].mean() + 60
    assert ball[32, 52].mean() > 150


def test_a_moving_picture_has_its_frames_and_a_still_one():
    frames = [np.full((16, 16, 3), level, np.float32) for level in (0.1, 0.5, 0.9)]
    moving = moving_tile(frames, "brighter")
    assert opened(moving.picture).n_frames == 3
    assert opened(moving.still).size == (16, 16)


@pytest.mark.parametrize("rows", [(0, 20), (40, 60), (80, 100)])
def test_the_part_around_a_face_holds_the_face_wherever_it_is(rows):
    part = around_face(photograph(100, 300, rows, (5, 25)))
    assert part.image.shape[0] == part.image.shape[1]
    share = part.mask.mean() * part.image.shape[0] ** 2
    assert share == pytest.approx(400, rel=0.15)


def test_a_large_photograph_becomes_small_pictures():
    part = around_face(photograph(1500, 1000, (0, 1500), (0, 1000)))
    assert max(part.image.shape) <= 352
    assert np.allclose(np.linalg.norm(part.normal[part.mask], axis=-1), 1, atol=1e-5)


def test_a_photographs_gallery_shows_each_light_by_its_name():
    lights = {"hall": Light.from_direction((0, 1, 0.5))}
    gallery = photo_gallery(photograph(60, 60, (20, 40), (20, 40)), "Me.", lights)
    captions = [shown.caption for strip in gallery.strips for shown in strip.tiles]
    assert "hall" in captions
    assert gallery.moving is not None


@pytest.mark.parametrize("count", [1, 2, 6])
def test_heads_are_shown_from_the_best_to_the_worst(count, model, make_portrait, tmp_path):
    portraits = [make_portrait(f"ball{i}", f"person{i}", seed=i) for i in range(count)]
    write_split(portraits, tmp_path / "test", "test")
    scores = {
        f"ball{i}": {"normal_error_deg": float(10 + i), "relighting_psnr": 20.0}
        for i in reversed(range(count))
    }
    gallery = heads_gallery(model, tmp_path / "test", scores)
    titles = [strip.title for strip in gallery.strips if strip.title]
    assert len(titles) == min(count, 4)
    assert titles == sorted(titles)
    assert titles[0].startswith("ball0, the best")
    assert titles[-1].startswith(f"ball{count - 1}")
