"""Layers: pictures beside a portrait's images and labels that no training of ours needs.

A generator writes them for whoever looks closer: depth, parts, and of each light its shading,
gloss and shadows. Layer NAME is the member KEY.NAME.png, 16-bit, and meta.json has its scale in
"scales": value = stored / 65535 * scale. Readers of portraits pass over them.
"""

import json
import re

import numpy as np
from jaxtyping import Float

from relightx.codec import decode_picture, encode_png

LAYER_NAME = re.compile(r"(light\d{3}\.)?[a-z]+")
_LARGEST = np.iinfo(np.uint16).max


def layer_scale(values: Float[np.ndarray, "height width channels"]) -> float:
    """The scale that a layer of these values is stored with: a power of two above them all."""
    return float(2.0 ** np.ceil(np.log2(max(float(values.max()), 2.0**-10))))


def encode_layer(values: Float[np.ndarray, "height width channels"]) -> bytes:
    """A layer's member. Raises ValueError for values below 0 or that are not finite."""
    if not np.isfinite(values).all() or values.min() < 0:
        raise ValueError(f"a layer has values from {values.min():g} to {values.max():g}")
    return encode_png(np.rint(values / layer_scale(values) * _LARGEST).astype(np.uint16))


def decode_layer(
    members: dict[str, bytes], name: str
) -> Float[np.ndarray, "height width channels"]:
    """A layer of a portrait, given its members. Raises ValueError when it has no such layer."""
    meta = json.loads(members["meta.json"])
    scales = meta.get("scales", {})
    if name not in scales:
        raise ValueError(f"no layer {name!r}; the portrait has {sorted(scales) or 'none'}")
    stored = decode_picture(members[f"{name}.png"], (meta["height"], meta["width"]))
    return stored.astype(np.float32) * np.float32(scales[name] / _LARGEST)
