"""Use of a trained model on photographs: decompose one, relight it.

A network answers for a square crop of its training size. Here the face is found and cropped by the
fixed rule of relightx.face, the answer is laid back onto the photograph, and albedo regains the
photograph's own detail, which the crop had averaged away: it is multiplied by the ratio of the
photograph to its copy at the network's resolution. What lies outside the mask is left as it was.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from PIL import Image, ImageOps

from relightx.checkpoint import load_model
from relightx.color import from_integer
from relightx.data.fit import unit
from relightx.face import (
    crop,
    crop_transform,
    face_mask,
    find_face,
    turn_to_photograph,
    uncrop,
)
from relightx.light import Light
from relightx.model import IntrinsicNet
from relightx.picture import read_picture
from relightx.sh import rotate, shade

Picture = str | Path | Image.Image | np.ndarray
_DETAIL_BOUND = 2.5
"""Largest factor by which a photograph's detail may change the albedo, either way."""


@dataclass(frozen=True, eq=False)
class PortraitDecomposition:
    """What a model sees in a photograph, at the photograph's size, NumPy float32.

    image:   the photograph, linear RGB.
    albedo:  linear RGB in [0, 1]; zero outside the mask, like the next two.
    normal:  unit; +x right in the image, +y up, +z to the camera.
    shading: RGB, 0 or more, albedo * shading being the image rebuilt.
    mask:    True on the face.
    weight:  the mask with a soft edge, in [0, 1].
    light:   the light seen in the photograph.
    face_found: False when no face was found and the whole picture was taken for one.
    """

    image: Float[np.ndarray, "height width 3"]
    albedo: Float[np.ndarray, "height width 3"]
    normal: Float[np.ndarray, "height width 3"]
    shading: Float[np.ndarray, "height width 3"]
    mask: Bool[np.ndarray, "height width"]
    weight: Float[np.ndarray, "height width"]
    light: Light
    face_found: bool

    def relit(self, light: Light) -> Float[np.ndarray, "height width 3"]:
        """The photograph with its face under another light: linear RGB in [0, 1]."""
        shading = _shade(self.normal, light)
        face = np.clip(self.albedo * shading, 0, 1)
        weight = self.weight[..., None]
        return weight * face + (1 - weight) * self.image


