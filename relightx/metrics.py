"""What is measured of a decomposition, in which units, and which way is better.

Every metric is taken inside the mask of each image and averaged over the lights (or pairs of
lights) of a portrait, so that one portrait gives one number and all portraits count the same.
NaN means that a portrait has no such number: no label, an empty mask, or a single light where
two are needed.

Pictures (`reconstruction_*`, `relighting_*`) are compared as people see them: sRGB-encoded, in
[0, 1]. Relighting takes albedo and normals from the photograph of one light and the light that
the model itself estimates from the photograph to be reached, for every ordered pair of lights.
Albedo is compared in linear light.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from relightx.batch import Batch, Decomposition
from relightx.color import linear_to_srgb
from relightx.sh import dominant_direction, environment_directions, shade

PSNR_LIMIT_DB = 100.0
"""PSNR of a perfect picture, instead of an infinity that no mean survives."""

Images = Float[Tensor, "batch lights 3 height width"]
Pictures = Float[Tensor, "picture 3 height width"]
PerPortrait = Float[Tensor, " batch"]


_PIECE = 100_000
"""Numbers compared at a time: pieces that stay in a core's cache take half the time."""


def score(pred: Decomposition, batch: Batch) -> dict[str, PerPortrait]:
    """Every metric of METRICS for every portrait, NaN where it has none.

    Memory is that of a few times the batch, whatever the number of pairs. Raises ValueError when
    the prediction or an image is not finite: NaN must not pass for a missing label.
    """
    _check_finite(pred, batch)
    pairs = pair_scores(lambda source: _relit(pred, source), batch)
    return (
        _normal_scores(pred, batch)
        | _albedo_scores(pred, batch)
        | _light_scores(pred, batch)
        | {f"reconstruction_{name}": _same_light(value) for name, value in pairs.items()}
        | {f"relighting_{name}": _other_lights(value) for name, value in pairs.items()}
        | _consistency_scores(pred, batch)
    )


def relighting_scores(relit_from: Callable[[int], Images], batch: Batch) -> dict[str, PerPortrait]:
    """The relighting_* metrics of any relighter, for every ordered pair of different lights.

    relit_from: given a source light, the linear images it predicts for all lights, in order.
    """
    pairs = pair_scores(relit_from, batch)
    return {f"relighting_{name}": _other_lights(value) for name, value in pairs.items()}


