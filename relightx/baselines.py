"""Two answers that learn nothing, measured beside every model.

On aligned crops both are strong: a result below them is no result. `MeanFace` gives everyone the
average normals and albedo of the training people; `copy_scores` hands the input back at the right
brightness. Both are helped by seeing the target photograph, as the models are.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from relightx.batch import Batch, Decomposition
from relightx.metrics import relighting_scores
from relightx.sh import COSINE_LOBE, sh_basis

RIDGE = 1e-4
"""Pull of a fitted light toward zero, as a share of the mean diagonal of the normal equations:
little enough to leave a fit on exact data alone, enough for a mask that shows few normals."""


@dataclass(frozen=True)
class MeanFace:
    """Average albedo (linear) and normal (unit) of labelled training portraits."""

    albedo: Float[Tensor, "3 height width"]
    normal: Float[Tensor, "3 height width"]

    @classmethod
    def from_batches(cls, batches: Iterable[Batch]) -> "MeanFace":
        """Mean over the labelled portraits of training batches, each pixel where masks allow.

        Give batches without augmentation, each portrait once. A pixel that no mask covers gets
        the mean albedo and a normal to the camera. Raises ValueError when no portrait has an
        albedo label or none has a normal label.
        """
        albedo, normal = _MaskedMean("albedo"), _MaskedMean("normal")
        for batch in batches:
            truth = batch.truth
            albedo.add(truth.albedo, batch.mask, batch.valid & truth.has_albedo)
            normal.add(truth.normal, batch.mask, batch.valid & truth.has_normal)
        to_camera = torch.tensor([0.0, 0.0, 1.0]).view(3, 1, 1)
        return cls(albedo.value(), torch.nn.functional.normalize(normal.value(to_camera), dim=0))

    def decompose(self, batch: Batch) -> Decomposition:
        """The mean face for every image, with the light that makes it most like the image.

        Raises ValueError when the images have another size than the mean face.
        """
        size, own = batch.image.shape[-2:], self.albedo.shape[-2:]
        if size != own:
            raise ValueError(
                f"images are {size[1]}x{size[0]}, the mean face is {own[1]}x{own[0]};"
                " both must come from the same size of image"
            )
        albedo, normal = (v.to(batch.image) for v in (self.albedo, self.normal))
        return Decomposition(
            albedo.expand_as(batch.image).clone(),
            normal.expand_as(batch.image).clone(),
            fit_light(albedo, normal, batch.image, batch.mask),
        )


def fit_light(
    albedo: Float[Tensor, "3 height width"],
    normal: Float[Tensor, "3 height width"],
    image: Float[Tensor, "batch lights 3 height width"],
    mask: Bool[Tensor, "batch 1 height width"],
) -> Float[Tensor, "batch lights 3 9"]:
    """The lights that bring albedo * shading nearest to the images in linear light, in the mask.

    Ridge-regularised least squares of nine numbers for each colour; zero for an empty mask.
    """
    lobe = torch.tensor(COSINE_LOBE, dtype=torch.float64, device=image.device)
    basis = sh_basis(normal.double().movedim(0, -1)) * lobe
    rendered = torch.einsum("chw,hwk->chwk", albedo.double(), basis).flatten(1, 2)
    inside = mask.double().flatten(1)
    gram = torch.einsum("bp,cpk,cpm->bckm", inside, rendered, rendered)
    pixels = image.double().flatten(3)
    right = torch.einsum("bp,blcp,cpk->bclk", inside, pixels, rendered)
    diagonal = gram.diagonal(dim1=-2, dim2=-1).mean(dim=-1)[..., None, None]
    eye = torch.eye(9, dtype=torch.float64, device=image.device)
    sh = torch.linalg.solve(gram + (RIDGE * diagonal).clamp(min=1e-12) * eye, right.mT)
    return sh.permute(0, 3, 1, 2).to(image.dtype)


def copy_scores(batch: Batch) -> dict[str, Float[Tensor, " batch"]]:
    """The relighting_* metrics of handing back the input, times one gain for each pair of lights.

    The gain is the least-squares one in linear light inside the mask, taken from the target.
    """
    inside = batch.image * batch.mask[:, None]

    def copied(source: int) -> Float[Tensor, "batch lights 3 height width"]:
        image = inside[:, source, None]
        product = (image * inside).sum(dim=(2, 3, 4), keepdim=True)
        power = image.square().sum(dim=(2, 3, 4), keepdim=True)
        return product / power.clamp(min=1e-12) * image

    return relighting_scores(copied, batch)


class _MaskedMean:
    """Running mean of a label over portraits, at each pixel over the masks that cover it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.total = torch.zeros(())
        self.weight = torch.zeros(())

    def add(
        self,
        label: Float[Tensor, "batch 3 height width"],
        mask: Bool[Tensor, "batch 1 height width"],
        has: Bool[Tensor, " batch"],
    ) -> None:
        weight = (mask & has[:, None, None, None]).cpu().double()
        self.total = self.total + (label.cpu() * weight).sum(dim=0)
        self.weight = self.weight + weight.sum(dim=0)

    def value(
        self, elsewhere: Float[Tensor, "3 1 1"] | None = None
    ) -> Float[Tensor, "3 height width"]:
        """The mean; where no mask was, `elsewhere` or else the mean over all pixels."""
        if not self.weight.any():
            raise ValueError(
                f"the mean face needs {self.name} labels: no training portrait has one"
            )
        if elsewhere is None:
            elsewhere = self.total.sum(dim=(1, 2), keepdim=True) / self.weight.sum()
        mean = self.total / self.weight.clamp(min=1)
        return torch.where(self.weight > 0, mean, elsewhere.to(mean)).float()
