"""The light fitted in closed form: right where the picture decides, the prior where it does not."""

import pytest
import torch

from relightx.model.lightfit import fit_light
from relightx.sh import shade


@pytest.fixture
def scene(make_batch):
    """Albedo, normal, image, weight and light of balls, one light each."""
    batch = make_batch(portraits=3, lights=1, size=32)
    albedo, normal, sh = batch.truth.albedo, batch.truth.normal, batch.truth.sh[:, 0]
    image = albedo * shade(normal, sh)
    return albedo, normal, image, batch.mask.float(), sh


def test_a_lambertian_picture_gives_its_light_whatever_the_prior(scene):
    albedo, normal, image, weight, sh = scene
    fitted = fit_light(albedo, normal, image, weight, sh + 1.0, torch.tensor(1e-7))
    torch.testing.assert_close(shade(normal, fitted), shade(normal, sh), atol=2e-3, rtol=0)


def test_without_trusted_pixels_the_prior_stays(scene):
    albedo, normal, image, weight, sh = scene
    fitted = fit_light(albedo, normal, image, 0 * weight, sh + 0.3, torch.tensor(0.05))
    torch.testing.assert_close(fitted, sh + 0.3)


def test_a_stiffer_prior_is_followed_more(scene):
    albedo, normal, image, weight, sh = scene
    prior = sh + 0.5
    far = [
        float((fit_light(albedo, normal, image, weight, prior, torch.tensor(s)) - prior).norm())
        for s in (0.01, 0.1, 1.0, 10.0)
    ]
    assert far == sorted(far, reverse=True) and far[-1] < far[0] / 3


def test_pixels_without_weight_do_not_count(scene):
    albedo, normal, image, weight, sh = scene
    spoilt = torch.where(weight > 0, image, torch.rand_like(image))
    same = fit_light(albedo, normal, image, weight, sh * 0, torch.tensor(0.01))
    torch.testing.assert_close(
        fit_light(albedo, normal, spoilt, weight, sh * 0, torch.tensor(0.01)), same
    )


def test_twice_the_light_is_seen_in_twice_the_brightness(scene):
    albedo, normal, image, weight, sh = scene
    once = fit_light(albedo, normal, image, weight, sh * 0, torch.tensor(0.01))
    twice = fit_light(albedo, normal, 2 * image, weight, sh * 0, torch.tensor(0.01))
    torch.testing.assert_close(twice, 2 * once, rtol=1e-3, atol=1e-4)


def test_gradients_are_finite_also_for_a_black_picture_and_a_flat_face(scene):
    albedo, normal, image, weight, sh = scene
    flat = torch.zeros_like(normal)
    flat[:, 2] = 1
    for normals, picture in ((normal, image), (flat, image), (normal, 0 * image)):
        inputs = [v.clone().requires_grad_() for v in (albedo, normals, weight, sh)]
        fit_light(inputs[0], inputs[1], picture, *inputs[2:], torch.tensor(0.05)).sum().backward()
        assert all(bool(value.grad.isfinite().all()) for value in inputs)
