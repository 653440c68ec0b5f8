from dataclasses import replace

import numpy as np
import pytest
import torch
from lit_scene import angle_deg, face, four_lamps, lamps

from relightx.sample import Portrait, Provenance, check, decode, encode, without_labels
from relightx.sh import ambient_light, directional_light, shade
from shards.labelling.light_estimation import MEMBER
from shards.labelling.stereo import ESTIMATED_TRUST, EXPOSURE, with_stereo_labels

DIRECTION = lamps(16)
SCENE = face()


def portrait_of(image, direction, **labels):
    """Linear 16-bit photographs of the scene under lights that are known, or not (None)."""
    return Portrait(
        key="anna_01",
        subject="anna",
        image=np.rint(np.clip(image, 0, 1) * 65535).astype(np.uint16),
        light_name=tuple(f"lamp{index}" for index in range(len(image))),
        provenance=Provenance("mine", "CC0", "256 px. Face upright.", "linear"),
        direction=direction,
        mask=SCENE.mask,
        **labels,
    )


def relit(portrait):
    normal = torch.from_numpy(portrait.normal).permute(2, 0, 1)
    sh = torch.from_numpy(portrait.sh)
    shading = shade(normal.expand(len(sh), -1, -1, -1), sh)
    return portrait.albedo * shading.permute(0, 2, 3, 1).numpy()


def lamp_sh(direction, strength, room=0.0):
    """Light label of lamps of a strength for each light and colour."""
    lamp = directional_light(torch.from_numpy(direction))[:, None].numpy()
    return (strength[..., None] * lamp + ambient_light(room).numpy()).astype(np.float32)


@pytest.mark.parametrize("photograph", [SCENE.lambert, SCENE.photograph])
def test_missing_labels_are_those_of_the_surface(photograph):
    given = portrait_of(photograph(DIRECTION), DIRECTION)
    portrait = with_stereo_labels(given, "given")
    check(portrait)
    exact = photograph == SCENE.lambert
    error = angle_deg(portrait.normal, SCENE.normal)[SCENE.mask]
    assert np.median(error) < (0.1 if exact else 2)
    scaled = SCENE.albedo / EXPOSURE
    assert np.abs(portrait.albedo - scaled)[SCENE.mask].mean() < (0.002 if exact else 0.03)
    assert portrait.confidence.min() >= 0
    assert np.median(portrait.confidence[SCENE.mask]) > (0.99 if exact else 0.5)
    made = portrait.provenance
    assert (made.albedo, made.normal, made.light) == ("pseudo", "pseudo", "pseudo")
    assert made.crop == (
        "256 px. Face upright. Albedo, normal and light by photometric stereo from 16 lights"
        " (directions given)"
    )
    np.testing.assert_array_equal(portrait.image, given.image)
    np.testing.assert_array_equal(portrait.direction, DIRECTION)


def test_albedo_times_shading_under_the_stored_light_gives_the_image():
    power = np.random.default_rng(0).uniform(0.6, 1.2, 16).astype(np.float32)
    given = portrait_of(SCENE.lambert(DIRECTION, power), DIRECTION)
    portrait = with_stereo_labels(given, "given")
    error = np.abs(relit(portrait) - portrait.linear_image())[:, SCENE.mask]
    # At the horizon second-order harmonics are 3/32 of a lamp off the clamped cosine.
    assert error.mean() < 0.02
    assert error.max() < 3 / 32 * 1.2 * SCENE.albedo.max() * 1.1
    found = portrait.sh[:, 0, 0] / np.median(portrait.sh[:, 0, 0])
    np.testing.assert_allclose(found, power / np.median(power), rtol=0.02)


def test_estimated_lights_say_so_and_are_trusted_less():
    image = SCENE.photograph(DIRECTION)
    portrait = with_stereo_labels(portrait_of(image, None), "estimated")
    check(portrait)
    assert np.median(angle_deg(portrait.direction, DIRECTION)) < 4
    assert np.median(angle_deg(portrait.normal, SCENE.normal)[SCENE.mask]) < 5
    assert portrait.confidence.max() <= ESTIMATED_TRUST
    assert portrait.provenance.crop.endswith(
        f"from 16 lights (directions estimated, up to the bas-relief ambiguity; member: {MEMBER})"
    )


