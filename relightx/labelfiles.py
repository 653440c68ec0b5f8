"""The labels that a model gave one portrait, at their place in its picture and in files.

    KEY.albedo.png       16-bit RGB, linear
    KEY.normal.png       16-bit RGB, (normal + 1) / 2
    KEY.confidence.png   8-bit gray, 255 where the answer is exact and certain; 0 outside the mask
    KEY.light.json       "sh": 3 x 9 numbers of the first light, "lights": those of every light
                         where there are several, "confidence": the mean inside the mask

The model sees a square (relightx.data.fit). Its maps are taken off it and scaled to the height and
width of the picture in the shard and, where that is a crop whose way back the shard keeps
(relightx-shards build --align), laid at their place in the source's picture: it is the source that
reads the labels, before it is aligned again.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float

from relightx.codec import encode_png
from relightx.confidence import Consensus
from relightx.data.fit import unit, unletterbox
from relightx.face import turn_to_photograph, uncrop
from relightx.index import write_atomically
from relightx.sample import Portrait
from relightx.sh import rotate

LAST = "light.json"
"""The file that says, by being there, that a portrait's labels are whole."""
_AHEAD = np.float32([0, 0, 1])


@dataclass(frozen=True)
class Place:
    """Where a portrait's pixels belong.

    shape: height and width of the picture in the shard. mask: of that size, None: everywhere.
    affine, source_shape: from the source's picture to the shard's, see relightx.sample.Provenance.
    """

    shape: tuple[int, int]
    mask: Bool[np.ndarray, "height width"] | None
    affine: Float[np.ndarray, "2 3"] | None
    source_shape: tuple[int, int]

    @classmethod
    def of(cls, portrait: Portrait) -> "Place":
        shape, made = portrait.image.shape[1:3], portrait.provenance
        if made.affine is None or made.source_size is None:
            return cls(shape, portrait.mask, None, shape)
        width, height = made.source_size
        return cls(shape, portrait.mask, np.array(made.affine), (height, width))


@dataclass(frozen=True)
class Labels:
    """A model's labels in a picture: as in relightx.sample.Portrait, and the mean confidence."""

    albedo: Float[np.ndarray, "height width 3"]
    normal: Float[np.ndarray, "height width 3"]
    confidence: Float[np.ndarray, "height width"]
    sh: Float[np.ndarray, "lights 3 9"]
    mean: float


def labels_at(place: Place, found: Consensus, inside: Bool[torch.Tensor, "size size"]) -> Labels:
    """The model's answer on its square, brought to the picture it belongs to.

    inside: the mask on the square, over which confidence is averaged.
    """
    confidence = unletterbox(found.confidence.numpy(), *place.shape)
    if place.mask is not None:
        confidence = confidence * place.mask
    labels = Labels(
        albedo=unletterbox(found.albedo.movedim(0, -1).numpy(), *place.shape),
        normal=unit(unletterbox(found.normal.movedim(0, -1).numpy(), *place.shape)),
        confidence=confidence,
        sh=found.sh.numpy(),
        mean=found.confidence[inside].mean().item() if inside.any() else 0.0,
    )
    return labels if place.affine is None else _uncropped(labels, place.affine, place.source_shape)


def write_labels(directory: Path, key: str, labels: Labels) -> None:
    """Write the files of a portrait, light.json last."""
    pictures = {
        "albedo": np.rint(labels.albedo.clip(0, 1) * 65535).astype(np.uint16),
        "normal": np.rint((labels.normal + 1) / 2 * 65535).astype(np.uint16),
        "confidence": np.rint(labels.confidence.clip(0, 1) * 255).astype(np.uint8)[..., None],
    }
    for name, pixels in pictures.items():
        (directory / f"{key}.{name}.png").write_bytes(encode_png(pixels))
    sh = np.round(labels.sh.astype(float), 6).tolist()
    light = {"sh": sh[0], "confidence": round(labels.mean, 4)}
    if len(sh) > 1:
        light["lights"] = sh
    write_atomically(directory / f"{key}.{LAST}", json.dumps(light).encode())


def _uncropped(labels: Labels, affine: Float[np.ndarray, "2 3"], shape: tuple[int, int]) -> Labels:
    """Around the crop: black, facing the camera, of no confidence."""
    turn = turn_to_photograph(affine)
    normal = uncrop(labels.normal @ turn.T.astype(np.float32), affine, shape)
    known = np.linalg.norm(normal, axis=-1, keepdims=True) > 0.5
    return replace(
        labels,
        albedo=uncrop(labels.albedo, affine, shape),
        normal=np.where(known, unit(normal), _AHEAD),
        confidence=uncrop(labels.confidence, affine, shape),
        sh=rotate(torch.from_numpy(labels.sh), torch.from_numpy(turn)).numpy(),
    )
