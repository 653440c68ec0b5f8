"""Confidence is high where answers explain the picture and agree, and knows nothing of exposure."""

import math

import pytest
import torch

from relightx.batch import Batch, Decomposition
from relightx.confidence import ALBEDO_DIFFERENCE, ANGLE_DEG, RESIDUAL, consensus, mirrored_back
from relightx.sh import ambient_light, mirror, shade


def seen_in_mirror(pred: Decomposition) -> Decomposition:
    """What one says of the mirror image who says this of the picture."""
    turn = torch.tensor([-1.0, 1.0, 1.0]).view(3, 1, 1)
    return Decomposition(pred.albedo.flip(-1), (pred.normal * turn).flip(-1), mirror(pred.sh))


def ask(pred: Decomposition, batch: Batch, mirrored: Decomposition | None = None):
    mirrored = seen_in_mirror(pred) if mirrored is None else mirrored
    return consensus(pred, mirrored, batch.image[0], batch.mask[0, 0])


def inside(values: torch.Tensor, batch: Batch) -> torch.Tensor:
    return values[batch.mask[0, 0]]


@pytest.fixture
def batch(make_batch) -> Batch:
    return make_batch(portraits=1, lights=3)


@pytest.fixture
def flat(batch) -> tuple[Decomposition, Batch]:
    """Skin of albedo 0.5 under even light, which shows nothing of normals."""
    sh = ambient_light(1.0).expand(1, 1, 3, 9)
    normal = torch.tensor([0.0, 0.0, 1.0]).view(3, 1, 1).expand(1, 1, 3, 8, 8)
    pred = Decomposition(torch.full((1, 1, 3, 8, 8), 0.5), normal, sh)
    mask = torch.ones(1, 1, 8, 8, dtype=torch.bool)
    return pred, batch._replace(image=pred.albedo * shade(pred.normal, sh), mask=mask)


def tilted(normal: torch.Tensor, degrees: float) -> torch.Tensor:
    """Normals turned about x."""
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    turn = torch.tensor([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]])
    return torch.einsum("ij,...jhw->...ihw", turn, normal)


def test_the_truth_is_fully_trusted_and_given_back(make_perfect, batch):
    truth = make_perfect(batch)
    found = ask(truth, batch)
    assert inside(found.confidence, batch).min() > 0.999
    torch.testing.assert_close(found.albedo, batch.truth.albedo[0])
    torch.testing.assert_close(found.normal, batch.truth.normal[0])
    torch.testing.assert_close(found.sh, batch.truth.sh[0])


def test_noise_is_not_trusted(batch):
    noise = Decomposition(
        torch.rand_like(batch.image),
        torch.nn.functional.normalize(torch.randn_like(batch.image), dim=2),
        torch.randn(1, 3, 3, 9),
    )
    assert inside(ask(noise, batch).confidence, batch).mean() < 0.02


def test_one_half_where_the_image_is_off_by_its_bound(flat):
    pred, batch = flat
    darker = pred._replace(sh=pred.sh * (1 - RESIDUAL))
    torch.testing.assert_close(ask(darker, batch).confidence, torch.full((8, 8), 0.5))


def test_one_half_where_normals_are_off_their_mean_by_the_bound(flat):
    pred, batch = flat
    other = seen_in_mirror(pred._replace(normal=tilted(pred.normal, 2 * ANGLE_DEG)))
    found = ask(pred, batch, other)
    torch.testing.assert_close(found.confidence, torch.full((8, 8), 0.5), atol=1e-3, rtol=0)
    torch.testing.assert_close(found.normal, tilted(pred.normal, ANGLE_DEG)[0, 0])


def test_one_half_where_albedo_is_off_its_mean_by_the_bound(flat):
    """Each answer explains the picture by a light of its own level, and so does the mean."""
    pred, batch = flat
    first, second = (
        Decomposition(pred.albedo * share, pred.normal, pred.sh / share)
        for share in (1 - ALBEDO_DIFFERENCE, 1 + ALBEDO_DIFFERENCE)
    )
    found = ask(first, batch, seen_in_mirror(second))
    torch.testing.assert_close(found.confidence, torch.full((8, 8), 0.5))
    torch.testing.assert_close(found.sh, pred.sh[0])


