"""The baselines are the best that can be done with what they may know, and no better."""

import pytest
import torch

from relightx.baselines import MeanFace, copy_scores, fit_light
from relightx.batch import Batch
from relightx.measures import METRICS
from relightx.metrics import score
from relightx.sh import shade


def unlabelled(batch: Batch, **labels: torch.Tensor) -> Batch:
    return batch._replace(truth=batch.truth._replace(**labels))


def test_the_mean_face_of_one_person_is_that_person(make_batch):
    batch = make_batch(portraits=1)
    mean = MeanFace.from_batches([batch])
    inside = batch.mask[0].expand(3, -1, -1)
    torch.testing.assert_close(mean.albedo[inside], batch.truth.albedo[0][inside])
    torch.testing.assert_close(mean.normal[inside], batch.truth.normal[0][inside])


def test_the_mean_face_explains_a_picture_of_its_own_person(make_batch):
    batch = make_batch(portraits=1, lights=4)
    scores = score(MeanFace.from_batches([batch]).decompose(batch), batch)
    assert scores["normal_error_deg"] < 0.01
    assert scores["light_sh_error"] < 0.01
    assert scores["relighting_psnr"] > 50


def test_the_mean_does_not_depend_on_how_portraits_are_batched(make_batch):
    batches = [make_batch(portraits=1, seed=seed) for seed in range(3)]
    together = Batch(
        *(torch.cat([b[i] for b in batches]) for i in range(3)),
        type(batches[0].truth)(
            *(torch.cat(v) for v in zip(*(b.truth for b in batches), strict=True))
        ),
    )
    apart, joined = MeanFace.from_batches(batches), MeanFace.from_batches([together])
    torch.testing.assert_close(apart.albedo, joined.albedo)
    torch.testing.assert_close(apart.normal, joined.normal)
    expected = together.truth.albedo.mean(0)[:, 16, 16]
    torch.testing.assert_close(apart.albedo[:, 16, 16], expected)


def test_normals_of_the_mean_face_have_unit_length_everywhere(make_batch):
    batch = make_batch()
    noisy = batch.truth.normal + 0.5 * torch.randn_like(batch.truth.normal)
    mean = MeanFace.from_batches([unlabelled(batch, normal=noisy)])
    torch.testing.assert_close(mean.normal.norm(dim=0), torch.ones(32, 32))


def test_a_pixel_counts_only_the_portraits_whose_mask_covers_it(batch):
    mask = batch.mask.clone()
    mask[0, :, :, :16] = False
    mean = MeanFace.from_batches([batch._replace(mask=mask)])
    torch.testing.assert_close(mean.albedo[:, 16, 5], batch.truth.albedo[1, :, 16, 5])
    torch.testing.assert_close(mean.albedo[:, 16, 25], batch.truth.albedo.mean(0)[:, 16, 25])


def test_unlabelled_and_padding_portraits_do_not_enter_the_mean(make_batch):
    batch = make_batch(portraits=3)
    truth = batch.truth._replace(
        has_albedo=torch.tensor([True, False, True]), has_normal=torch.tensor([True, False, True])
    )
    mean = MeanFace.from_batches(
        [batch._replace(truth=truth, valid=torch.tensor([True, True, False]))]
    )
    inside = batch.mask[0].expand(3, -1, -1)
    torch.testing.assert_close(mean.albedo[inside], batch.truth.albedo[0][inside])


@pytest.mark.parametrize("label", ["albedo", "normal"])
def test_training_without_a_label_is_refused_by_name(batch, label):
    without = unlabelled(batch, **{f"has_{label}": torch.tensor([False, False])})
    with pytest.raises(ValueError, match=f"needs {label} labels"):
        MeanFace.from_batches([without])


def test_no_training_batch_at_all_is_refused():
    with pytest.raises(ValueError, match="no training portrait"):
        MeanFace.from_batches([])


def test_images_of_another_size_are_refused_with_both_sizes(make_batch):
    mean = MeanFace.from_batches([make_batch(size=32)])
    with pytest.raises(ValueError, match=r"16x16.*32x32"):
        mean.decompose(make_batch(size=16))


def test_the_fitted_light_is_the_true_light_of_an_exact_picture(make_batch):
    batch = make_batch(portraits=1)
    truth = batch.truth
    sh = fit_light(truth.albedo[0], truth.normal[0], batch.image, batch.mask)
    shading, expected = (shade(truth.normal[:, None], light) for light in (sh, truth.sh))
    inside = batch.mask[:, None].expand_as(shading)
    torch.testing.assert_close(shading[inside], expected[inside], atol=5e-3, rtol=0)


def test_no_other_light_makes_the_mean_face_more_like_the_picture(make_batch):
    batch = make_batch(portraits=1)
    albedo, normal = batch.truth.albedo[0].flip(-1), batch.truth.normal[0]
    sh = fit_light(albedo, normal, batch.image, batch.mask)

    def error(light: torch.Tensor) -> torch.Tensor:
        return ((albedo * shade(normal, light) - batch.image) * batch.mask).square().sum()

    for size in (0.03, 0.1, 0.3):
        assert all(error(sh + size * torch.randn_like(sh)) > error(sh) for _ in range(20))


def test_the_fit_does_not_see_pixels_outside_the_mask(batch):
    albedo, normal = batch.truth.albedo[0], batch.truth.normal[0]
    changed = torch.where(batch.mask[:, None], batch.image, 9.0)
    torch.testing.assert_close(
        fit_light(albedo, normal, changed, batch.mask),
        fit_light(albedo, normal, batch.image, batch.mask),
    )


def test_an_empty_mask_gives_no_light(batch):
    sh = fit_light(
        batch.truth.albedo[0], batch.truth.normal[0], batch.image, torch.zeros_like(batch.mask)
    )
    assert torch.equal(sh, torch.zeros_like(sh))


def test_the_copy_has_the_names_of_the_relighting_metrics(batch):
    assert list(copy_scores(batch)) == [name for name in METRICS if name.startswith("relighting_")]


def test_the_copy_is_perfect_when_lights_differ_only_in_strength(batch):
    strength = torch.tensor([1.0, 0.3, 0.6]).view(3, 1, 1, 1)
    scores = copy_scores(batch._replace(image=batch.image[:, :1] * strength))
    assert (scores["relighting_mae"] < 1e-4).all() and (scores["relighting_ssim"] > 0.9999).all()


def test_the_copy_is_worse_than_the_truth_when_light_moves(batch, perfect):
    copied, exact = copy_scores(batch), score(perfect, batch)
    for name, value in copied.items():
        for one, other in zip(exact[name].tolist(), value.tolist(), strict=True):
            assert METRICS[name].improves(one, other)


def test_the_copy_of_a_single_light_has_no_score(make_batch):
    assert all(value.isnan().all() for value in copy_scores(make_batch(lights=1)).values())


def test_a_copy_of_a_black_picture_is_black_and_measured(batch):
    image = batch.image.clone()
    image[:, 0] = 0
    assert all(
        value.isfinite().all() for value in copy_scores(batch._replace(image=image)).values()
    )