def test_directions_that_are_given_are_not_estimated():
    given = portrait_of(SCENE.photograph(DIRECTION), DIRECTION)
    one, other = with_stereo_labels(given, "given"), with_stereo_labels(given, "estimated")
    np.testing.assert_array_equal(one.normal, other.normal)
    assert one.provenance == other.provenance


@pytest.mark.parametrize("held", ["albedo", "normal", "confidence", "sh"])
def test_a_label_that_is_there_stays_and_fixes_the_others(held):
    strength = np.full((16, 3), 1.0, np.float32)
    labels = {
        "albedo": SCENE.albedo,
        "normal": SCENE.normal,
        "confidence": np.full(SCENE.mask.shape, 0.7, np.float32),
        "sh": lamp_sh(DIRECTION, strength),
    }
    name = {"sh": "light"}.get(held, held)
    given = portrait_of(SCENE.photograph(DIRECTION), DIRECTION, **{held: labels[held]})
    if held != "confidence":
        given = replace(given, provenance=replace(given.provenance, **{name: "real"}))
    portrait = with_stereo_labels(given, "given")
    check(portrait)
    np.testing.assert_array_equal(getattr(portrait, held), labels[held])
    if held != "confidence":
        assert getattr(portrait.provenance, name) == "real"
    if held in ("albedo", "sh"):  # which settles what images leave open: the exposure
        np.testing.assert_allclose(np.median(portrait.sh[:, 0, 0]), labels["sh"][0, 0, 0], rtol=0.1)
        assert np.abs(portrait.albedo - SCENE.albedo)[SCENE.mask].mean() < 0.04
    made = portrait.provenance.crop.rsplit(". ", 1)[1].split(" by ")[0].lower()
    assert name not in made


def test_a_portrait_with_all_labels_is_left_alone(make_portrait):
    portrait = make_portrait()
    assert with_stereo_labels(portrait, "given") is portrait


def test_light_labels_with_light_of_the_room_are_understood():
    strength = np.random.default_rng(1).uniform(0.4, 0.9, (16, 3)).astype(np.float32)
    sh = lamp_sh(DIRECTION, strength, room=0.15)
    shading = np.maximum(np.einsum("hwk,lk->lhw", SCENE.normal, DIRECTION), 0)[..., None]
    image = SCENE.albedo * (shading * strength[:, None, None] + 0.15)
    given = portrait_of(image, None, sh=sh)
    given = replace(given, provenance=replace(given.provenance, light="real"))
    portrait = with_stereo_labels(given, "given")
    assert np.median(angle_deg(portrait.normal, SCENE.normal)[SCENE.mask]) < 0.5
    assert np.abs(portrait.albedo - SCENE.albedo)[SCENE.mask].mean() < 0.01
    assert angle_deg(portrait.direction, DIRECTION).max() < 0.1


def test_light_of_the_room_is_measured_where_lamps_do_not_reach():
    direction = lamps(24, tilt_deg=85)
    shading = np.maximum(np.einsum("hwk,lk->lhw", SCENE.normal, direction), 0)[..., None]
    image = SCENE.albedo * (shading + 0.2)
    portrait = with_stereo_labels(portrait_of(image, direction), "given")
    basis = torch.stack((directional_light(torch.from_numpy(direction[0])), ambient_light(1.0)))
    lamp, room = portrait.sh[0, 0] @ np.linalg.pinv(basis.numpy())
    assert room / lamp == pytest.approx(0.2, abs=0.03)
    assert np.median(angle_deg(portrait.normal, SCENE.normal)[SCENE.mask]) < 1


def test_lamps_of_other_colours_are_in_the_light_and_not_in_the_albedo():
    colour = np.ones((16, 3), np.float32)
    colour[5] = (1, 0.7, 0.4)
    image = SCENE.lambert(DIRECTION) * colour[:, None, None]
    portrait = with_stereo_labels(portrait_of(image, DIRECTION), "given")
    found = portrait.sh[5, :, 0] / portrait.sh[4, :, 0]
    np.testing.assert_allclose(found / found[0], colour[5], rtol=0.05)
    assert np.abs(portrait.albedo * EXPOSURE - SCENE.albedo)[SCENE.mask].mean() < 0.01


def test_skin_keeps_its_place_between_light_and_dark():
    dark = replace(SCENE, albedo=SCENE.albedo * 0.4)
    found = [
        with_stereo_labels(portrait_of(scene.lambert(DIRECTION), DIRECTION), "given").albedo
        for scene in (SCENE, dark)
    ]
    np.testing.assert_allclose(found[1][SCENE.mask], 0.4 * found[0][SCENE.mask], atol=0.01)


