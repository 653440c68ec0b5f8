"""Random lights for rendered portraits, and their exposure."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from relightx.color import LUMINANCE
from relightx.sh import ambient_light, directional_light, rotate, sh_basis, shade

EXPOSURE = (0.14, 0.46)  # mean luminance of a well-exposed portrait, linear
_BRIGHTEST = 0.98  # of all but the brightest percent of values
_BACK_LIT = 0.5  # mean radiance from behind may exceed that from the front by this share


@dataclass(frozen=True)
class Light:
    """A light from all around: its name, and radiance coefficients as in relightx.sh."""

    name: str
    sh: Float[np.ndarray, "3 9"]


def random_light(
    rng: np.random.Generator, environments: dict[str, Float[np.ndarray, "3 9"]]
) -> Light:
    """An environment turned at random, alone or mixed with another, or one to three lamps."""
    if environments and rng.random() < 0.5:
        return _random_environment(rng, environments)
    return _random_lamps(rng)


def exposed(
    rng: np.random.Generator,
    sh: Float[np.ndarray, "lights 3 9"],
    albedo: Float[np.ndarray, "num 3"],
    normal: Float[np.ndarray, "num 3"],
) -> tuple[Float[np.ndarray, "lights 3 9"], Float[np.ndarray, "lights num 3"]]:
    """The lights scaled to expose these places well, and the linear images they give.

    The mean luminance lies in EXPOSURE, darker for darker skin, unless the brightest percent
    would clip. Images are albedo * max(shading, 0), not clipped above.
    """
    lights = torch.from_numpy(np.ascontiguousarray(sh, np.float32))
    image = _image(lights, albedo, normal)
    weight = np.array(LUMINANCE, np.float32)
    reflectance = float(np.einsum("nk,k->n", albedo, weight).mean())
    jitter = np.exp(rng.normal(0, 0.2, len(sh)))
    wanted = np.clip(0.27 * (reflectance / 0.22) ** 0.45 * jitter, *EXPOSURE)
    gain = wanted / np.maximum(np.einsum("lnk,k->ln", image, weight).mean(axis=1), 1e-6)
    bright = np.quantile(image.max(axis=2), 0.99, axis=1)
    gain = np.minimum(gain, _BRIGHTEST / np.maximum(bright, 1e-6)).astype(np.float32)
    scaled = lights * torch.from_numpy(gain)[:, None, None]
    return scaled.numpy(), image * gain[:, None, None]


def _image(
    sh: torch.Tensor, albedo: Float[np.ndarray, "num 3"], normal: Float[np.ndarray, "num 3"]
) -> Float[np.ndarray, "lights num 3"]:
    column = torch.from_numpy(np.ascontiguousarray(normal.T[:, :, None], np.float32))
    shading = shade(column[None], sh)[..., 0].clamp_min(0).numpy()
    return shading.transpose(0, 2, 1) * albedo.astype(np.float32)


def _random_environment(
    rng: np.random.Generator, environments: dict[str, Float[np.ndarray, "3 9"]]
) -> Light:
    names = list(environments)
    mixed = len(names) > 1 and rng.random() < 0.3
    chosen = [str(name) for name in rng.choice(names, 2 if mixed else 1, replace=False)]
    shares = rng.dirichlet([2.0] * len(chosen))
    sh = torch.zeros(3, 9)
    for name, share in zip(chosen, shares, strict=True):
        original = torch.from_numpy(_balanced(rng, environments[name]))
        turned = rotate(original, random_turn(rng))
        for _ in range(20):
            if not is_back_lit(turned):
                break
            turned = rotate(original, random_turn(rng))
        sh += float(share) * turned
    # Walls and air around the sitter fill the shade that the map alone leaves too deep.
    fill = float(rng.uniform(0.1, 0.35))
    sh = (1 - fill) * sh + fill * ambient_light(1.0)
    return Light(f"environment {'+'.join(chosen)}", sh.numpy())


def _random_lamps(rng: np.random.Generator) -> Light:
    count = int(rng.choice([1, 2, 3], p=[0.5, 0.3, 0.2]))
    sh = ambient_light(float(rng.uniform(0.08, 0.5))) * tint(rng)[:, None]
    for strength in rng.uniform(0.3, 1.0, count):
        sh = sh + float(strength) * directional_light(lamp_direction(rng)) * tint(rng)[:, None]
    return Light(f"lamps {count}", sh.numpy())


def lamp_direction(rng: np.random.Generator) -> torch.Tensor:
    """Mostly from in front and above, up to a little behind the face."""
    azimuth = np.clip(rng.normal(0, 50), -110, 110)
    elevation = np.clip(rng.normal(25, 28), -40, 85)
    a, e = np.radians(azimuth), np.radians(elevation)
    direction = (np.sin(a) * np.cos(e), np.sin(e), np.cos(a) * np.cos(e))
    return torch.tensor(direction, dtype=torch.float32)


def tint(rng: np.random.Generator) -> torch.Tensor:
    """Colour of a lamp between warm and cool, of mean 1."""
    warm = rng.normal(0, 0.16)
    colour = np.exp(np.array([warm, rng.normal(0, 0.03), -warm]))
    return torch.from_numpy((colour / colour.mean()).astype(np.float32))


def _balanced(rng: np.random.Generator, sh: Float[np.ndarray, "3 9"]) -> Float[np.ndarray, "3 9"]:
    """White balance as a camera does it, not to the end."""
    ambient = sh[:, 0] / sh[:, 0].mean()
    gain = ambient ** -rng.uniform(0.6, 1.0)
    return (sh * (gain / (gain * ambient).mean())[:, None]).astype(np.float32)


def is_back_lit(sh: torch.Tensor) -> bool:
    ahead = torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.0, -1.0]])
    linear = sh_basis(ahead) * torch.tensor([1.0, 2 / 3, 2 / 3, 2 / 3, 0, 0, 0, 0, 0])
    front, back = (sh.mean(dim=0) @ linear.T).tolist()
    return back > (1 + _BACK_LIT) * max(front, 0)


def random_turn(rng: np.random.Generator) -> torch.Tensor:
    """Any angle about the vertical, tilted a little."""
    about_y = rng.uniform(-np.pi, np.pi)
    tilt = rng.normal(0, np.radians(10), 2)
    return torch.from_numpy(rotation(about_y, float(tilt[0]), float(tilt[1]))).float()


def rotation(yaw: float, pitch: float, roll: float) -> Float[np.ndarray, "3 3"]:
    """Turn by roll about z, then pitch about x, then yaw about y (radians, right-handed)."""
    cy, sy, cp, sp, cr, sr = (f(v) for v in (yaw, pitch, roll) for f in (np.cos, np.sin))
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_x = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    about_z = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return about_y @ about_x @ about_z
