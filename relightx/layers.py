"""Layers: pictures beside a portrait's images and labels that no training of ours needs.

A generator writes them for whoever looks closer: depth, parts, and of each light its shading,
gloss and shadows. Layer NAME is the member KEY.NAME.png, 16-bit, and meta.json has its scale in
"scales": value = stored / 65535 * scale. Readers of portraits pass over them.

A layer of classes has a class in each pixel: the member is 8-bit gray and holds the number itself,
and meta.json has their names in "vocabulary", the first being class 0. There is one, `parts`: which
part of a head is seen, numbered as in PARTS.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped, UInt8

from relightx.codec import decode_picture, encode_png

LAYER_NAME = re.compile(r"(light\d{3}\.)?[a-z]+")
PARTS = (
    *("background", "skin", "lips", "brow", "eye"),
    *("mouth", "hair", "beard", "cloth", "glasses"),
)
"""What layer `parts` numbers from 0 on. mouth: its cavity, teeth and tongue. New ones go last."""
CLASSES = {"parts": PARTS}
"""Names of the classes of each layer of classes."""
_LARGEST = np.iinfo(np.uint16).max


def layer_scale(values: Float[np.ndarray, "height width channels"]) -> float:
    """The scale that a layer of these values is stored with: a power of two above them all."""
    return float(2.0 ** np.ceil(np.log2(max(float(values.max()), 2.0**-10))))


def encode_layer(values: Shaped[np.ndarray, "height width channels"]) -> bytes:
    """A layer's member; uint8 are classes. Raises ValueError for values below 0 or not finite."""
    if values.dtype == np.uint8:
        return encode_png(values)
    if not np.isfinite(values).all() or values.min() < 0:
        raise ValueError(f"a layer has values from {values.min():g} to {values.max():g}")
    return encode_png(np.rint(values / layer_scale(values) * _LARGEST).astype(np.uint16))


def layers_meta(layers: Mapping[str, Shaped[np.ndarray, "height width _"]]) -> dict[str, Any]:
    """What meta.json has of layers. Raises ValueError for classes that have no names."""
    scales = {name: layer_scale(x) for name, x in layers.items() if x.dtype != np.uint8}
    classes = {name: _names(name, x) for name, x in layers.items() if x.dtype == np.uint8}
    return ({"scales": scales} if scales else {}) | ({"vocabulary": classes} if classes else {})


def _names(layer: str, values: UInt8[np.ndarray, "height width channels"]) -> tuple[str, ...]:
    """Names of a layer's classes."""
    known = CLASSES.get(layer, ())
    if values.max() >= len(known) or values.shape[2] != 1:
        raise ValueError(
            f"layer {layer!r} has classes up to {values.max()} in {values.shape[2]} channels;"
            f" relightx.layers knows {len(known)} of them, in one"
        )
    return known


def decode_layer(
    members: dict[str, bytes], name: str
) -> Shaped[np.ndarray, "height width channels"]:
    """A layer of a portrait, given its members; uint8 where it holds classes.

    Raises ValueError when it has no such layer.
    """
    meta = json.loads(members["meta.json"])
    scales, classes = meta.get("scales", {}), meta.get("vocabulary", {})
    if name not in scales and name not in classes:
        held = sorted({**scales, **classes})
        raise ValueError(f"no layer {name!r}; the portrait has {held or 'none'}")
    stored = decode_picture(members[f"{name}.png"], (meta["height"], meta["width"]))
    if name in classes:
        return stored
    return stored.astype(np.float32) * np.float32(scales[name] / _LARGEST)
