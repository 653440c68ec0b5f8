"""Lights of a still portrait that nobody measured: their strengths, or their directions as well.

`estimate_strengths` needs the directions and is unique up to one factor.

`estimate_lights` needs nothing and cannot be unique. Lambert's law factors the images into surface
and lights up to an invertible 3 x 3 matrix (Hayakawa 1994). That the normals belong to a surface
leaves three of its nine numbers open (Yuille and Snow 1997): images of a face are also images of
the face flattened and sheared, painted and lit to suit. This is the generalised bas-relief
ambiguity (Belhumeur, Kriegman and Yuille 1999), and no method can see through it from the images.
A member of the family is therefore chosen by what is usual, and `MEMBER` says so wherever the
answer is stored:

    the one whose albedo is most nearly the same everywhere (of least entropy, as Alldrin, Mallick
    and Kriegman 2007 have it) and, with less say, whose lights are most nearly of one strength;
    convex, turned to the camera.

The components of a light along the picture are found from the images, up to one factor; its
component toward the camera is the choice. On the 28 subjects of Extended Yale B, 37 frontal lights
each, lights are 4.5 degrees off in the median (10.6 for the worst subject) and normals 6 off those
from the known lights; the best member of each family would have lights 3.2 off. With all 64
lights, of which many shine from the side, lights are 7 off.
"""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float
from scipy.optimize import minimize

from shards.labelling.photometric_stereo import MIN_LIGHTS, fit_pixels

MEMBER = "most nearly constant albedo, then light strength; convex"
"""Which member of the bas-relief family `estimate_lights` picks, for provenances."""
FEWEST_LIGHTS = 10
"""With fewer, the noise of real skin hides which normals belong to a surface."""
SIDE_PX = 96
"""Lights are estimated on the picture reduced to this size."""
ROUNDS = 12
SMOOTHING_PX = 2
"""Blur of the normals before their derivatives are taken, at the reduced size."""
SPREAD = 0.2
"""Deviation of log albedo and of log strength from the usual that is expected."""
STRENGTH_SAY = 0.3
"""Weight of the lights' strengths against albedo in the choice of the member."""
MAX_RATIO = 20
"""Largest strength that is found, relative to the usual."""
SOME = 4000
"""Pixels that are enough for a choice of few numbers."""
DARK = 0.02
"""A pixel below this under its brightest light tells nothing."""
MIN_PIXELS = 100
FLAT = 0.05
"""Extent of the directions found, relative to the largest, below which nothing was found."""


@dataclass(frozen=True)
class EstimatedLights:
    """Lights that explain the images, up to the bas-relief ambiguity.

    direction: unit vectors; +x right in the image, +y up, +z to the camera.
    strength: relative, median 1.
    member: which of all equally good explanations this is.
    """

    direction: Float[np.ndarray, "lights 3"]
    strength: Float[np.ndarray, " lights"]
    member: str = MEMBER


def estimate_lights(
    image: Float[np.ndarray, "lights height width"],
    mask: Bool[np.ndarray, "height width"] | None = None,
    saturation: float = 0.98,
) -> EstimatedLights:
    """Direction and strength of each light, known only up to the bas-relief ambiguity.

    image: linear light in [0, 1], one picture per light, aligned. mask: True on the portrait; None
    means everywhere that is not dark.
    Raises ValueError for fewer than 10 lights, images that are not finite or nearly black, and
    images that lights of different directions do not explain.
    """
    if len(image) < FEWEST_LIGHTS:
        raise ValueError(f"{len(image)} lights; {FEWEST_LIGHTS} needed to estimate directions")
    small, region = _reduced(image, mask, saturation)
    try:
        toward = _toward(small, region, saturation)
    except np.linalg.LinAlgError:  # the same picture again and again
        toward = np.zeros((len(image), 3))
    strength = np.linalg.norm(toward, axis=1)
    direction = toward / np.maximum(strength, 1e-12)[:, None]
    extent = np.linalg.svd(direction, compute_uv=False)
    if not extent[2] > FLAT * extent[0]:
        raise ValueError("lights in different directions do not explain the images")
    return EstimatedLights(
        direction=direction.astype(np.float32),
        strength=(strength / np.median(strength)).astype(np.float32),
    )


