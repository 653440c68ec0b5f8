"""IntrinsicNet: what all presets share, from linear images to a Decomposition.

The presets differ in the backbone only. A backbone maps sRGB-encoded images (N, 3, H, W) to
albedo, raw normals (any length) and sh; here lights are stacked on the batch axis so that a
multi-lit group takes one forward pass, which is also the form every distributed wrapper accepts.
Images are encoded before the first layer because a network sees dark skin better on the
perceptual scale, and because the published SfSNet was fed encoded pixels.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from relightx.batch import Decomposition
from relightx.color import linear_to_srgb
from relightx.model.sfsnet import SfsNet
from relightx.model.unet import UNet
from relightx.settings.model import ModelConfig


class IntrinsicNet(nn.Module):
    """Decomposes each image on its own into albedo, normal and light."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = SfsNet() if config.preset == "sfsnet" else UNet(config.width)
        self.lay_out(torch.channels_last)

    @property
    def size_multiple(self) -> int:
        """Height and width of an image must be multiples of this many pixels."""
        return self.backbone.size_multiple

    def lay_out(self, memory_format: torch.memory_format) -> None:
        """How weights and activations lie in memory; see relightx.backend.layout_for_training."""
        self.memory_format = memory_format
        self.backbone.to(memory_format=memory_format)

    def forward(self, image: Float[Tensor, "batch lights 3 height width"]) -> Decomposition:
        """Decompose linear images. Raises ValueError for a size the network cannot halve."""
        batch, lights, _, height, width = image.shape
        if height % self.size_multiple or width % self.size_multiple:
            raise ValueError(
                f"images are {width}x{height} px; preset {self.config.preset} needs multiples of"
                f" {self.size_multiple}"
            )
        stacked = linear_to_srgb(image.reshape(batch * lights, 3, height, width))
        albedo, normal, sh = self.backbone(stacked.contiguous(memory_format=self.memory_format))
        # Unit length and light are kept in float32: their rounding would show as shading.
        normal = nn.functional.normalize(normal.float(), dim=1, eps=1e-6)
        return Decomposition(
            albedo.float().reshape(batch, lights, 3, height, width),
            normal.reshape(batch, lights, 3, height, width),
            sh.float().reshape(batch, lights, 3, 9),
        )
