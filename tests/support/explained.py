"""What the labels of a portrait say that its images are."""

import numpy as np
import torch

from relightx.sample import Portrait
from relightx.sh import shade


def rendered(portrait: Portrait) -> np.ndarray:
    """Albedo times shading in linear light, (lights, height, width, 3), black outside the mask."""
    normal = torch.from_numpy(portrait.normal.transpose(2, 0, 1))
    shading = shade(normal[None], torch.from_numpy(portrait.sh)).clamp_min(0).numpy()
    return portrait.albedo * shading.transpose(0, 2, 3, 1) * portrait.mask[..., None]
