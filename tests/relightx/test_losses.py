"""A loss is zero for the truth, positive for anything else, and sees only what it should."""

import math
from dataclasses import asdict, fields, replace

import pytest
import torch

from relightx.batch import Batch, Decomposition, Truth
from relightx.config import config_parser
from relightx.losses import LOSSES, LossWeights, total_loss
from relightx.sh import ambient_light

ZERO = dict.fromkeys(LOSSES, 1e-6) | {"convexity": 0.02}  # a disc of pixels is not quite round
SUPERVISED = {"albedo_supervision", "normal_supervision", "light_supervision"}
CONSISTENT = {"albedo_consistency", "normal_consistency"}


def disturbed(pred: Decomposition) -> Decomposition:
    """A wrong answer, wrong in another way under each light."""
    normal = pred.normal + 0.3 * torch.randn_like(pred.normal)
    return Decomposition(
        pred.albedo + 0.1 * torch.randn_like(pred.albedo),
        torch.nn.functional.normalize(normal, dim=2),
        pred.sh + 0.2 * torch.randn_like(pred.sh),
    )


def part(record: tuple, rows: slice) -> tuple:
    """Some rows of a Batch, Decomposition or Truth."""
    return type(record)(
        *(part(value, rows) if isinstance(value, tuple) else value[rows] for value in record)
    )


def labelled(batch: Batch, rows: list[bool]) -> Batch:
    """The batch with labels on some of its portraits only."""
    has = torch.tensor(rows)
    return batch._replace(truth=batch.truth._replace(has_albedo=has, has_normal=has, has_light=has))


def trusted(batch: Batch, confidence: torch.Tensor | float) -> Batch:
    """The batch with this confidence in its labels, spread over all their pixels."""
    whole = torch.as_tensor(confidence).expand(batch.truth.confidence.shape).clone()
    return batch._replace(truth=batch.truth._replace(confidence=whole))


@pytest.fixture
def small() -> tuple[Decomposition, Batch]:
    """One flat portrait under lights of shading 1 and 2, seen with errors of simple size."""
    ahead = torch.tensor([0.0, 0.0, 1.0])[:, None, None].expand(3, 2, 2)
    aside = torch.tensor([1.0, 0.0, 0.0])[:, None, None].expand(3, 2, 2)
    sh = torch.stack((ambient_light(1.0), ambient_light(2.0)))[:, None].expand(2, 3, 9).clone()
    yes, trust = torch.ones(1, dtype=torch.bool), torch.ones(1, 1, 2, 2)
    batch = Batch(
        image=torch.tensor([0.5, 1.0])[None, :, None, None, None].expand(1, 2, 3, 2, 2),
        mask=torch.ones(1, 1, 2, 2, dtype=torch.bool),
        valid=yes,
        truth=Truth(
            torch.full((1, 3, 2, 2), 0.5), ahead[None], sh[None].clone(), trust, yes, yes, yes
        ),
    )
    pred = Decomposition(
        albedo=torch.tensor([0.6, 0.5])[None, :, None, None, None].expand(1, 2, 3, 2, 2),
        normal=torch.stack((ahead, aside))[None],
        sh=sh[None],
    )
    return pred, batch


def test_each_loss_has_a_weight_of_its_name_and_its_sentence_as_help():
    assert list(LOSSES) == [field.name for field in fields(LossWeights)]
    text = " ".join(config_parser("relightx train").format_help().split())
    for name, loss in LOSSES.items():
        sentence = loss.__doc__.splitlines()[0]
        assert f"--loss.{name} {name.upper()} {sentence}" in text


@pytest.mark.parametrize("name", LOSSES)
def test_is_zero_on_the_true_decomposition(name, perfect, batch):
    assert abs(LOSSES[name](perfect, batch).item()) < ZERO[name]


@pytest.mark.parametrize("name", LOSSES)
def test_is_positive_on_a_wrong_decomposition(name, perfect, batch):
    assert LOSSES[name](disturbed(perfect), batch) > 0.01


@pytest.mark.parametrize("name", LOSSES)
def test_ignores_pixels_outside_the_mask(name, perfect, batch):
    outside = ~batch.mask[:, None]
    noise = disturbed(perfect)
    pred = Decomposition(
        torch.where(outside, 7.0, perfect.albedo),
        torch.where(outside, noise.normal, perfect.normal),
        perfect.sh,
    )
    truth = batch.truth._replace(albedo=batch.truth.albedo.masked_fill(~batch.mask, 3.0))
    dirty = batch._replace(image=batch.image.masked_fill(outside, 5.0), truth=truth)
    assert abs(LOSSES[name](pred, dirty).item()) < ZERO[name]


