"""Portraits under traced light: what they show, and that their labels explain it."""

import math
import subprocess
import sys

import numpy as np
import pytest
import torch

from relightx.color import LUMINANCE
from relightx.layers import decode_layer
from relightx.sample import Portrait, encode
from relightx.sh import shade, spread_directions
from shards.rendering.heads import random_person
from shards.rendering.illumination import random_illumination
from shards.rendering.lamps import bare_lamp_shading
from shards.rendering.points import Points
from shards.rendering.scene import random_scene
from shards.rendering.skin import random_appearance
from shards.rendering.surroundings import shipped_surroundings
from shards.rendering.synthetic import HeadJob, synthetic_one
from shards.rendering.transport import bare_shading

NAMES = ("bare", "shading", "specular", "visible")
WEIGHT = np.array(LUMINANCE)


@pytest.fixture(scope="module")
def portraits() -> list[Portrait]:
    return [synthetic_one(head, lights=6, size=64, seed=3, light="traced") for head in range(5)]


def shaded(normal: np.ndarray, sh: np.ndarray) -> np.ndarray:
    """Shading (lights, points, 3) of normals (points, 3) by the lights' coefficients."""
    column = torch.from_numpy(np.ascontiguousarray(normal.T[None, :, :, None]))
    shading = shade(column.expand(len(sh), -1, -1, -1), torch.from_numpy(sh))
    return shading.clamp_min(0)[..., 0].transpose(1, 2).numpy()


def test_labels_explain_the_diffuse_part():
    """Albedo, normals and coefficients against traced light without shadow, gloss and bounces."""
    rng = np.random.default_rng(4)
    person = random_person(rng)
    points = Points(random_scene(person, random_appearance(rng, person), rng, 64))
    cells = spread_directions(256).numpy().astype(np.float32)
    maps, errors = shipped_surroundings(), []
    while len(errors) < 30:
        light = random_illumination(rng, maps, 12.0)
        if any(math.isfinite(lamp.distance) for lamp in light.lamps):
            continue  # the labels know no distance
        bare = bare_shading(points, cells, light.radiance(cells))
        bare = bare + sum(bare_lamp_shading(points, lamp) for lamp in light.all_lamps())
        error = shaded(points.normal, light.sh[None])[0].T - bare
        errors.append(np.sqrt((error**2).mean()) / bare.mean())
    # Nine coefficients of a lamp's cosine leave a tenth (Ramamoorthi and Hanrahan 2001).
    assert np.median(errors) < 0.05 and max(errors) < 0.15


def test_labels_follow_the_image(portraits):
    """With shadow, gloss and noise in it: in the median light, and none is another light's."""
    alike = []
    for portrait in portraits:
        image = portrait.linear_image()[:, portrait.mask]
        known = shaded(portrait.normal[portrait.mask], portrait.sh) * portrait.albedo[portrait.mask]
        for seen, label in zip(image @ WEIGHT, known @ WEIGHT, strict=True):
            alike.append(np.corrcoef(seen, label)[0, 1])
            assert 0.5 < np.median(seen / np.maximum(label, 1e-3)) < 2
    assert np.median(alike) > 0.75 and min(alike) > 0.2


def test_the_head_is_that_of_the_simple_set_but_for_fine_detail(portraits):
    simple = synthetic_one(0, lights=1, size=64, seed=3)
    np.testing.assert_array_equal(simple.mask, portraits[0].mask)
    cosine = (simple.normal * portraits[0].normal).sum(axis=-1)[simple.mask]
    assert np.median(cosine) > np.cos(np.radians(2)) and cosine.min() > 0.8
    difference = np.abs(simple.albedo - portraits[0].albedo)[simple.mask]
    assert np.median(difference) < 0.02


def test_a_head_is_the_same_in_any_run(portraits):
    again = synthetic_one(4, lights=6, size=64, seed=3, light="traced")
    np.testing.assert_array_equal(again.image, portraits[4].image)
    np.testing.assert_array_equal(again.sh, portraits[4].sh)


