"""Second-order spherical harmonics: the one place that fixes their order, sign, scale and frame.

Coefficients are of incoming *radiance*, real, orthonormal over the sphere, without the
Condon-Shortley sign, ordered (l, m) = 00, 1-1, 10, 11, 2-2, 2-1, 20, 21, 22, that is
1, y, z, x, xy, yz, 3z^2-1, xz, x^2-y^2. Frame: +x right in the image, +y up, +z to the camera.
A light is `sh` with axes (3 colours, 9 coefficients).

`shade` gives irradiance / pi, so that image = albedo * shading and a white environment of
radiance 1 shades to 1. The cosine lobe (Ramamoorthi and Hanrahan 2001, divided by pi) is applied
here and is never inside stored coefficients. Published portrait code disagrees on all of this
and still has nine numbers everywhere: convert foreign coefficients with `from_sfsnet`,
`from_dpr`, `from_deca` where they enter, and back with their `to_` twins.
"""

import math
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

ORDER = ((0, 0), (1, -1), (1, 0), (1, 1), (2, -2), (2, -1), (2, 0), (2, 1), (2, 2))
COSINE_LOBE = (1.0,) + (2 / 3,) * 3 + (1 / 4,) * 5

_C0 = math.sqrt(1 / (4 * math.pi))
_C1 = math.sqrt(3 / (4 * math.pi))
_C2 = math.sqrt(15 / (4 * math.pi))  # xy, yz, xz
_C20 = math.sqrt(5 / (16 * math.pi))  # 3z^2 - 1
_C22 = math.sqrt(15 / (16 * math.pi))  # x^2 - y^2


