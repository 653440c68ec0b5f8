"""Pictures of a scene under traced light, as a camera takes them."""

import numpy as np
from jaxtyping import Float, UInt8

from relightx.color import LUMINANCE, to_srgb8
from shards.rendering.illumination import Illumination
from shards.rendering.lights import rotation
from shards.rendering.scene import Scene
from shards.rendering.transport import Points, finished, lamp_light, trace

_BRIGHTEST = 1.0  # of all but the brightest percent
_EXPOSURE = (0.1, 0.46)  # mean luminance, linear


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
        pictures[number, scene.mask] = to_srgb8(_taken(rng, image * gain))
    return pictures, sh


def _gain(
    rng: np.random.Generator, image: Float[np.ndarray, "num 3"], albedo: Float[np.ndarray, "num 3"]
) -> np.float32:
    """An exposure that keeps dark skin dark and leaves a few highlights to clip."""
    weight = np.array(LUMINANCE, np.float32)
    reflectance = float((albedo @ weight).mean())
    wanted = 0.25 * (reflectance / 0.22) ** 0.5 * np.exp(rng.normal(0, 0.25))
    gain = np.clip(wanted, *_EXPOSURE) / max(float((image @ weight).mean()), 1e-6)
    bright = float(np.quantile(image.max(axis=1), 0.98))
    return np.float32(min(gain, _BRIGHTEST / max(bright, 1e-6)))


def _taken(
    rng: np.random.Generator, image: Float[np.ndarray, "num 3"]
) -> Float[np.ndarray, "num 3"]:
    """With the noise of photons and of reading a sensor."""
    photons, reading = np.exp(rng.uniform(np.log((2e-5, 2e-4)), np.log((6e-4, 4e-3))))
    spread = np.sqrt(photons * np.maximum(image, 0) + reading**2).astype(np.float32)
    noise = rng.standard_normal(image.shape, np.float32)
    return image + spread * noise