def test_images_are_well_exposed_and_black_outside(portraits):
    for portrait in portraits:
        image = portrait.linear_image()
        mean = image[:, portrait.mask].mean(axis=(1, 2))
        assert (mean > 0.03).all() and (mean < 0.5).all()
        assert (image[:, portrait.mask] > 0.99).mean() < 0.03
        assert not portrait.image[:, ~portrait.mask].any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"light": "radiosity"}, r"light is 'radiosity', needed is one of \('sh', 'traced'\)"),
        ({"camera": "sepia"}, r"camera is 'sepia', needed is one of \('colour', 'gray'\)"),
        ({"framing": "bust"}, "framing is 'bust', needed is one of .*'portrait', .*'features'"),
    ],
)
def test_what_there_is_not_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        HeadJob(0, **change)


def test_a_face_fills_its_picture():
    portrait = synthetic_one(1, lights=1, size=64, seed=3, framing="face")
    assert portrait.mask.mean() > 0.7 and "0.95 to 1.45" in portrait.provenance.crop


@pytest.mark.parametrize("light", ["sh", "traced"])
def test_a_gray_camera_has_gray_labels_too(light):
    portrait = synthetic_one(1, lights=4, size=64, seed=3, light=light, camera="gray")
    assert portrait.image.shape[3] == 1
    np.testing.assert_array_equal(portrait.albedo, portrait.albedo[..., :1].repeat(3, axis=2))
    np.testing.assert_allclose(portrait.sh, portrait.sh[:, :1].repeat(3, axis=1), rtol=1e-4)
    colour = synthetic_one(1, lights=4, size=64, seed=3, light=light)
    np.testing.assert_array_equal(portrait.normal, colour.normal)


def test_layers_put_the_image_together_again():
    portrait = synthetic_one(2, lights=3, size=64, seed=3, light="traced", layers=True)
    plain = synthetic_one(2, lights=3, size=64, seed=3, light="traced")
    np.testing.assert_array_equal(portrait.image, plain.image)
    mask, layers = portrait.mask, portrait.layers
    assert layers["depth"][mask].min() > 5 and not layers["depth"][~mask].any()
    assert 0.3 < layers["skin"][mask].mean() < 1 and layers["eye"][mask].max() > 0.9
    for number, image in enumerate(portrait.linear_image()):
        bare, shading, gloss, visible = (layers[f"light{number:03d}.{name}"] for name in NAMES)
        assert visible.min() >= 0 and visible.max() <= 1
        assert (bare[mask] @ WEIGHT).mean() > (shading[mask] @ WEIGHT).mean() * 0.8
        # But for noise, and what is clipped.
        together = portrait.albedo * shading + gloss
        usual = mask & (image.max(axis=2) < 0.95)
        ratio = (image @ WEIGHT)[usual].mean() / (together @ WEIGHT)[usual].mean()
        assert ratio == pytest.approx(1, abs=0.01)


def test_layers_are_written_into_shards_and_read_by_name():
    members = encode(synthetic_one(2, lights=1, size=64, seed=3, light="traced", layers=True))
    names = {f"light000.{name}" for name in NAMES}
    for name in names | {"depth", "skin", "eye", "parts"}:
        assert decode_layer(members, name).shape[:2] == (64, 64)


def test_without_embree_traced_light_is_refused_before_any_head(tmp_path):
    code = "import sys; sys.modules['embreex'] = None; from shards.cli import main; exit(main())"
    flags = ["build", "synthetic", "--heads", "2", "--light", "traced"]
    command = [sys.executable, "-c", code, *flags, "--out", str(tmp_path / "out")]
    finished = subprocess.run(command, capture_output=True, text=True)
    assert finished.returncode == 2, finished.stderr
    assert "embreex, which is not installed" in finished.stderr
    assert "pip install 'relightx[synthetic]'" in finished.stderr
    assert finished.stderr.count("not installed") == 1
    assert not list(tmp_path.iterdir())