# The four pixels' centres lie at half their deviation, 1, from the middle: x, y and z of the ball
# there are 1/2, 1/2, 1 / sqrt(2); then distances to (0, 0, 1) and, for two pixels each, to +-x.
_TO = [2 - 2 * dot for dot in (0.5**0.5, 0.5, -0.5)]
_FAR = [math.sqrt(square + 1e-6) - 1e-3 for square in _TO]
BALL_2 = (_FAR[0] + (_FAR[1] + _FAR[2]) / 2) / 2
ROOT_2 = math.sqrt(2 + 1e-6) - 1e-3  # distance of perpendicular normals


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("image_reconstruction", 0.05),  # 0.1 under the first light, 0 under the second
        ("cross_relighting", 0.1),  # 0.6 * 2 - 1 and 0.5 * 1 - 0.5
        ("albedo_consistency", 0.1),
        ("normal_consistency", ROOT_2),
        ("convexity", BALL_2),
        ("albedo_supervision", 0.05),
        ("normal_supervision", ROOT_2 / 2),
        ("light_supervision", 0.0),
    ],
)
def test_value_computed_by_hand(name, expected, small):
    assert LOSSES[name](*small).item() == pytest.approx(expected, abs=1e-6)


def test_light_errors_weigh_what_they_do_to_shading(small):
    pred, batch = small
    constant, linear = pred.sh.clone(), pred.sh.clone()
    constant[0, 0, :, 0] += 0.9
    linear[0, 0, :, 3] += 0.9
    loss = LOSSES["light_supervision"]
    # One of two lights, one of nine coefficients; the cosine lobe is 1 and 2/3.
    assert loss(pred._replace(sh=constant), batch).item() == pytest.approx(0.9 / 18)
    assert loss(pred._replace(sh=linear), batch).item() == pytest.approx(0.9 / 18 * 2 / 3)


def test_normal_error_of_small_angles_is_the_angle_in_radians(perfect, batch):
    angle = torch.tensor(0.1)
    turn = torch.eye(3)
    turn[0, 0] = turn[2, 2] = angle.cos()
    turn[0, 2], turn[2, 0] = angle.sin(), -angle.sin()
    flat = batch._replace(truth=batch.truth._replace(normal=torch.zeros_like(batch.truth.normal)))
    flat.truth.normal[:, 2] = 1
    turned = (turn @ torch.tensor([0.0, 0.0, 1.0])).view(3, 1, 1).expand_as(perfect.normal)
    loss = LOSSES["normal_supervision"](perfect._replace(normal=turned), flat)
    assert loss.item() == pytest.approx(0.1, abs=0.002)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("case", ["agreement", "empty mask", "no labels", "no trust"])
def test_gradient_is_finite(name, case, perfect, batch):
    pred = perfect if case == "agreement" else disturbed(perfect)
    pred = Decomposition(*(value.clone().requires_grad_() for value in pred))
    if case == "empty mask":
        batch = batch._replace(mask=torch.zeros_like(batch.mask))
    if case == "no labels":
        batch = labelled(batch, [False, False])
    if case == "no trust":
        batch = trusted(batch, 0.0)
    loss, _ = total_loss(pred, batch, LossWeights(**{**dict.fromkeys(LOSSES, 0.0), name: 1.0}))
    loss.backward()
    assert loss.isfinite()
    assert all(value.grad is not None and value.grad.isfinite().all() for value in pred)
    if case == "empty mask" and name != "light_supervision":
        assert loss == 0
    if case == "no trust" and name in SUPERVISED:
        assert loss == 0 and all((value.grad == 0).all() for value in pred)


def test_one_light_a_portrait_is_legal(make_batch, make_perfect):
    batch = make_batch(lights=1)
    pred = disturbed(make_perfect(batch))
    torch.testing.assert_close(
        LOSSES["cross_relighting"](pred, batch), LOSSES["image_reconstruction"](pred, batch)
    )
    for name in CONSISTENT:
        assert abs(LOSSES[name](pred, batch).item()) < ZERO[name]


def test_cross_relighting_sees_what_reconstruction_cannot(perfect, batch):
    """Light painted into albedo explains each image by itself, and no other."""
    shading = batch.image / perfect.albedo.clamp(min=0.01)
    even = torch.zeros_like(perfect.sh)
    even[..., :] = ambient_light(1.0)
    baked = Decomposition(perfect.albedo * shading, perfect.normal, even)
    assert abs(LOSSES["image_reconstruction"](baked, batch).item()) < ZERO["image_reconstruction"]
    assert LOSSES["cross_relighting"](baked, batch) > 0.02