def estimate_strengths(
    image: Float[np.ndarray, "lights height width"],
    direction: Float[np.ndarray, "lights 3"],
    mask: Bool[np.ndarray, "height width"] | None = None,
    saturation: float = 0.98,
) -> Float[np.ndarray, " lights"]:
    """Relative strength, median 1, of lights whose directions are known.

    Images divided by the right strengths are, at each pixel, linear in the directions. Real skin
    is not quite Lambertian, and strengths that grow along the picture imitate a tilt of all
    normals, so strengths are drawn to equality as far as the images leave them undecided. Three
    lights tell nothing: all 1.
    On Extended Yale B with lights made unequal by up to 2.2, normals are 3 degrees off in the
    median with 37 lights, 6 with 16, 6 with 9 and 10 with 4; with strengths taken as equal it would
    be 8, 12, 13 and 21, with the true ones 1, 3, 5 and 5. Where the lights are equal, it costs 1.
    Raises ValueError for images that are not finite or nearly black.
    """
    strength = np.ones(len(direction), np.float32)
    if len(direction) < MIN_LIGHTS:
        return strength
    small, region = _reduced(image, mask, saturation)
    pixel = small[:, region]
    pixel = np.ascontiguousarray(pixel[:, :: max(1, pixel.shape[1] // SOME)])
    for _ in range(ROUNDS // 2):
        lamp = (direction * strength[:, None]).astype(np.float32)
        weight = fit_pixels(pixel, lamp, saturation).weight.astype(np.float64)
        inverse = _likely_inverse(*_outside(pixel, direction.astype(np.float64), weight))
        strength = (1 / inverse).astype(np.float32)
    return strength


def _reduced(
    image: Float[np.ndarray, "lights height width"],
    mask: Bool[np.ndarray, "height width"] | None,
    saturation: float,
) -> tuple[Float[np.ndarray, "lights rows columns"], Bool[np.ndarray, "rows columns"]]:
    """Images at the size of the estimate, and the pixels to use; saturated stays saturated."""
    if not np.isfinite(image).all():
        raise ValueError("the images have values that are not finite; linear light needed")
    height, width = image.shape[1:]
    factor = min(1, SIDE_PX / max(height, width))
    size = max(1, round(width * factor)), max(1, round(height * factor))
    small = np.stack([cv2.resize(picture, size, interpolation=cv2.INTER_AREA) for picture in image])
    for picture, full in zip(small, image, strict=True):
        burnt = cv2.resize((full >= saturation).astype(np.float32), size, 0, 0, 0, cv2.INTER_AREA)
        picture[burnt > 0] = 1
    region = small.max(axis=0) > DARK
    if mask is not None:
        region &= cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_AREA) > 0.9
    if region.sum() < MIN_PIXELS:
        raise ValueError(
            f"{region.sum()} pixels of {size[0]}x{size[1]} are on the portrait and not black;"
            f" {MIN_PIXELS} needed to find lights"
        )
    return small, region


def _toward(
    image: Float[np.ndarray, "lights rows columns"],
    region: Bool[np.ndarray, "rows columns"],
    saturation: float,
) -> Float[np.ndarray, "lights 3"]:
    """Direction times strength of each light, of the chosen member."""
    lamp, scaled, weight = _factorise(image[:, region], saturation)
    trust = _trust(weight)
    grid = np.zeros((4, *region.shape), np.float32)
    grid[:, region] = np.concatenate((scaled, trust[None]))
    plane = _integrable_plane(grid[:3], grid[3])
    plane = plane * _convex_sign(plane, lamp, grid[:3], grid[3])
    return lamp @ _member(plane, lamp, scaled[:, trust > 0]).T


def _factorise(
    pixel: Float[np.ndarray, "lights num"], saturation: float
) -> tuple[
    Float[np.ndarray, "lights 3"], Float[np.ndarray, "3 num"], Float[np.ndarray, "lights num"]
]:
    """Lights, surface and weights with pixel = lights @ surface where the weight is not zero.

    Both are right up to an invertible matrix. Surface and lights are fitted in turn; the surface
    robustly, as with known lights, from the factors of the singular value decomposition.
    """
    left, size, _ = np.linalg.svd(pixel @ pixel.T)
    lamp = left[:, :3] * np.sqrt(size[:3])
    for _ in range(ROUNDS):
        lamp = _conditioned(lamp)
        scaled, _, weight = fit_pixels(pixel, lamp, saturation)
        scaled = scaled.astype(np.float64)
        normal = np.einsum("ip,lp,jp->lij", scaled, weight, scaled, optimize=True)
        right = np.einsum("ip,lp->li", scaled, weight * pixel)
        ridge = 1e-9 * np.trace(normal, axis1=1, axis2=2)[:, None, None] * np.eye(3) + 1e-12
        lamp = np.linalg.solve(normal + ridge, right[..., None])[..., 0]
        # The surface becomes round, so that "lit" and "shadow" mean the same in all directions.
        lamp = lamp @ np.linalg.cholesky(scaled @ scaled.T / scaled.shape[1] + 1e-9 * np.eye(3))
    lamp = _conditioned(lamp)
    scaled, _, weight = fit_pixels(pixel, lamp, saturation)
    return lamp.astype(np.float64), scaled.astype(np.float64), weight


def _conditioned(lamp: Float[np.ndarray, "lights 3"]) -> Float[np.ndarray, "lights 3"]:
    """The lights at a usual length of 1."""
    return (lamp / np.sqrt((lamp * lamp).sum(axis=1).mean())).astype(np.float32)


def _trust(weight: Float[np.ndarray, "lights num"]) -> Float[np.ndarray, " num"]:
    """One for pixels that a quarter of the lights, and more than determine it, agree on."""
    lights = len(weight)
    agreeing = (weight > 0.5).sum(axis=0)
    return (agreeing >= max(MIN_LIGHTS, lights / 4)).astype(np.float32)


def _integrable_plane(
    scaled: Float[np.ndarray, "3 rows columns"], trust: Float[np.ndarray, "rows columns"]
) -> Float[np.ndarray, "2 3"]:
    """Rows that turn a light of the factorisation into its components along x and y.

    For the true surface the slope across x grows along y as the slope across y grows along x. In
    terms of a surface m known up to a matrix this is linear in two rows of the matrix's cofactors,
    row_x . (m x dm/dx) + row_y . (m x dm/dy) = 0, whatever the albedo; and lights turn by the
    cofactors. Found up to a common factor of either sign, robust to edges.
    """
    share = cv2.GaussianBlur(trust, (0, 0), SMOOTHING_PX)
    smooth = np.stack([cv2.GaussianBlur(part * trust, (0, 0), SMOOTHING_PX) for part in scaled])
    unit = smooth.astype(np.float64) / np.maximum(np.linalg.norm(smooth, axis=0), 1e-9)
    along_x = (unit[:, 1:-1, 2:] - unit[:, 1:-1, :-2]) / 2
    along_y = (unit[:, :-2, 1:-1] - unit[:, 2:, 1:-1]) / 2
    inside = cv2.erode((share > 0.5).astype(np.uint8), np.ones((3, 3), np.uint8))[1:-1, 1:-1] > 0
    middle = unit[:, 1:-1, 1:-1]
    curl = np.concatenate(
        [np.cross(middle, along, axis=0)[:, inside] for along in (along_x, along_y)]
    )
    if curl.shape[1] < MIN_PIXELS:
        raise ValueError("lights in different directions do not explain the images")
    weight = np.ones(curl.shape[1])
    for _ in range(ROUNDS):
        plane = np.linalg.eigh((curl * weight) @ curl.T)[1][:, 0]
        error = np.abs(plane @ curl)
        weight = 1 / (1 + (error / (2 * np.median(error) + 1e-12)) ** 2)
    return plane.reshape(2, 3)


def _convex_sign(
    plane: Float[np.ndarray, "2 3"],
    lamp: Float[np.ndarray, "lights 3"],
    scaled: Float[np.ndarray, "3 rows columns"],
    trust: Float[np.ndarray, "rows columns"],
) -> int:
    """1, or -1 where the surface that belongs to `plane` is hollow: normals point to the middle."""
    rows, columns = np.nonzero(trust)
    normal = _surface(
        plane, _ahead(plane, lamp, scaled[:, rows, columns]), scaled[:, rows, columns]
    )
    normal = normal / np.linalg.norm(normal, axis=0)
    outward = (columns - columns.mean()) * normal[0] - (rows - rows.mean()) * normal[1]
    return 1 if outward.sum() > 0 else -1


def _ahead(
    plane: Float[np.ndarray, "2 3"],
    lamp: Float[np.ndarray, "lights 3"],
    scaled: Float[np.ndarray, "3 num"],
) -> Float[np.ndarray, "3"]:
    """A third row to begin with: lights as spread ahead as aside, the surface turned to us."""
    row = np.cross(plane[0], plane[1])
    row *= np.linalg.norm(lamp @ plane.T) / np.sqrt(2) / max(np.linalg.norm(lamp @ row), 1e-12)
    return row * np.sign(np.median(_surface(plane, row, scaled)[2]))


def _surface(
    plane: Float[np.ndarray, "2 3"], row: Float[np.ndarray, "3"], scaled: Float[np.ndarray, "3 num"]
) -> Float[np.ndarray, "3 num"]:
    """Albedo * normal when lights turn by the rows of plane and row."""
    return np.linalg.inv(np.vstack((plane, row))).T @ scaled


def _member(
    plane: Float[np.ndarray, "2 3"],
    lamp: Float[np.ndarray, "lights 3"],
    scaled: Float[np.ndarray, "3 num"],
) -> Float[np.ndarray, "3 3"]:
    """The matrix that turns the lights of the factorisation into those of the chosen member."""
    some = scaled[:, :: max(1, scaled.shape[1] // SOME)]

    def unusual(row: Float[np.ndarray, "3"]) -> float:
        matrix = np.vstack((plane, row))
        if np.linalg.cond(matrix) > 1e6:
            return np.inf
        surface = _surface(plane, row, some)
        return _dispersion(surface) + STRENGTH_SAY * _dispersion((lamp @ matrix.T).T)

    start = _ahead(plane, lamp, some)
    found = [_minimum(unusual, start * depth) for depth in (0.4, 0.7, 1.2, 2)]
    row = min(found, key=unusual)
    return np.vstack((plane, row * np.sign(np.median(_surface(plane, row, some)[2]))))


def _dispersion(vector: Float[np.ndarray, "3 num"]) -> float:
    """How far the logarithms of lengths are from one value; bounded influence for each."""
    log_length = 0.5 * np.log((vector * vector).sum(axis=0) + 1e-12)
    deviation = (log_length - np.median(log_length)) / SPREAD
    return float(np.log1p(deviation * deviation).mean())


def _minimum(
    function: Callable[[Float[np.ndarray, "3"]], float], start: Float[np.ndarray, "3"]
) -> Float[np.ndarray, "3"]:
    """A local minimum by the simplex method, which needs no derivative of medians."""
    steps = 0.3 * np.linalg.norm(start) * np.eye(3)
    simplex = np.vstack((start, start + steps))
    options = {"initial_simplex": simplex, "maxiter": 300, "xatol": 1e-4, "fatol": 1e-5}
    return minimize(function, start, method="Nelder-Mead", options=options).x


def _outside(
    pixel: Float[np.ndarray, "lights num"],
    direction: Float[np.ndarray, "lights 3"],
    weight: Float[np.ndarray, "lights num"],
) -> tuple[Float[np.ndarray, "lights lights"], Float[np.ndarray, " lights"]]:
    """The form whose value at inverse strengths is what of the images lies outside the plane.

    The plane is what is linear in the directions, at each pixel; the second answer is the diagonal
    form of all there is, in or outside.
    """
    total = np.einsum("lp,lp,lp->l", weight, pixel, pixel, optimize=True)
    gram = np.einsum("li,lp,lj->pij", direction, weight, direction, optimize=True)
    half = np.linalg.inv(np.linalg.cholesky(gram + 1e-6 * np.eye(3)))
    inside = np.einsum("lp,li,pki->lpk", weight * pixel, direction, half, optimize=True)
    inside = inside.reshape(len(pixel), -1)
    return np.diag(total) - inside @ inside.T, total


def _likely_inverse(
    outside: Float[np.ndarray, "lights lights"], total: Float[np.ndarray, " lights"]
) -> Float[np.ndarray, " lights"]:
    """Inverse strengths, median 1, that leave little outside and are not far from equal.

    What is little is told by the strengths that leave least, whatever they are.
    """
    unit = 1 / np.sqrt(np.maximum(total, 1e-12))
    least = np.linalg.eigvalsh(unit[:, None] * outside * unit)[0]
    noise = max(least, 1e-9) * max(total.mean(), 1e-12)
    matrix = np.eye(len(total)) + SPREAD**2 / noise * outside
    inverse = np.linalg.solve(matrix, np.ones(len(total)))
    return np.maximum(inverse / np.median(inverse), 1 / MAX_RATIO)