def sh_basis(direction: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 9"]:
    """The nine basis functions at unit directions."""
    x, y, z = direction.unbind(-1)
    return torch.stack(
        (
            torch.full_like(x, _C0),
            _C1 * y,
            _C1 * z,
            _C1 * x,
            _C2 * x * y,
            _C2 * y * z,
            _C20 * (3 * z * z - 1),
            _C2 * x * z,
            _C22 * (x * x - y * y),
        ),
        dim=-1,
    )


def shade(
    normal: Float[Tensor, "*#batch 3 height width"], sh: Float[Tensor, "*#batch 3 9"]
) -> Float[Tensor, "*batch 3 height width"]:
    """Lambertian shading (irradiance / pi) of unit normals under SH light.

    Not clamped: a second-order light can dip below zero on the dark side. Leading axes broadcast.
    """
    basis = sh_basis(normal.movedim(-3, -1))
    lobe = torch.tensor(COSINE_LOBE, dtype=sh.dtype, device=sh.device)
    return torch.einsum("...hwk,...ck->...chw", basis, sh * lobe)


def radiance(
    sh: Float[Tensor, "*batch 3 9"], direction: Float[Tensor, "num 3"]
) -> Float[Tensor, "*batch 3 num"]:
    """Incoming radiance of the light from unit directions."""
    return sh @ sh_basis(direction).T


def directional_light(
    direction: Float[Tensor, "*batch 3"], ambient: float = 0.0
) -> Float[Tensor, "*batch 9"]:
    """One colour's coefficients of a distant lamp at a direction, of any length but zero.

    The lamp's strength is such that it shades a surface facing it to 1 before truncation to
    second order (1.0625 after); `ambient` adds a constant shading. Raises ValueError for a
    direction of length zero.
    """
    length = torch.linalg.vector_norm(direction, dim=-1, keepdim=True)
    if not bool((length > 0).all()):
        raise ValueError("a light direction has length zero; a vector toward the light is needed")
    sh = math.pi * sh_basis(direction / length)
    return sh + ambient_light(ambient).to(sh)


def ambient_light(shading: float) -> Float[Tensor, "9"]:
    """One colour's coefficients of a uniform environment that shades every surface alike."""
    sh = torch.zeros(9)
    sh[0] = shading / _C0
    return sh


def environment_light(
    radiance_map: Float[Tensor, "3 height width"],
) -> Float[Tensor, "3 9"]:
    """Project an equirectangular map of linear radiance.

    Rows run from +y down; the centre of the map is -z (where the camera looks, behind the face),
    columns to the right of it turn to +x, the left and right edges are +z. Negative coefficients
    of ringing in compressed maps are the map's own: nothing is clipped.
    """
    direction, solid_angle = environment_directions(*radiance_map.shape[1:])
    weighted = sh_basis(direction) * solid_angle[..., None]
    return torch.einsum("chw,hwk->ck", radiance_map.double(), weighted).to(radiance_map.dtype)


def environment_directions(
    height: int, width: int
) -> tuple[Float[Tensor, "{height} {width} 3"], Float[Tensor, "{height} {width}"]]:
    """Unit direction and solid angle (steradian) of each pixel of an equirectangular map."""
    theta = (torch.arange(height, dtype=torch.float64) + 0.5) / height * math.pi
    phi = ((torch.arange(width, dtype=torch.float64) + 0.5) / width - 0.5) * 2 * math.pi
    theta, phi = torch.meshgrid(theta, phi, indexing="ij")
    direction = torch.stack(
        (theta.sin() * phi.sin(), theta.cos(), -theta.sin() * phi.cos()), dim=-1
    )
    # Exact area of each row's band, so that the solid angles sum to 4 pi at any size.
    band = 2 * math.sin(math.pi / (2 * height)) * theta.sin()
    return direction, band * (2 * math.pi / width)


def dominant_direction(sh: Float[Tensor, "*batch 3 9"]) -> Float[Tensor, "*batch 3"]:
    """Unit direction of the linear band, averaged over colours; zero for a uniform light."""
    linear = sh.mean(dim=-2)[..., [3, 1, 2]]
    return torch.nn.functional.normalize(linear, dim=-1)


def rotate(
    sh: Float[Tensor, "*batch 9"], rotation: Float[Tensor, "3 3"]
) -> Float[Tensor, "*batch 9"]:
    """The light turned with its surroundings: radiance'(rotation @ d) = radiance(d).

    The 9 x 9 matrix is solved from sampled directions, which is exact because each band is closed
    under rotation, and cannot disagree with `sh_basis`. Raises ValueError for a matrix that is
    not a rotation or a mirroring (an orthogonal matrix).
    """
    rotation64 = rotation.double()
    if not (rotation64 @ rotation64.T - torch.eye(3)).abs().max() <= 1e-5:
        raise ValueError(f"not an orthogonal matrix: {rotation.tolist()}")
    sample, solve = _samples()
    return sh @ (solve @ sh_basis(sample @ rotation64)).T.to(sh)


def mirror(sh: Float[Tensor, "*batch 9"]) -> Float[Tensor, "*batch 9"]:
    """The light of a picture mirrored left to right: x becomes -x."""
    sign = torch.tensor([1, 1, 1, -1, -1, 1, 1, -1, 1], dtype=sh.dtype, device=sh.device)
    return sh * sign


@lru_cache(1)
def _samples() -> tuple[Float[Tensor, "32 3"], Float[Tensor, "9 32"]]:
    """Directions, and what solves for the coefficients of a function from its values there."""
    sample = spread_directions(32)
    return sample, torch.linalg.pinv(sh_basis(sample))


def spread_directions(count: int) -> Float[Tensor, "{count} 3"]:
    """Directions spread evenly over the sphere (Fibonacci lattice)."""
    index = torch.arange(count, dtype=torch.float64)
    y = 1 - 2 * (index + 0.5) / count
    turn = index * math.pi * (3 - math.sqrt(5))
    ring = torch.sqrt(1 - y * y)
    return torch.stack((ring * torch.cos(turn), y, ring * torch.sin(turn)), dim=-1)


# --- Foreign conventions -------------------------------------------------------------------
# Each matrix M gives foreign = sh @ M.T for one colour. DPR and SfSNet multiply albedo with
# irradiance (lobe inside their basis), so their coefficients are radiance / pi.

# SfSNet (normal_harmonics.m): 1, z, x, y, 2z^2-x^2-y^2, xz, yz, x^2-y^2, xy.
_SFSNET_POSITION = (0, 2, 3, 1, 6, 7, 5, 8, 4)


def to_sfsnet(sh: Float[Tensor, "*batch 9"]) -> Float[Tensor, "*batch 9"]:
    """SfSNet's nine numbers, its normals being in our frame (3 x 9 flattens to its R, G, B)."""
    return sh[..., _SFSNET_POSITION] / math.pi


def from_sfsnet(light: Float[Tensor, "*batch 9"]) -> Float[Tensor, "*batch 9"]:
    """Our coefficients of SfSNet's, its normals being in our frame (reshape its 27 to 3 x 9)."""
    return math.pi * light[..., np.argsort(_SFSNET_POSITION).tolist()]


# DPR (utils_SH.py): order 1, Y, Z, X, YX, YZ, 3Z^2-1, XZ, X^2-Y^2 in the frame X right,
# Y into the scene, Z up. So X = x, Y = -z, Z = y: same basis, turned about x by 90 degrees.
_DPR_FRAME = ((1.0, 0.0, 0.0), (0.0, 0.0, -1.0), (0.0, 1.0, 0.0))


def to_dpr(sh: Float[Tensor, "*batch 9"]) -> Float[Tensor, "*batch 9"]:
    """DPR's nine numbers (Zhou et al. 2019; also Hou 2021)."""
    return rotate(sh, torch.tensor(_DPR_FRAME)) / math.pi


def from_dpr(light: Float[Tensor, "*batch 9"]) -> Float[Tensor, "*batch 9"]:
    """Our coefficients of DPR's nine numbers."""
    return rotate(light * math.pi, torch.tensor(_DPR_FRAME).T)


# DECA (also DiFaReli): order 1, x, y, z, xy, xz, yz, x^2-y^2, 3z^2-1, axes (9, 3), and a DC
# constant without the pi that its other eight carry.
_DECA_POSITION = (0, 3, 1, 2, 4, 7, 5, 8, 6)
_DECA_SCALE = (1.0,) + (math.pi,) * 8


def to_deca(sh: Float[Tensor, "*batch 3 9"]) -> Float[Tensor, "*batch 9 3"]:
    """DECA's light, axes (9 coefficients, 3 colours), its frame being ours."""
    scale = torch.tensor(_DECA_SCALE, dtype=sh.dtype, device=sh.device)
    return (sh[..., _DECA_POSITION] / scale).transpose(-1, -2)


def from_deca(light: Float[Tensor, "*batch 9 3"]) -> Float[Tensor, "*batch 3 9"]:
    """Our coefficients of DECA's light, axes (9 coefficients, 3 colours), its frame being ours."""
    scale = torch.tensor(_DECA_SCALE, dtype=light.dtype, device=light.device)
    ours = (light.transpose(-1, -2) * scale)[..., np.argsort(_DECA_POSITION).tolist()]
    return ours