@pytest.mark.parametrize("name", LOSSES)
def test_the_mean_over_ranks_is_the_mean_of_the_global_batch(name, make_batch, make_perfect):
    batch = labelled(make_batch(portraits=4, size=16), [True, False, False, False])
    mask = batch.mask.clone()
    mask[1, :, :, :10] = False  # portraits of unlike size weigh the same
    batch = trusted(batch._replace(mask=mask), torch.rand(batch.mask.shape))
    pred = disturbed(make_perfect(batch))
    ranks = [slice(0, 2), slice(2, 4)]
    parts = torch.stack([LOSSES[name](part(pred, rows), part(batch, rows)) for rows in ranks])
    torch.testing.assert_close(parts.mean(), LOSSES[name](pred, batch))


@pytest.mark.parametrize("name", sorted(SUPERVISED))
def test_portraits_without_a_label_count_as_zero(name, perfect, batch):
    pred = disturbed(perfect)
    first = LOSSES[name](part(pred, slice(0, 1)), part(batch, slice(0, 1)))
    some = LOSSES[name](pred, labelled(batch, [True, False]))
    torch.testing.assert_close(some, first / 2)
    assert LOSSES[name](pred, labelled(batch, [False, False])) == 0


@pytest.mark.parametrize("name", sorted(SUPERVISED))
def test_an_even_confidence_scales_what_a_portrait_counts(name, perfect, batch):
    pred = disturbed(perfect)
    full = [LOSSES[name](part(pred, row), part(batch, row)) for row in (slice(0, 1), slice(1, 2))]
    shares = torch.tensor([0.25, 1.0]).view(2, 1, 1, 1)
    expected = (0.25 * full[0] + full[1]) / 2
    torch.testing.assert_close(LOSSES[name](pred, trusted(batch, shares)), expected)


@pytest.mark.parametrize("name", sorted(SUPERVISED))
def test_a_portrait_of_confidence_zero_is_one_without_the_label(name, perfect, batch):
    pred = disturbed(perfect)
    shares = torch.tensor([1.0, 0.0]).view(2, 1, 1, 1)
    without = LOSSES[name](pred, labelled(batch, [True, False]))
    assert LOSSES[name](pred, trusted(batch, shares)) == without > 0


@pytest.mark.parametrize("name", ["albedo_supervision", "normal_supervision"])
def test_an_error_counts_by_the_confidence_of_its_own_pixel(name, perfect, batch):
    column = torch.arange(32).expand(32, 32)
    left, right = column < 16, column >= 16
    noise = disturbed(perfect)
    pred = Decomposition(
        torch.where(left, noise.albedo, perfect.albedo),
        torch.where(left, noise.normal, perfect.normal),
        perfect.sh,
    )
    assert abs(LOSSES[name](pred, trusted(batch, right.float())).item()) < ZERO[name]
    everywhere = LOSSES[name](pred, batch)
    torch.testing.assert_close(LOSSES[name](pred, trusted(batch, left.float())), everywhere)


def test_light_counts_by_the_mean_confidence_in_the_mask(perfect, batch):
    pred = disturbed(perfect)
    half = torch.where(torch.arange(32) < 16, 1.0, 0.0).expand(32, 32)  # the ball is symmetric
    outside = torch.where(batch.mask, half, 0.9)
    expected = LOSSES["light_supervision"](pred, batch) / 2
    torch.testing.assert_close(LOSSES["light_supervision"](pred, trusted(batch, outside)), expected)


@pytest.mark.parametrize("name", sorted(set(LOSSES) - SUPERVISED))
def test_self_supervision_reads_no_label(name, perfect, batch):
    pred = disturbed(perfect)
    blank = Truth(*(torch.zeros_like(value) for value in batch.truth))
    torch.testing.assert_close(
        LOSSES[name](pred, batch._replace(truth=blank)), LOSSES[name](pred, batch)
    )


def test_the_total_is_the_weighted_sum_of_the_terms_reported(perfect, batch):
    weights = LossWeights(**{name: 0.3 + index for index, name in enumerate(LOSSES)})
    total, terms = total_loss(disturbed(perfect), batch, weights)
    assert list(terms) == list(LOSSES)
    expected = sum(weight * terms[name] for name, weight in asdict(weights).items())
    torch.testing.assert_close(total, expected)


def test_a_loss_of_weight_zero_is_not_reported(perfect, batch):
    weights = replace(LossWeights(), albedo_consistency=0.0, light_supervision=0.0)
    _, terms = total_loss(perfect, batch, weights)
    assert set(LOSSES) - set(terms) == {"albedo_consistency", "convexity", "light_supervision"}


@pytest.mark.parametrize("value", [-0.1, float("nan")])
def test_a_weight_below_zero_is_refused(value):
    with pytest.raises(ValueError, match=r"0 or more.*cross_relighting"):
        LossWeights(cross_relighting=value)


def test_nothing_to_minimise_is_refused():
    with pytest.raises(ValueError, match="nothing to minimise"):
        LossWeights(**dict.fromkeys(LOSSES, 0.0))
