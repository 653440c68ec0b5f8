"""Exactly Lambertian balls under known lights, where every answer is known."""

import numpy as np
import torch

from relightx.sample import Portrait, Provenance
from relightx.sh import ambient_light, directional_light, shade


def sphere(size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Normals (3 x size x size) and mask of a ball that fills nine tenths of the picture."""
    place = ((torch.arange(size) + 0.5) / size * 2 - 1) / 0.9
    y, x = torch.meshgrid(-place, place, indexing="ij")
    mask = x * x + y * y < 0.98
    normal = torch.stack((x, y, (1 - x * x - y * y).clamp(min=0).sqrt()))
    ahead = torch.tensor([0.0, 0.0, 1.0]).view(3, 1, 1)
    return torch.where(mask, normal, ahead), mask


def smooth_albedo(size: int, generator: torch.Generator) -> torch.Tensor:
    """Coloured patches between 0.2 and 0.8, smooth between them."""
    coarse = 0.2 + 0.6 * torch.rand(1, 3, 4, 4, generator=generator)
    return torch.nn.functional.interpolate(coarse, size=(size, size), mode="bilinear")[0]


def positive_lights(count: int, generator: torch.Generator) -> torch.Tensor:
    """Lights (count x 3 x 9) in front of the ball that shade no normal below 0 or above 1.1."""
    toward = torch.randn(count, 3, generator=generator)
    toward[:, 2] = toward[:, 2].abs() + 0.3
    strength = 0.5 + 0.3 * torch.rand(count, 3, 1, generator=generator)
    return directional_light(toward)[:, None] * strength + ambient_light(0.2)


def ball(
    key: str = "ball", subject: str = "anna", lights: int = 3, size: int = 32, seed: int = 0
) -> Portrait:
    """An exactly Lambertian ball with all labels, 16-bit linear images."""
    generator = torch.Generator().manual_seed(seed)
    normal, mask = sphere(size)
    albedo, sh = smooth_albedo(size, generator), positive_lights(lights, generator)
    image = (albedo * shade(normal, sh) * mask).permute(0, 2, 3, 1).numpy()
    toward = torch.nn.functional.normalize(sh[:, 0, [3, 1, 2]], dim=-1)
    return Portrait(
        key=key,
        subject=subject,
        image=np.rint(image * 65535).astype(np.uint16),
        light_name=tuple(f"lamp{index}" for index in range(lights)),
        provenance=Provenance(
            "balls 1", "CC0", "none", "linear", albedo="real", normal="real", light="real"
        ),
        albedo=albedo.permute(1, 2, 0).numpy(),
        normal=normal.permute(1, 2, 0).numpy(),
        mask=mask.numpy(),
        sh=sh.numpy(),
        direction=toward.numpy(),
    )
