"""Pictures of a scene under traced light, as a camera takes them."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from relightx.color import LUMINANCE, to_srgb8
from shards.rendering.illumination import Illumination
from shards.rendering.lamps import bare_lamp_shading, lamp_light
from shards.rendering.lights import rotation
from shards.rendering.points import Points, Shaded
from shards.rendering.scene import Scene
from shards.rendering.transport import bare_shading, finished, trace

_EXPOSURE = (0.1, 0.46)  # mean luminance, linear
_CLIPPED = 0.02  # of the pixels at most
_WEIGHT = np.array(LUMINANCE, np.float32)


class Taken(NamedTuple):
    """Pictures of 8 bits, sRGB, the coefficients of their lights as exposed, and layers if asked:
    `light000.bare` (shading as if nothing were in the way), `.shading`, `.specular`, `.visible`
    (the share of the shading that shadows leave), and so for each light.
    """

    pictures: UInt8[np.ndarray, "lights size size 3"]
    sh: Float[np.ndarray, "lights 3 9"]
    layers: dict[str, Float[np.ndarray, "size size _"]]


def traced_pictures(
    rng: np.random.Generator, scene: Scene, lights: list[Illumination], with_layers: bool = False
) -> Taken:
    """What a camera takes of a scene under each light."""
    points = Points(scene)
    about_y, tilt, roll = rng.uniform(-np.pi, np.pi, 3)
    transport = trace(points, rotation(float(about_y), float(tilt), float(roll)))
    pictures = np.zeros((len(lights), *scene.mask.shape, 3), np.uint8)
    sh = np.stack([light.sh for light in lights])
    layers: dict[str, np.ndarray] = {}
    radiance = np.stack([light.radiance(transport.direction) for light in lights])
    for number, first in enumerate(transport.lights(radiance)):
        lamps = lights[number].all_lamps()
        direct = sum((lamp_light(points, lamp) for lamp in lamps), first)
        image, light = finished(points, transport, direct)
        gain = _gain(rng, image, points.albedo)
        sh[number] *= gain
        points.put(to_srgb8(_taken(rng, image * gain)), pictures[number])
        if with_layers:
            bare = bare_shading(points, transport.direction, radiance[number])
            bare = sum((bare_lamp_shading(points, lamp) for lamp in lamps), bare)
            layers |= _layers(points, f"light{number:03d}", bare, direct, light, gain)
    return Taken(pictures, sh, layers)


def _layers(
    points: Points, name: str, bare: np.ndarray, direct: Shaded, light: Shaded, gain: np.float32
) -> dict[str, np.ndarray]:
    visible = (_WEIGHT @ direct.shading)[None] / np.maximum((_WEIGHT @ bare)[None], 1e-6)
    found = {
        "bare": bare * gain,
        "shading": light.shading * gain,
        "specular": light.specular * gain,
        "visible": np.clip(visible, 0, 1),
    }
    return {
        f"{name}.{layer}": np.stack([points.picture(row) for row in values], axis=-1)
        for layer, values in found.items()
    }


def _gain(
    rng: np.random.Generator, image: Float[np.ndarray, "3 num"], albedo: Float[np.ndarray, "3 num"]
) -> np.float32:
    """An exposure that keeps dark skin dark and leaves a few highlights to clip."""
    reflectance = float((_WEIGHT @ albedo).mean())
    wanted = 0.25 * (reflectance / 0.22) ** 0.5 * np.exp(rng.normal(0, 0.25))
    gain = np.clip(wanted, *_EXPOSURE) / max(float((_WEIGHT @ image).mean()), 1e-6)
    bright = float(np.quantile(image.max(axis=0), 1 - _CLIPPED))
    return np.float32(min(gain, 1 / max(bright, 1e-6)))


def _taken(
    rng: np.random.Generator, image: Float[np.ndarray, "3 num"]
) -> Float[np.ndarray, "3 num"]:
    """With the noise of photons and of reading a sensor."""
    photons, reading = np.exp(rng.uniform(np.log((2e-5, 2e-4)), np.log((6e-4, 4e-3))))
    spread = np.sqrt(np.float32(photons) * np.maximum(image, 0) + np.float32(reading**2))
    return image + spread * rng.standard_normal(image.shape, np.float32)