def test_the_more_an_answer_is_disturbed_the_less_it_is_trusted(make_perfect, batch):
    truth, noise = make_perfect(batch), torch.randn_like(batch.image)
    means = []
    for amount in (0.0, 0.05, 0.1, 0.2, 0.4):
        normal = torch.nn.functional.normalize(truth.normal + amount * noise, dim=2)
        means.append(inside(ask(truth._replace(normal=normal), batch).confidence, batch).mean())
    assert means == sorted(means, reverse=True) and means[-1] < 0.2 < 0.99 < means[0]


def test_doubt_stays_where_it_arises(make_perfect, batch):
    truth = make_perfect(batch)
    albedo = truth.albedo.clone()
    albedo[..., 10:14, 10:14] *= 0.5
    confidence = ask(truth._replace(albedo=albedo), batch).confidence
    wrong = torch.zeros_like(confidence, dtype=torch.bool)
    wrong[10:14, 10:14] = True
    assert confidence[wrong].max() < 0.1 and inside(confidence * ~wrong, batch).median() > 0.9


@pytest.mark.parametrize("gain", [0.01, 3.0])
def test_exposure_does_not_matter(gain, make_perfect, batch):
    truth = make_perfect(batch)
    wrong = truth._replace(albedo=(truth.albedo * 1.07).clamp(max=1))
    brighter = batch._replace(image=gain * batch.image)
    torch.testing.assert_close(
        ask(wrong._replace(sh=gain * wrong.sh), brighter).confidence, ask(wrong, batch).confidence
    )


def test_what_is_outside_the_mask_does_not_matter_inside(make_perfect, batch):
    truth = make_perfect(batch)
    wrong = truth._replace(albedo=truth.albedo * 0.9)
    dirty = batch._replace(image=torch.where(batch.mask[:, None], batch.image, 9.0))
    torch.testing.assert_close(
        inside(ask(wrong, dirty).confidence, batch), inside(ask(wrong, batch).confidence, batch)
    )


def test_lights_keep_explaining_their_pictures_with_the_mean_albedo(make_perfect, batch):
    """Of each light the model made the skin brighter or darker, and the light the other way."""
    truth = make_perfect(batch)
    level = torch.tensor([0.8, 1.0, 1.2]).view(1, 3, 1, 1, 1)
    found = ask(Decomposition(truth.albedo * level, truth.normal, truth.sh / level[..., 0]), batch)
    rebuilt = found.albedo * shade(found.normal, found.sh)
    torch.testing.assert_close(
        inside(rebuilt[1].movedim(0, -1), batch),
        inside(batch.image[0, 1].movedim(0, -1), batch),
        atol=1e-5,
        rtol=1e-5,
    )


def test_a_mirror_image_of_a_mirror_image_is_the_picture(make_perfect, batch):
    truth = make_perfect(batch)
    for back, there in zip(mirrored_back(seen_in_mirror(truth)), truth, strict=True):
        torch.testing.assert_close(back, there)


@pytest.mark.parametrize("case", ["black image", "empty mask", "black albedo"])
def test_is_a_number_from_0_to_1_whatever_comes(case, make_perfect, batch):
    pred = make_perfect(batch)
    if case == "black image":
        batch = batch._replace(image=torch.zeros_like(batch.image))
    if case == "empty mask":
        batch = batch._replace(mask=torch.zeros_like(batch.mask))
    if case == "black albedo":
        pred = pred._replace(albedo=torch.zeros_like(pred.albedo))
    found = ask(pred, batch)
    assert all(value.isfinite().all() for value in found)
    assert found.confidence.min() >= 0 and found.confidence.max() <= 1
