"""Each metric is right on answers whose error is known, and blind to what it must not see."""

import math

import pytest
import torch
from torchmetrics.functional.image import structural_similarity_index_measure

from relightx.batch import Decomposition
from relightx.color import linear_to_srgb, srgb_to_linear
from relightx.measures import METRICS
from relightx.metrics import (
    PSNR_LIMIT_DB,
    angle_deg,
    pair_scores,
    relighting_scores,
    score,
    summarise,
)
from relightx.sh import ambient_light, directional_light, rotate, shade

PERFECT = {"psnr": PSNR_LIMIT_DB, "_ssim": 1.0, "below": 100.0}


def rotation(axis: str, degrees: float) -> torch.Tensor:
    one, other = {"x": (1, 2), "y": (2, 0), "z": (0, 1)}[axis]
    matrix, angle = torch.eye(3), math.radians(degrees)
    matrix[one, one] = matrix[other, other] = math.cos(angle)
    matrix[other, one], matrix[one, other] = math.sin(angle), -math.sin(angle)
    return matrix


def turned(normal: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    return torch.einsum("ij,...jhw->...ihw", matrix, normal)


def degraded(pred: Decomposition) -> Decomposition:
    noisy = pred.albedo + 0.2 * torch.rand_like(pred.albedo)
    normal = torch.nn.functional.normalize(pred.normal + 0.6 * torch.randn_like(pred.normal), dim=2)
    return Decomposition(noisy, normal, pred.sh + 0.3 * torch.randn_like(pred.sh))


def test_score_gives_every_declared_metric_once_for_each_portrait(perfect, batch):
    scores = score(perfect, batch)
    assert list(scores) == list(METRICS)
    assert all(value.shape == (2,) for value in scores.values())


@pytest.mark.parametrize("name", METRICS)
def test_is_best_on_the_true_decomposition(name, perfect, batch):
    best = next((value for part, value in PERFECT.items() if part in name), 0.0)
    torch.testing.assert_close(
        score(perfect, batch)[name], torch.full((2,), best), atol=2e-5, rtol=1e-5
    )


@pytest.mark.parametrize("name", METRICS)
def test_gets_worse_in_the_declared_direction(name, perfect, batch):
    exact = score(perfect, batch)[name]
    worse = score(degraded(perfect), batch)[name]
    for new, old in zip(worse.tolist(), exact.tolist(), strict=True):
        assert METRICS[name].improves(old, new) and not METRICS[name].improves(new, old)


@pytest.mark.parametrize("name", METRICS)
def test_ignores_pixels_outside_the_mask(name, perfect, batch):
    outside = ~batch.mask[:, None]
    pred = degraded(perfect)
    other = Decomposition(
        torch.where(outside, 0.77, pred.albedo), torch.where(outside, -0.5, pred.normal), pred.sh
    )
    changed = batch._replace(
        image=torch.where(outside, 0.3, batch.image),
        truth=batch.truth._replace(
            albedo=torch.where(outside[:, 0], 0.9, batch.truth.albedo),
            normal=torch.where(outside[:, 0], 0.1, batch.truth.normal),
        ),
    )
    torch.testing.assert_close(score(other, changed)[name], score(pred, batch)[name])


@pytest.mark.parametrize("name", METRICS)
def test_a_portrait_scores_alone_as_in_company(name, perfect, batch):
    pred = degraded(perfect)
    alone = score(
        Decomposition(*(value[1:] for value in pred)),
        batch._replace(
            image=batch.image[1:],
            mask=batch.mask[1:],
            valid=batch.valid[1:],
            truth=type(batch.truth)(*(value[1:] for value in batch.truth)),
        ),
    )
    torch.testing.assert_close(alone[name], score(pred, batch)[name][1:])


@pytest.mark.parametrize("name", METRICS)
def test_an_empty_mask_has_no_score_and_spoils_no_other_portrait(name, perfect, batch):
    pred, mask = degraded(perfect), batch.mask.clone()
    mask[0] = False
    scores = score(pred, batch._replace(mask=mask))[name]
    assert scores[0].isnan()
    torch.testing.assert_close(scores[1], score(pred, batch)[name][1])


@pytest.mark.parametrize(
    ("label", "prefix"), [("has_normal", "normal_"), ("has_albedo", "albedo_"), ("has_light", "li")]
)
def test_a_portrait_without_a_label_has_no_score_of_it(label, prefix, perfect, batch):
    missing = batch.truth._replace(**{label: torch.tensor([True, False])})
    scores = score(perfect, batch._replace(truth=missing))
    absent = {name for name, value in scores.items() if value[1].isnan()}
    expected = {name for name in METRICS if name.startswith(prefix) and "consistency" not in name}
    assert absent == expected
    assert not any(value[0].isnan() for value in scores.values())


def test_a_single_light_has_no_relighting_and_no_consistency(make_batch):
    batch = make_batch(lights=1)
    pred = Decomposition(batch.truth.albedo[:, None], batch.truth.normal[:, None], batch.truth.sh)
    absent = {name for name, value in score(pred, batch).items() if value.isnan().all()}
    assert absent == {n for n in METRICS if n.startswith("relighting") or "consistency" in n}


@pytest.mark.parametrize("degrees", [0.0, 0.01, 22.0, 28.0, 179.9])
def test_normals_turned_about_an_axis_across_them_are_that_many_degrees_off(batch, degrees):
    flat = torch.zeros_like(batch.truth.normal)
    flat[:, 2] = 1.0
    tilted = turned(flat, rotation("x", degrees))[:, None].expand_as(batch.image)
    pred = Decomposition(batch.image, tilted, batch.truth.sh)
    scores = score(pred, batch._replace(truth=batch.truth._replace(normal=flat)))
    torch.testing.assert_close(
        scores["normal_error_deg"], torch.full((2,), degrees), atol=1e-3, rtol=0
    )
    for bound in (20, 25, 30):
        assert scores[f"normal_below_{bound}_deg"].tolist() == [100.0 * (degrees < bound)] * 2


def test_a_vector_of_length_zero_is_a_right_angle_off_not_right():
    zero, ahead = torch.zeros(3, 2, 2), torch.ones(3, 2, 2)
    assert torch.equal(angle_deg(zero, ahead), torch.full((2, 2), 90.0))


def test_albedo_errors_do_not_see_one_scale_for_each_image(perfect, batch):
    pred = degraded(perfect)
    scale = torch.tensor([0.3, 1.0, 5.0]).view(3, 1, 1, 1)
    scaled = score(pred._replace(albedo=pred.albedo * scale), batch)
    plain = score(pred, batch)
    for name in ("albedo_si_mae", "albedo_si_rmse"):
        torch.testing.assert_close(scaled[name], plain[name])


def test_albedo_error_sees_a_wrong_hue(perfect, batch):
    hue = torch.tensor([1.0, 0.5, 1.0]).view(3, 1, 1)
    assert (
        score(perfect._replace(albedo=perfect.albedo * hue), batch)["albedo_si_mae"] > 0.02
    ).all()


def test_albedo_rmse_is_that_of_the_best_of_all_scales(perfect, batch):
    pred = degraded(perfect)
    inside = batch.mask[0, 0]
    albedo, truth = pred.albedo[0, 0][:, inside], batch.truth.albedo[0][:, inside]
    scales = torch.linspace(0.2, 2, 4000)
    best = min((s * albedo - truth).square().mean().sqrt() for s in scales)
    one = Decomposition(*(value[:1, :1] for value in pred))
    first = batch._replace(
        image=batch.image[:1, :1],
        mask=batch.mask[:1],
        valid=batch.valid[:1],
        truth=type(batch.truth)(*(value[:1] for value in batch.truth))._replace(
            sh=batch.truth.sh[:1, :1]
        ),
    )
    torch.testing.assert_close(score(one, first)["albedo_si_rmse"][0], best, atol=1e-5, rtol=1e-4)


def test_a_light_turned_by_an_angle_across_it_is_that_many_degrees_off(perfect, batch):
    sh = directional_light(torch.tensor([0.0, 0.0, 1.0])).expand(2, 3, 3, 9)
    truth = batch.truth._replace(sh=sh)
    pred = perfect._replace(sh=rotate(sh, rotation("y", 35.0)))
    error = score(pred, batch._replace(truth=truth))["light_direction_error_deg"]
    torch.testing.assert_close(error, torch.full((2,), 35.0), atol=1e-3, rtol=0)


def test_a_uniform_light_has_no_direction_to_miss(perfect, batch):
    sh = ambient_light(1.0).expand(2, 3, 3, 9).clone()
    sh[0, 0] = directional_light(torch.tensor([0.0, 0.0, 1.0]))
    truth = batch._replace(truth=batch.truth._replace(sh=sh))
    aside = directional_light(torch.tensor([1.0, 0.0, 0.0])).expand(2, 3, 3, 9)
    error = score(perfect._replace(sh=aside), truth)["light_direction_error_deg"]
    torch.testing.assert_close(error[0], torch.tensor(90.0))
    assert error[1].isnan()


def test_light_error_does_not_see_brightness_and_is_one_for_no_light(perfect, batch):
    bright = score(perfect._replace(sh=3 * perfect.sh), batch)["light_sh_error"]
    dark = score(perfect._replace(sh=0 * perfect.sh), batch)["light_sh_error"]
    torch.testing.assert_close(bright, torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(dark, torch.ones(2))


def test_light_error_weighs_coefficients_by_the_shading_they_make(perfect, batch):
    linear, quadratic = perfect.sh.clone(), perfect.sh.clone()
    linear[..., 3] += 0.5
    quadratic[..., 8] += 0.5
    assert (
        score(perfect._replace(sh=quadratic), batch)["light_sh_error"]
        < 0.6 * score(perfect._replace(sh=linear), batch)["light_sh_error"]
    ).all()


@pytest.mark.parametrize(("depth", "low", "high"), [(-1.0, 0.0, 0.05), (1.0, 0.1, 1.0)])
def test_light_error_is_taken_over_the_normals_that_a_camera_sees(perfect, batch, depth, low, high):
    even = ambient_light(1.0).expand(2, 3, 3, 9).clone()
    lamp = 0.5 * directional_light(torch.tensor([0.0, 0.0, depth]))
    lit = batch._replace(truth=batch.truth._replace(sh=even))
    error = score(perfect._replace(sh=even + lamp), lit)["light_sh_error"]
    assert (low < error).all() and (error < high).all()


def test_picture_errors_have_their_known_values_for_a_constant_offset(make_batch):
    batch = make_batch(lights=2)
    encoded = 0.5 + torch.zeros_like(batch.image)
    batch = batch._replace(image=srgb_to_linear(encoded))
    scores = relighting_scores(lambda source: srgb_to_linear(encoded + 0.1), batch)
    expected = {"mae": 0.1, "psnr": 20.0, "si_mse": 0.0}
    for name, value in expected.items():
        torch.testing.assert_close(
            scores[f"relighting_{name}"], torch.full((2,), value), atol=1e-4, rtol=1e-4
        )


def test_similarity_is_that_of_torchmetrics_in_the_mask(batch):
    image, target = (batch.image + 0.2 * torch.rand_like(batch.image) for _ in range(2))
    noisy = batch._replace(image=target)
    ours = pair_scores(lambda source: image, noisy)
    shown = [linear_to_srgb(v) * batch.mask[:, None] for v in (image, target)]
    _, similarity = structural_similarity_index_measure(
        *(v.flatten(0, 1) for v in shown), data_range=1.0, return_full_image=True
    )
    inside = (similarity.view_as(image) * batch.mask[:, None]).sum((2, 3, 4))
    expected = inside / (3 * batch.mask.sum((1, 2, 3)))[:, None]
    assert expected.min() > 0.1 and expected.max() < 0.95
    for source in range(3):
        torch.testing.assert_close(ours["ssim"][:, source], expected, atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(ours["dssim"], (1 - ours["ssim"]) / 2)


@pytest.mark.parametrize("size", [1, 3, 8])
def test_pictures_smaller_than_the_window_of_similarity_are_measured(make_batch, size):
    batch = make_batch(size=size)
    batch = batch._replace(mask=torch.ones_like(batch.mask))
    scores = relighting_scores(lambda source: batch.image, batch)
    torch.testing.assert_close(scores["relighting_ssim"], torch.ones(2))


def test_relighting_takes_surface_from_one_picture_and_light_from_the_other(perfect, batch):
    pred = degraded(perfect)
    inside = batch.mask.expand(-1, 3, -1, -1)

    def error(source: int, target: int) -> torch.Tensor:
        relit = pred.albedo[:, source] * shade(pred.normal[:, source], pred.sh[:, target])
        shown = (linear_to_srgb(relit) - linear_to_srgb(batch.image[:, target])).abs()
        return torch.stack([one[where].mean() for one, where in zip(shown, inside, strict=True)])

    others = [error(i, j) for i in range(3) for j in range(3) if i != j]
    same = [error(i, i) for i in range(3)]
    scores = score(pred, batch)
    torch.testing.assert_close(scores["relighting_mae"], torch.stack(others).mean(0))
    torch.testing.assert_close(scores["reconstruction_mae"], torch.stack(same).mean(0))


def test_consistency_is_known_for_an_albedo_that_wavers_and_normals_that_fan_out(batch):
    swing = torch.tensor([0.9, 1.0, 1.1]).view(3, 1, 1, 1)
    ahead = torch.zeros_like(batch.truth.normal)
    ahead[:, 2] = 1.0
    fan = torch.stack([turned(ahead, rotation("y", a)) for a in (-30.0, 0.0, 30.0)], dim=1)
    scores = score(Decomposition(0.4 * swing.expand_as(batch.image), fan, batch.truth.sh), batch)
    torch.testing.assert_close(
        scores["albedo_consistency"], torch.full((2,), 0.1 * math.sqrt(2 / 3))
    )
    torch.testing.assert_close(scores["normal_consistency_deg"], torch.full((2,), 20.0))


@pytest.mark.parametrize("field", Decomposition._fields)
def test_a_prediction_that_is_not_finite_is_refused_by_name(field, perfect, batch):
    value = getattr(perfect, field).clone()
    value.view(-1)[7] = math.nan
    with pytest.raises(ValueError, match=f"{field}: 1 of .* not finite"):
        score(perfect._replace(**{field: value}), batch)


def test_a_summary_counts_each_real_portrait_once():
    scores = [{"m": torch.tensor([1.0, 3.0])}, {"m": torch.tensor([8.0, torch.nan, 99.0])}]
    valid = [torch.tensor([True, True]), torch.tensor([True, True, False])]
    summary = summarise(scores, valid)["m"]
    assert (summary.mean, summary.count) == (4.0, 3)
    assert summary.std == pytest.approx(math.sqrt(26 / 3))


def test_a_metric_that_no_portrait_has_is_summarised_as_absent():
    summary = summarise([{"m": torch.tensor([torch.nan])}], [torch.tensor([True])])["m"]
    assert math.isnan(summary.mean) and summary.count == 0


def test_a_split_without_batches_is_refused():
    with pytest.raises(ValueError, match="no batch"):
        summarise([], [])


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
def test_nothing_measured_never_beats_something_measured(metric):
    assert metric.improves(1.0, None) and metric.improves(1.0, math.nan)
    assert not metric.improves(math.nan, None) and not metric.improves(math.nan, 1.0)
    assert not metric.improves(1.0, 1.0)
