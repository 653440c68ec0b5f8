"""Pictures of decompositions for people: sRGB panels for TensorBoard, reports and previews."""

import torch
from jaxtyping import Float
from torch import Tensor

from relightx.batch import Batch, Decomposition
from relightx.color import linear_to_srgb
from relightx.sh import shade


def decomposition_panel(
    pred: Decomposition, batch: Batch, num_portraits: int = 4
) -> Float[Tensor, "3 panel_height panel_width"]:
    """One row a portrait: two images, albedo, true albedo, normal, true normal, shading, rebuilt,
    first image relit to the second's light. sRGB in [0, 1], black outside the mask.
    """
    rows = []
    for portrait in range(min(num_portraits, len(batch.image))):
        mask = batch.mask[portrait]
        first, last = 0, batch.image.shape[1] - 1
        albedo, normal = pred.albedo[portrait, first], pred.normal[portrait, first]
        shading = shade(normal, pred.sh[portrait, first])
        relit = albedo * shade(normal, pred.sh[portrait, last])
        columns = [
            linear_to_srgb(batch.image[portrait, first]),
            linear_to_srgb(batch.image[portrait, last]),
            linear_to_srgb(albedo) * mask,
            linear_to_srgb(batch.truth.albedo[portrait]) * mask,
            (normal + 1) / 2 * mask,
            (batch.truth.normal[portrait] + 1) / 2 * mask,
            linear_to_srgb(shading) * mask,
            linear_to_srgb(albedo * shading) * mask,
            linear_to_srgb(relit) * mask,
        ]
        rows.append(torch.cat(columns, dim=2))
    return torch.cat(rows, dim=1).clamp(0, 1).float().cpu()
