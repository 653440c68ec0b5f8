"""Pictures of a scene under traced light, as a camera takes them."""

import numpy as np
from jaxtyping import Float, UInt8

from relightx.color import LUMINANCE, to_srgb8
from shards.rendering.illumination import Illumination
from shards.rendering.lamps import lamp_light
from shards.rendering.lights import rotation
from shards.rendering.points import Points
from shards.rendering.scene import Scene
from shards.rendering.transport import finished, trace

_EXPOSURE = (0.1, 0.46)  # mean luminance, linear
_CLIPPED = 0.02  # of the pixels at most
_WEIGHT = np.array(LUMINANCE, np.float32)


def traced_pictures(
    rng: np.random.Generator, scene: Scene, lights: list[Illumination]
) -> tuple[UInt8[np.ndarray, "lights size size 3"], Float[np.ndarray, "lights 3 9"]]:
    """Pictures of 8 bits, sRGB, and the coefficients of their lights as exposed."""
    points = Points(scene)
    about_y, tilt, roll = rng.uniform(-np.pi, np.pi, 3)
    transport = trace(points, rotation(float(about_y), float(tilt), float(roll)))
    pictures = np.zeros((len(lights), *scene.mask.shape, 3), np.uint8)
    sh = np.stack([light.sh for light in lights])
    surroundings = transport.lights(np.stack([x.radiance(transport.direction) for x in lights]))
    for number, (light, total) in enumerate(zip(lights, surroundings, strict=True)):
        for lamp in light.all_lamps():
            total = total + lamp_light(points, lamp)
        image, _ = finished(points, transport, total)
        gain = _gain(rng, image, points.albedo)
        sh[number] *= gain
        pictures[number, scene.mask] = to_srgb8(_taken(rng, image * gain)).T
    return pictures, sh


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