def test_bright_skin_has_an_albedo_below_one():
    power = np.where(np.arange(16) % 3 > 0, 3, 0.9)  # most lamps saturate it
    image = SCENE.lambert(DIRECTION, power)
    portrait = with_stereo_labels(portrait_of(image, DIRECTION), "given")
    assert 0.9 < np.quantile(portrait.albedo[SCENE.mask], 0.99) <= 1


def test_four_lights_are_enough_and_trusted_less():
    portrait = with_stereo_labels(portrait_of(SCENE.lambert(four_lamps()), four_lamps()), "given")
    assert np.median(angle_deg(portrait.normal, SCENE.normal)[SCENE.mask]) < 2
    assert 0.5 < np.median(portrait.confidence[SCENE.mask]) < 0.65


def test_the_labels_survive_a_shard():
    given = portrait_of(SCENE.photograph(DIRECTION), DIRECTION)
    portrait = with_stereo_labels(given, "given")
    stored = decode(portrait.key, encode(portrait))
    np.testing.assert_allclose(stored.albedo, portrait.albedo, atol=1e-5)
    np.testing.assert_allclose(stored.normal, portrait.normal, atol=5e-5)
    np.testing.assert_allclose(stored.confidence, portrait.confidence, atol=0.002)


def test_gray_photographs_have_a_gray_albedo():
    image = SCENE.lambert(DIRECTION).mean(axis=3, keepdims=True)
    portrait = with_stereo_labels(portrait_of(image, DIRECTION), "given")
    check(portrait)
    np.testing.assert_array_equal(portrait.albedo[..., 0], portrait.albedo[..., 2])


def flat_lamps(count):
    x = np.linspace(-0.5, 0.5, count)
    return np.stack((x, np.zeros(count), np.sqrt(1 - x * x)), -1).astype(np.float32)


def refused(portrait, lights):
    with pytest.raises(ValueError, match="portrait 'anna_01': no photometric stereo: ") as caught:
        with_stereo_labels(portrait, lights)
    return str(caught.value)


def test_what_cannot_be_solved_is_refused_with_the_portraits_name():
    image = SCENE.lambert(DIRECTION)
    assert "no directions; give them, or estimate" in refused(portrait_of(image, None), "given")
    assert "2 lights; 3 needed" in refused(portrait_of(image[:2], DIRECTION[:2]), "given")
    assert "8 lights; 10 needed" in refused(portrait_of(image[:8], None), "estimated")
    flat = portrait_of(SCENE.lambert(flat_lamps(8)), flat_lamps(8))
    assert "lie in one plane" in refused(flat, "given")
    dark = image.copy()
    dark[3] = 0
    assert "light 'lamp3' is black throughout" in refused(portrait_of(dark, DIRECTION), "given")
    assert "on the portrait and not black" in refused(portrait_of(image / 1000, DIRECTION), "given")
    masked = replace(portrait_of(image, DIRECTION), mask=np.zeros_like(SCENE.mask))
    assert "on the portrait and not black" in refused(masked, "given")


def test_directions_of_another_order_are_refused():
    portrait = portrait_of(SCENE.photograph(DIRECTION), DIRECTION[::-1].copy())
    assert "in another order" in refused(portrait, "given")


def test_a_light_label_that_is_no_lamp_is_refused():
    sh = lamp_sh(DIRECTION, np.ones((16, 3), np.float32))
    sh[2] = lamp_sh(-DIRECTION, np.ones((16, 3), np.float32))[2] + sh[2]
    given = portrait_of(SCENE.lambert(DIRECTION), DIRECTION, sh=sh)
    given = replace(given, provenance=replace(given.provenance, light="real"))
    assert "label of light 'lamp2' is no single lamp" in refused(given, "given")


def test_a_ball_rendered_with_its_own_light_label_gives_its_normals_back(make_portrait):
    ball = make_portrait(lights=12)
    portrait = with_stereo_labels(without_labels(ball, ("albedo", "normal")), "given")
    core = ball.mask & (ball.normal[..., 2] > 0.5)
    # Its images are shaded by harmonics of second order, which Lambert's law is not.
    assert np.median(angle_deg(portrait.normal, ball.normal)[core]) < 4
    assert np.median(np.abs(portrait.albedo - ball.albedo)[core]) < 0.05