class Model:
    """A trained network ready for photographs; make one with `relightx.load`."""

    def __init__(self, network: IntrinsicNet, image_size: int, device: torch.device) -> None:
        self.network, self.image_size, self.device = network.to(device), image_size, device

    def decompose(self, image: Picture) -> PortraitDecomposition:
        """Albedo, normals, shading, mask and light of a photograph.

        image: a path or PIL image (sRGB), or a float array H x W x 3 or H x W (linear, [0, 1]).
        Raises ValueError for an unreadable or wrong picture, and for a face below the minimum size.
        """
        photograph = read_linear(image)
        face = find_face(photograph)
        height, width = photograph.shape[:2]
        if face is None:
            affine, weight = _whole(height, width, self.image_size), np.ones((height, width))
        else:
            affine = crop_transform(face, self.image_size)
            weight = face_mask(face, (height, width))
        albedo, normal, sh = self._answer(crop(photograph, affine, self.image_size))
        turn = turn_to_photograph(affine)
        light = Light(rotate(torch.from_numpy(sh), torch.from_numpy(turn)).numpy())
        shape, covered = (height, width), weight[..., None] > 0
        normal = unit(uncrop(unit(normal @ turn.T), affine, shape))
        albedo = uncrop(np.clip(albedo, 0, 1), affine, shape)
        albedo = albedo * _detail(photograph, affine, self.image_size)
        return PortraitDecomposition(
            image=photograph,
            albedo=(np.clip(albedo, 0, 1) * covered).astype(np.float32),
            normal=(normal * covered).astype(np.float32),
            shading=(_shade(normal, light) * covered).astype(np.float32),
            mask=weight > 0.5,
            weight=weight.astype(np.float32),
            light=light,
            face_found=face is not None,
        )

    def relight(self, image: Picture, light: Light) -> Float[np.ndarray, "height width 3"]:
        """The photograph with its face under another light: linear RGB in [0, 1]."""
        return self.decompose(image).relit(light)

    @torch.no_grad()
    def _answer(self, square: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        batch = torch.from_numpy(np.ascontiguousarray(square.transpose(2, 0, 1), np.float32))
        pred = self.network(batch[None, None].to(self.device))
        albedo, normal = (v[0, 0].permute(1, 2, 0).cpu().numpy() for v in pred[:2])
        return albedo, normal, pred.sh[0, 0].cpu().numpy()


def load(path: str | Path, device: str | None = None) -> Model:
    """A trained model from its directory (or its run's), on a device ('cuda' if there is one).

    Raises ValueError when the directory holds no model of ours.
    """
    network, content = load_model(path)
    chosen = device or ("cuda" if torch.cuda.is_available() else "cpu")
    return Model(network, content["image_size"], torch.device(chosen))


def read_linear(image: Picture) -> Float[np.ndarray, "height width 3"]:
    """Any accepted picture as linear RGB float32; ValueError for another shape, type or range."""
    if isinstance(image, Image.Image):
        return from_integer(np.asarray(ImageOps.exif_transpose(image).convert("RGB")), "srgb")
    if isinstance(image, str | Path):
        pixels = read_picture(Path(image))
        return np.repeat(from_integer(pixels, "srgb"), 3 // pixels.shape[2], axis=2)
    if not isinstance(image, np.ndarray) or not np.issubdtype(image.dtype, np.floating):
        raise ValueError(
            f"image is {getattr(image, 'dtype', type(image).__name__)}; a path, a PIL image or a"
            " float array (linear, [0, 1]) needed; for 8-bit arrays use PIL.Image.fromarray"
        )
    if image.ndim == 2:
        image = np.repeat(image[..., None], 3, axis=2)
    if image.ndim != 3 or image.shape[2] != 3 or min(image.shape[:2]) < 1:
        raise ValueError(f"image has shape {image.shape}; height x width x 3 or height x width")
    if not np.isfinite(image).all() or image.min() < 0:
        raise ValueError("image has values that are negative or not finite; linear [0, 1] needed")
    if image.max() > 1.001:
        raise ValueError(
            f"image has values up to {image.max():g}; linear light from 0 to 1 needed: scale or"
            " clip it, or use PIL.Image.fromarray for 8-bit sRGB"
        )
    return np.ascontiguousarray(image, np.float32)


def _whole(height: int, width: int, size: int) -> Float[np.ndarray, "2 3"]:
    """The affine map that fits a whole picture into the network's square, centred."""
    scale = size / max(height, width)
    return np.array(
        [[scale, 0, (size - scale * width) / 2], [0, scale, (size - scale * height) / 2]]
    )


def _detail(
    photograph: Float[np.ndarray, "height width 3"], affine: Float[np.ndarray, "2 3"], size: int
) -> Float[np.ndarray, "height width 3"]:
    """What the photograph shows more than its copy at the network's resolution, as a ratio."""
    seen = crop(photograph, affine, size)
    blurred = uncrop(seen, affine, photograph.shape[:2])
    # The floor keeps noise in black pixels from becoming texture.
    floor = 0.02
    ratio = (photograph + floor) / (blurred + floor)
    return np.clip(ratio, 1 / _DETAIL_BOUND, _DETAIL_BOUND)


def _shade(
    normal: Float[np.ndarray, "height width 3"], light: Light
) -> Float[np.ndarray, "height width 3"]:
    chw = torch.from_numpy(np.ascontiguousarray(normal.transpose(2, 0, 1), np.float32))
    shading = shade(chw, torch.from_numpy(light.sh)).clamp(min=0)
    return shading.permute(1, 2, 0).numpy()
