"""Every term that can be minimised; one name serves function, weight, log key, test and README row.

Each returns the *unweighted* mean: over pixels inside the mask for each portrait and light, then
over all portraits of the batch, those without the label counting as zero. So a portrait weighs the
same in every batch, and the mean over ranks is exactly the mean of the global batch.

Where labels come with a confidence w, the error e of albedo and normals counts as sum(w * e) /
sum(mask), that of light as e times the mean of w in the mask. The sum is not divided by sum(w): a
portrait whose labels are all doubted would then count as much as one that was measured, and one
of confidence zero would have no mean. So w acts as the share of a portrait that is labelled, down
to zero, which is a portrait without the label. Without confidence (w = 1) nothing changes, to the
last bit. Confidence weighs what is minimised, never what is measured (relightx.metrics).

Shading is the same when normals and light turn together, so without any labelled normal nothing
above tells which way a face looks, nor a bump from a dent. `convexity` does, at a weight so small
that shading decides the rest.

Cross-relighting: Zehni et al. 2021 (arXiv 2106.15305; claim 1 of US 11,948,245); the consistency
terms' form, the norm and the mask are this project's choice, the paper's were not available.
"""

from collections.abc import Callable
from dataclasses import fields

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from relightx.batch import Batch, Decomposition
from relightx.settings.losses import LossWeights
from relightx.sh import COSINE_LOBE, shade


def image_reconstruction(pred: Decomposition, batch: Batch) -> Float[Tensor, ""]:
    """Albedo times the shading of normal and light of one image gives that image back."""
    return _masked_mean((_render(pred, pred.sh) - batch.image).abs().mean(2), batch.mask)


def cross_relighting(pred: Decomposition, batch: Batch) -> Float[Tensor, ""]:
    """Albedo and normal seen under one light, shaded by the next light, give the next image."""
    relit = _render(pred, pred.sh.roll(-1, dims=1))
    return _masked_mean((relit - batch.image.roll(-1, dims=1)).abs().mean(2), batch.mask)


def albedo_consistency(pred: Decomposition, batch: Batch) -> Float[Tensor, ""]:
    """Albedo seen under one light equals the albedo seen under the next."""
    return _masked_mean((pred.albedo - pred.albedo.roll(-1, dims=1)).abs().mean(2), batch.mask)


def normal_consistency(pred: Decomposition, batch: Batch) -> Float[Tensor, ""]:
    """Normal seen under one light equals the normal seen under the next."""
    return _masked_mean(_distance(pred.normal, pred.normal.roll(-1, dims=1)), batch.mask)


def convexity(pred: Decomposition, batch: Batch) -> Float[Tensor, ""]:
    """Normal leans outward, as on a ball that fills the mask."""
    return _masked_mean(_distance(pred.normal, _ball_normal(batch.mask)[:, None]), batch.mask)


def albedo_supervision(pred: Decomposition, batch: Batch) -> Float[Tensor, ""]:
    """Albedo equals its label, for portraits that keep one."""
    difference = (pred.albedo - batch.truth.albedo[:, None]).abs().mean(2)
    return _masked_mean(difference * batch.truth.confidence, batch.mask, batch.truth.has_albedo)


def normal_supervision(pred: Decomposition, batch: Batch) -> Float[Tensor, ""]:
    """Normal equals its label, for portraits that keep one.

    Measured as the distance of the two unit vectors.
    """
    difference = _distance(pred.normal, batch.truth.normal[:, None])
    return _masked_mean(difference * batch.truth.confidence, batch.mask, batch.truth.has_normal)


def light_supervision(pred: Decomposition, batch: Batch) -> Float[Tensor, ""]:
    """Light equals its label, each coefficient weighed by what it does to shading."""
    lobe = torch.tensor(COSINE_LOBE, dtype=pred.sh.dtype, device=pred.sh.device)
    difference = ((pred.sh - batch.truth.sh) * lobe).abs().mean((1, 2, 3))
    return (difference * _trust(batch) * batch.truth.has_light).mean()


Loss = Callable[[Decomposition, Batch], Tensor]
LOSSES: dict[str, Loss] = {
    loss.__name__: loss
    for loss in (
        image_reconstruction,
        cross_relighting,
        albedo_consistency,
        normal_consistency,
        convexity,
        albedo_supervision,
        normal_supervision,
        light_supervision,
    )
}


def total_loss(
    pred: Decomposition, batch: Batch, weights: LossWeights
) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
    """The weighted sum to back-propagate, and each unweighted term by name.

    Every output of the model takes part with weight zero, so that no rank of a distributed run
    lacks a gradient when, say, no portrait of its batch has a label.
    """
    active = {field.name: getattr(weights, field.name) for field in fields(weights)}
    active = {name: weight for name, weight in active.items() if weight != 0}
    terms = {name: LOSSES[name](pred, batch) for name in active}
    total = torch.stack([active[name] * term for name, term in terms.items()]).sum()
    unused = 0.0 * (pred.albedo.mean() + pred.normal.mean() + pred.sh.mean())
    return total + unused, {name: term.detach() for name, term in terms.items()}


def _render(
    pred: Decomposition, sh: Float[Tensor, "batch lights 3 9"]
) -> Float[Tensor, "batch lights 3 height width"]:
    return pred.albedo * shade(pred.normal, sh)


def _distance(
    first: Float[Tensor, "batch _lights 3 height width"],
    second: Float[Tensor, "batch _lights2 3 height width"],
) -> Float[Tensor, "batch _lights3 height width"]:
    # The floor keeps the root's gradient finite where both agree exactly; subtracted again so
    # that agreement costs nothing.
    return ((first - second).square().sum(2) + 1e-6).sqrt() - 1e-3


def _ball_normal(
    mask: Bool[Tensor, "batch 1 height width"],
) -> Float[Tensor, "batch 3 height width"]:
    """Normals of a ball that is stretched in x and y to the mask's centre and variances."""
    inside = mask[:, 0].float()
    count = inside.sum((1, 2)).clamp(min=1)[:, None, None]
    height, width = inside.shape[1:]
    up = -torch.arange(height, device=mask.device, dtype=torch.float32)[:, None]
    right = torch.arange(width, device=mask.device, dtype=torch.float32)[None]

    def in_radii(place: Tensor) -> Tensor:
        centred = place - (inside * place).sum((1, 2), keepdim=True) / count
        variance = (inside * centred.square()).sum((1, 2), keepdim=True) / count
        return centred / (2 * variance.clamp(min=1e-6).sqrt())  # a disc's deviation is r / 2

    x, y = in_radii(right), in_radii(up)
    z = (1 - x.square() - y.square()).clamp(min=0.05).sqrt()
    return torch.nn.functional.normalize(torch.stack(torch.broadcast_tensors(x, y, z), 1), dim=1)


def _trust(batch: Batch) -> Float[Tensor, " batch"]:
    """Mean confidence of each portrait inside its mask; 1 where the mask is empty."""
    doubt = (1 - batch.truth.confidence).masked_fill(~batch.mask, 0).sum((1, 2, 3))
    return 1 - doubt / batch.mask.sum((1, 2, 3)).clamp(min=1)


def _masked_mean(
    values: Float[Tensor, "batch lights height width"],
    mask: Bool[Tensor, "batch 1 height width"],
    counted: Bool[Tensor, " batch"] | None = None,
) -> Float[Tensor, ""]:
    pixels = mask.sum((2, 3)).clamp(min=1)
    per_light = values.masked_fill(~mask, 0).sum((2, 3)) / pixels
    per_portrait = per_light.mean(1)
    return (per_portrait if counted is None else per_portrait * counted).mean()