def pair_scores(
    relit_from: Callable[[int], Images], batch: Batch
) -> dict[str, Float[Tensor, "batch source target"]]:
    """mae, psnr, ssim, dssim and si_mse of each pair of lights, on sRGB-encoded pixels."""
    mask = batch.mask[:, None].expand(-1, batch.image.shape[1], -1, -1, -1).flatten(0, 1)
    target = linear_to_srgb(batch.image).flatten(0, 1) * mask
    blur = Blur(*target.shape[-2:], like=target)
    fixed = (target, mask, blur(target), blur(target * target))
    per_piece = max(1, _PIECE // target[0].numel())
    rows: dict[str, list[Tensor]] = {}
    for source in range(batch.image.shape[1]):
        relit = relit_from(source).flatten(0, 1)
        pieces = [
            _picture_scores(*piece, blur)
            for piece in zip(*(v.split(per_piece) for v in (relit, *fixed)), strict=True)
        ]
        for name in pieces[0]:
            row = torch.cat([piece[name] for piece in pieces])
            rows.setdefault(name, []).append(row.unflatten(0, batch.image.shape[:2]))
    return {name: torch.stack(row, dim=1) for name, row in rows.items()}


@dataclass(frozen=True)
class Summary:
    """Mean and standard deviation over the portraits that have the number; NaN if none has."""

    mean: float
    std: float
    count: int


def summarise(
    scores: list[dict[str, Float[Tensor, " _"]]], valid: list[Bool[Tensor, " _"]]
) -> dict[str, Summary]:
    """Each metric over all batches of a split, without padding rows (valid False) and NaN."""
    if not scores:
        raise ValueError("no scores to summarise: the split gave no batch")
    keep = torch.cat([rows.cpu() for rows in valid])
    return {name: _summary(torch.cat([s[name].cpu() for s in scores])[keep]) for name in scores[0]}


def angle_deg(
    one: Float[Tensor, "*#batch 3 height width"], other: Float[Tensor, "*#batch 3 height width"]
) -> Float[Tensor, "*batch height width"]:
    """Angle between vectors of any length, in degrees; 90 where one of them is zero.

    The half-angle form stays exact near 0 and 180 degrees, where float32 acos loses 0.03 degrees.
    """
    length, other_length = (torch.linalg.vector_norm(v, dim=-3) for v in (one, other))
    a, b = one * other_length.unsqueeze(-3), other * length.unsqueeze(-3)
    angle = 2 * torch.atan2(
        torch.linalg.vector_norm(a - b, dim=-3), torch.linalg.vector_norm(a + b, dim=-3)
    )
    return torch.rad2deg(torch.where(length * other_length > 0, angle, math.pi / 2))


class Blur:
    """The 11 x 11 Gaussian window (sigma 1.5) of SSIM, mirrored at the border of the picture.

    Two small matrix products: 7 to 13 times faster on a CPU core than the convolutions.
    """

    def __init__(self, height: int, width: int, like: Tensor) -> None:
        self.rows = _blur_matrix(height).to(like)
        self.columns = _blur_matrix(width).to(like)

    def __call__(self, image: Float[Tensor, "*batch height width"]) -> Tensor:
        return (self.rows @ image) @ self.columns.T


def _blur_matrix(size: int, radius: int = 5, sigma: float = 1.5) -> Float[Tensor, "size size"]:
    offset = torch.arange(-radius, radius + 1)
    weight = torch.exp(-(offset.double() ** 2) / (2 * sigma**2))
    place = (torch.arange(size)[:, None] + offset).abs() % max(2 * (size - 1), 1)
    place = torch.where(place < size, place, 2 * (size - 1) - place)
    matrix = torch.zeros(size, size, dtype=torch.float64)
    return matrix.scatter_add_(1, place, (weight / weight.sum()).expand(size, -1))


def _picture_scores(
    relit: Pictures,
    target: Pictures,
    mask: Bool[Tensor, "picture 1 height width"],
    target_mean: Pictures,
    target_square: Pictures,
    blur: Blur,
) -> dict[str, Float[Tensor, " picture"]]:
    """Scores of linear pictures against encoded ones that are zero outside the mask."""
    image = linear_to_srgb(relit) * mask
    count = 3 * mask.sum(dim=(1, 2, 3))  # 0 / 0 makes the NaN of an empty mask
    difference = image - target
    mse = difference.square().sum(dim=(1, 2, 3)) / count
    gain = _best_gain(image, target, (1, 2, 3))
    similarity = _similarity(image, target, target_mean, target_square, blur) * mask
    ssim = similarity.sum(dim=(1, 2, 3)) / count
    return {
        "mae": difference.abs().sum(dim=(1, 2, 3)) / count,
        "psnr": -10 * torch.log10(mse.clamp(min=10 ** (-PSNR_LIMIT_DB / 10))),
        "ssim": ssim,
        "dssim": (1 - ssim) / 2,
        "si_mse": (gain * image - target).square().sum(dim=(1, 2, 3)) / count,
    }


def _similarity(
    image: Pictures, target: Pictures, target_mean: Pictures, target_square: Pictures, blur: Blur
) -> Pictures:
    """The map of structural similarity (Wang et al. 2004), with K = 0.01, 0.03 and range 1."""
    c1, c2 = 0.01**2, 0.03**2
    mean = blur(image)
    product = mean * target_mean
    squares = mean.square() + target_mean.square()
    covariance = blur(image * target) - product
    variances = blur(image.square()) + target_square - squares
    return (2 * product + c1) * (2 * covariance + c2) / ((squares + c1) * (variances + c2))


def _best_gain(value: Tensor, target: Tensor, dim: tuple[int, ...]) -> Tensor:
    """The factor that brings value nearest to target in least squares, 0 for a zero value."""
    power = value.square().sum(dim=dim, keepdim=True)
    return (value * target).sum(dim=dim, keepdim=True) / power.clamp(min=1e-12)


def _relit(pred: Decomposition, source: int) -> Images:
    shading = shade(pred.normal[:, source, None], pred.sh)
    return pred.albedo[:, source, None] * shading


def _normal_scores(pred: Decomposition, batch: Batch) -> dict[str, PerPortrait]:
    error = angle_deg(pred.normal, batch.truth.normal[:, None])
    has = batch.truth.has_normal
    shares = {
        f"normal_below_{bound}_deg": _labelled(_pixel_mean(100.0 * (error < bound), batch), has)
        for bound in (20, 25, 30)
    }
    return {"normal_error_deg": _labelled(_pixel_mean(error, batch), has)} | shares


def _albedo_scores(pred: Decomposition, batch: Batch) -> dict[str, PerPortrait]:
    truth = (batch.truth.albedo * batch.mask)[:, None]
    albedo = pred.albedo * batch.mask[:, None]
    error = _best_gain(albedo, truth, (2, 3, 4)) * albedo - truth
    mae, mse = (_pixel_mean(e.mean(dim=2), batch) for e in (error.abs(), error.square()))
    return {
        "albedo_si_mae": _labelled(mae, batch.truth.has_albedo),
        "albedo_si_rmse": _labelled(mse.sqrt(), batch.truth.has_albedo),
    }


def _light_scores(pred: Decomposition, batch: Batch) -> dict[str, PerPortrait]:
    truth, has = batch.truth.sh, batch.truth.has_light & (batch.mask.sum(dim=(1, 2, 3)) > 0)
    # A light without a main direction (linear band under a thousandth) has no such error.
    directed = truth[..., 1:4].mean(dim=2).norm(dim=-1) > 1e-3 * truth[..., 0].mean(dim=2).abs()
    one, other = (dominant_direction(sh)[..., None, None] for sh in (pred.sh, truth))
    angle = torch.where(directed, angle_deg(one, other)[..., 0, 0], torch.nan)
    return {
        "light_direction_error_deg": _labelled(angle, has),
        "light_sh_error": _labelled(_ball_error(pred.sh, truth), has),
    }


def _ball_error(
    sh: Float[Tensor, "batch lights 3 9"], truth: Float[Tensor, "batch lights 3 9"]
) -> Float[Tensor, "batch lights"]:
    """Relative error of shading over all visible normals: only what a light does is compared."""
    direction, solid_angle = environment_directions(32, 64)
    weight = (solid_angle * (direction[..., 2] > 0)).sqrt().to(sh)
    normal = direction.movedim(-1, 0).to(sh)
    ball, true_ball = shade(normal, sh) * weight, shade(normal, truth) * weight
    error = _best_gain(ball, true_ball, (2, 3, 4)) * ball - true_ball
    return (error.square().sum(dim=(2, 3, 4)) / true_ball.square().sum(dim=(2, 3, 4))).sqrt()


def _consistency_scores(pred: Decomposition, batch: Batch) -> dict[str, PerPortrait]:
    several = torch.full_like(batch.valid, pred.albedo.shape[1] > 1)
    spread = _pixel_mean(pred.albedo.std(dim=1, correction=0).mean(dim=1, keepdim=True), batch)
    level = _pixel_mean(pred.albedo.mean(dim=(1, 2))[:, None], batch)
    turn = angle_deg(pred.normal, pred.normal.mean(dim=1, keepdim=True))
    return {
        "albedo_consistency": _labelled(spread / level.abs().clamp(min=1e-6), several),
        "normal_consistency_deg": _labelled(_pixel_mean(turn, batch), several),
    }


def _pixel_mean(
    value: Float[Tensor, "batch lights height width"], batch: Batch
) -> Float[Tensor, "batch lights"]:
    count = batch.mask.sum(dim=(1, 2, 3))[:, None]
    return (value * batch.mask).sum(dim=(2, 3)) / count


def _labelled(value: Float[Tensor, "batch lights"], has: Bool[Tensor, " batch"]) -> PerPortrait:
    return torch.where(has, value.nanmean(dim=1), torch.nan)


def _same_light(pairs: Float[Tensor, "batch lights lights"]) -> PerPortrait:
    return pairs.diagonal(dim1=1, dim2=2).mean(dim=1)


def _other_lights(pairs: Float[Tensor, "batch lights lights"]) -> PerPortrait:
    apart = ~torch.eye(pairs.shape[1], dtype=torch.bool, device=pairs.device)
    return pairs[:, apart].mean(dim=1)


def _summary(values: Float[Tensor, " portraits"]) -> Summary:
    known = values[~values.isnan()].double()
    if not len(known):
        return Summary(math.nan, math.nan, 0)
    return Summary(known.mean().item(), known.std(correction=0).item(), len(known))


def _check_finite(pred: Decomposition, batch: Batch) -> None:
    for name, value in (*pred._asdict().items(), ("image", batch.image)):
        bad = int((~value.isfinite()).sum())
        if bad:
            raise ValueError(
                f"{name}: {bad} of {value.numel()} values to be measured are not finite;"
                " a diverged model (or a broken image) has no metrics"
            )
