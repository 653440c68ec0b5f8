"""Light by least squares: the coefficients that best explain an image, given albedo and normals.

Shading is linear in the light, so the best light has a closed form and a gradient (the same trick
as in photometric methods; here a layer of the network). A prior light keeps the directions that
few visible normals say anything about.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from relightx.sh import COSINE_LOBE, sh_basis


def fit_light(
    albedo: Float[Tensor, "n 3 h w"],
    normal: Float[Tensor, "n 3 h w"],
    image: Float[Tensor, "n 3 h w"],
    weight: Float[Tensor, "n 1 h w"],
    prior: Float[Tensor, "n 3 9"],
    stiffness: Float[Tensor, ""],
) -> Float[Tensor, "n 3 9"]:
    """The light that minimises weight * (image - albedo * shading)^2 and keeps near the prior.

    image: linear. normal: unit. weight: 0 or more. stiffness: above 0, relative to the mean
    diagonal of the normal equations.
    """
    lobe = torch.tensor(COSINE_LOBE, dtype=normal.dtype, device=normal.device)
    basis = (sh_basis(normal.movedim(1, -1)) * lobe).flatten(1, 2)
    outer = (basis[..., :, None] * basis[..., None, :]).flatten(2)
    flat_albedo, flat_weight = albedo.flatten(2), weight.flatten(2)
    share = flat_weight / flat_weight.sum(2, keepdim=True).clamp(min=1e-6)
    gram = (share * flat_albedo.square()) @ outer
    gram = gram.unflatten(2, (9, 9))
    error = image.flatten(2) - flat_albedo * (prior @ basis.mT)
    right = (share * flat_albedo * error) @ basis
    diagonal = gram.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None].clamp(min=1e-8)
    eye = torch.eye(9, dtype=gram.dtype, device=gram.device)
    step = torch.linalg.solve(gram + stiffness * diagonal * eye, right[..., None])
    return prior + step[..., 0]
