"""The records every module passes: what the loader gives, what the model answers, what is true."""

from typing import NamedTuple

from jaxtyping import Bool, Float
from torch import Tensor


class Decomposition(NamedTuple):
    """The model's answer for each image on its own.

    A NamedTuple because Accelerate and DeepSpeed look for tensors inside tuples but not inside
    dataclasses.

    albedo: linear RGB; [0, 1] is asked for, a preset's last layer may leave it unbounded.
    normal: unit length; +x right in the image, +y up, +z to the camera.
    sh:     radiance coefficients of the light, see relightx.sh.
    """

    albedo: Float[Tensor, "batch lights 3 height width"]
    normal: Float[Tensor, "batch lights 3 height width"]
    sh: Float[Tensor, "batch lights 3 9"]


class Truth(NamedTuple):
    """Labels of a batch; rows without a label are zero and marked False.

    Albedo and normals belong to the portrait and are shared by its lights.

    confidence: [0, 1], how far the labels of a portrait are trusted at each pixel; 1 where nothing
        else is known.
    """

    albedo: Float[Tensor, "batch 3 height width"]
    normal: Float[Tensor, "batch 3 height width"]
    sh: Float[Tensor, "batch lights 3 9"]
    confidence: Float[Tensor, "batch 1 height width"]
    has_albedo: Bool[Tensor, " batch"]
    has_normal: Bool[Tensor, " batch"]
    has_light: Bool[Tensor, " batch"]


class Batch(NamedTuple):
    """Portraits under several lights each.

    image: linear RGB, not clipped at 1 after exposure jitter.
    mask:  True on the portrait.
    valid: False on rows that only fill up the last batch of an evaluation.
    """

    image: Float[Tensor, "batch lights 3 height width"]
    mask: Bool[Tensor, "batch 1 height width"]
    valid: Bool[Tensor, " batch"]
    truth: Truth
