"""Whether labels belong to their images: does albedo times shading give the photograph?

The residual of a portrait is the median over the pixels of its mask of |image - albedo * shade|,
meant over lights and colours, divided by the median of the image's own brightness: 0.004 for
rendered heads (sRGB of 8 bits), 0.06 to 0.12 for the frontal lights of Extended Yale B, with its
cast shadows and highlights, and up to 0.25 for all of its lights. A limit on it alone cannot tell
a face with shadows from a smooth one whose normals point down instead of up (0.11 and more), so
labels are also compared with others in their place:

- with themselves, misread in the ways in which labels are misread. Where one of these readings
  explains most images of a source far better, the labels are stored in it;
- with those of another subject and with the portrait's own lights in another order. Labels that
  explain their images no better than these do not belong to them.
"""

from array import array
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int

from relightx.color import from_integer, linear_to_srgb, srgb_to_linear
from relightx.sample import Portrait
from relightx.sh import (
    COSINE_LOBE,
    dominant_direction,
    from_deca,
    from_dpr,
    from_sfsnet,
    sh_basis,
)

MAX_RESIDUAL = 0.5
"""Above it labels cannot be those of the image; Extended Yale B has 0.25 in its worst portrait."""
MISREAD_RATIO, MISREAD_FLOOR = 0.6, 0.05
"""Another reading is the right one when it leaves less than this share of a residual that is not
small. In Extended Yale B no misreading leaves less than 2 times its residual."""
FOREIGN_RATIO, FOREIGN_FLOOR = 0.75, 0.1
"""Labels must leave less than this share of what foreign labels leave; 0.3 in Extended Yale B."""
OUTLIER_FACTOR, OUTLIER_FLOOR = 5.0, 0.15
"""A portrait whose residual is so many times its source's median has labels of its own fault."""
MIN_COSINE = 0.5
"""Between a light's stated direction and the one its harmonics are brightest from, at the median"""
MIRRORED_COSINE = 0.98
"""A mirrored direction agrees with the harmonics when it is so close, as it is where it is true."""
WORST = 5
"""Portraits with the largest residuals that are named."""
_PIXELS = 1024
"""Of a portrait, spread over its mask: enough for a median, and quick."""
_SMALLEST = 1e-6
_UNIFORM = 0.05
"""Linear band of a light by its constant, below which it has no direction to speak of."""


class Labelled(NamedTuple):
    """Some pixels of a portrait with their labels.

    image: linear. sh: of each light.
    """

    image: Float[np.ndarray, "lights 3 pixels"]
    albedo: Float[np.ndarray, "3 pixels"]
    normal: Float[np.ndarray, "3 pixels"]
    sh: Float[np.ndarray, "lights 3 9"]

    def residual(self) -> float:
        """What albedo * shade(normal, sh) leaves of the image, relative to its brightness."""
        # As relightx.sh.shade, which for a row of pixels takes ten times as long.
        basis = sh_basis(torch.from_numpy(self.normal).T).numpy()
        shading = (self.sh * np.float32(COSINE_LOBE)).reshape(-1, 9) @ basis.T
        relit = np.clip(self.albedo * shading.reshape(self.image.shape), 0, 1)
        left = np.median(np.abs(relit - self.image).mean((0, 1)))
        return float(left / max(np.median(self.image.mean((0, 1))), _SMALLEST))


def _mirrored(axis: int) -> Callable[[Labelled], Labelled]:
    sign = np.ones((3, 1), np.float32)
    sign[axis] = -1
    return lambda held: held._replace(normal=held.normal * sign)


def _light(convert: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Labelled], Labelled]:
    return lambda held: held._replace(sh=convert(torch.from_numpy(held.sh)).numpy())


MISREADINGS: dict[str, Callable[[Labelled], Labelled]] = {
    "the normals had x to the left": _mirrored(0),
    "the normals had y down": _mirrored(1),
    "the normals had z away from the camera": _mirrored(2),
    "the light were in SfSNet's order (relightx.sh.from_sfsnet)": _light(from_sfsnet),
    "the light were in DPR's order (relightx.sh.from_dpr)": _light(from_dpr),
    "the light were in DECA's order (relightx.sh.from_deca)": _light(
        lambda sh: from_deca(sh.reshape(-1, 9, 3))
    ),
    "the light were pi times as strong": _light(lambda sh: sh * np.pi),
    "the light were pi times weaker": _light(lambda sh: sh / np.pi),
    "each light were that of the next image": _light(lambda sh: sh.roll(1, 0)),
    "each light were that of the image before": _light(lambda sh: sh.roll(-1, 0)),
    "the light's colours were in the order blue, green, red": _light(lambda sh: sh.flip(-2)),
    "the albedo's colours were in the order blue, green, red": lambda held: held._replace(
        albedo=held.albedo[::-1]
    ),
    "the albedo were stored as sRGB": lambda held: held._replace(
        albedo=srgb_to_linear(held.albedo)
    ),
    "the images were stored as sRGB": lambda held: held._replace(image=srgb_to_linear(held.image)),
    "the images were stored as linear light": lambda held: held._replace(
        image=linear_to_srgb(held.image)
    ),
}
"""If ..., and it was stored so by mistake: labels as they would have to be read."""
_FOREIGN = ("those of another subject", "its lights in another order")
_MIRRORS = ("x", "y", "z")
_COLUMNS = 1 + len(MISREADINGS) + len(_FOREIGN) + 1 + len(_MIRRORS)


class Agreement(NamedTuple):
    """How well the labels of one portrait agree; NaN for what it does not have.

    is_real: no label is an estimate. residual: see the module. misread: residual of each of
    `MISREADINGS`. foreign: of another subject's labels and of the lights in another order.
    cosine: between stated and brightest direction of a light, at the median. mirrored: the same
    with x, y or z of the stated direction turned.
    """

    source: str
    is_real: bool
    residual: float
    misread: tuple[float, ...]
    foreign: tuple[float, ...]
    cosine: float
    mirrored: tuple[float, ...]


def agreement(portrait: Portrait, other: Portrait | None = None) -> Agreement | None:
    """How well a portrait's labels agree; None when there is nothing to compare.

    other: a portrait of another subject, whose labels should explain this one worse.
    """
    has = portrait.provenance
    real = {has.albedo, has.normal, has.light} == {"real"}
    pixels = _chosen_pixels(portrait)
    held = _labelled(portrait, portrait, pixels)
    nothing = (float("nan"),)
    residual, misread, foreign = nothing[0], nothing * len(MISREADINGS), nothing * len(_FOREIGN)
    if held is not None:
        residual = held.residual()
        misread = tuple(read(held).residual() for read in MISREADINGS.values())
        theirs = _labelled(portrait, other, pixels) if other is not None else None
        turned = held._replace(sh=np.roll(held.sh, max(1, len(held.sh) // 2), axis=0))
        foreign = (
            theirs.residual() if theirs is not None else nothing[0],
            turned.residual() if len(held.sh) > 1 else nothing[0],
        )
    cosine, *mirrored = _cosines(portrait)
    if held is None and np.isnan(cosine):
        return None
    return Agreement(has.source, real, residual, misread, foreign, cosine, tuple(mirrored))


@dataclass(frozen=True)
class SourceAgreement:
    """How well the labels of one source agree.

    portraits: with all labels. median: of their residuals, NaN when there are none. worst: key and
    residual of the largest. cosine: median over portraits, NaN when lights have no directions.
    """

    source: str
    portraits: int
    median: float
    worst: tuple[tuple[str, float], ...]
    cosine: float

    def __str__(self) -> str:
        parts = []
        if self.portraits:
            worst = ", ".join(f"{key} {residual:.3f}" for key, residual in self.worst)
            parts.append(
                f"|image - albedo x shading| is {self.median:.3f} of the brightness at the median"
                f" of {self.portraits} portraits; most in {worst}"
            )
        if not np.isnan(self.cosine):
            parts.append(f"light directions agree with the harmonics to a cosine {self.cosine:.3f}")
        return f"{self.source}: " + "; ".join(parts)


class Agreements:
    """The agreement of every portrait, by source; a few numbers of each are kept."""

    def __init__(self) -> None:
        self._rows: dict[str, array] = defaultdict(lambda: array("f"))
        self._keys: dict[str, list[str]] = defaultdict(list)
        self._real: dict[str, bytearray] = defaultdict(bytearray)

    def add(self, key: str, found: Agreement) -> None:
        """Note one portrait."""
        self._keys[found.source].append(key)
        self._real[found.source].append(found.is_real)
        self._rows[found.source].extend(
            (found.residual, *found.misread, *found.foreign, found.cosine, *found.mirrored)
        )

    def summaries(self) -> list[SourceAgreement]:
        """What to tell of each source."""
        return [self._summary(source) for source in sorted(self._rows)]

    def faults(self) -> Iterator[tuple[str, str, str]]:
        """(source, key or '' for all, what is wrong): labels that cannot be those of the images."""
        for source in sorted(self._rows):
            # A misread light turns away from its direction too: one cause, one fault.
            whole = [*self._wrong_labels(source)] or [*self._wrong_directions(source)]
            yield from ((source, "", message) for message in whole)
            if not whole:
                yield from self._outliers(source, real=True)

    def warnings(self) -> Iterator[tuple[str, str, str]]:
        """The same of labels that are estimates, which may fail in some portraits."""
        for source in sorted(self._rows):
            yield from self._outliers(source, real=False)

    def _table(self, source: str) -> Float[np.ndarray, "portraits columns"]:
        return np.frombuffer(self._rows[source], np.float32).reshape(-1, _COLUMNS)

    def _summary(self, source: str) -> SourceAgreement:
        residual = self._table(source)[:, 0]
        order = np.argsort(np.where(np.isnan(residual), -1, residual))[::-1][:WORST]
        worst = [(self._keys[source][i], float(residual[i])) for i in order]
        return SourceAgreement(
            source=source,
            portraits=int((~np.isnan(residual)).sum()),
            median=_median(residual),
            worst=tuple(pair for pair in worst if not np.isnan(pair[1])),
            cosine=_median(self._table(source)[:, 1 + len(MISREADINGS) + len(_FOREIGN)]),
        )

    def _wrong_labels(self, source: str) -> Iterator[str]:
        table = self._table(source)
        residual, misread = table[:, 0], table[:, 1 : 1 + len(MISREADINGS)]
        foreign = table[:, 1 + len(MISREADINGS) :][:, : len(_FOREIGN)]
        median = _median(residual)
        left = [_median(column / np.maximum(residual, _SMALLEST)) for column in misread.T]
        best = int(np.argmin(np.where(np.isnan(left), np.inf, left)))
        if median > MISREAD_FLOOR and left[best] < MISREAD_RATIO:
            yield (
                f"albedo x shading is off by {median:.2f} of the images' brightness, and by"
                f" {_median(misread[:, best]):.2f} if {list(MISREADINGS)[best]}: convert the labels"
                " and build again"
            )
            return
        share = [_median(residual / np.maximum(column, _SMALLEST)) for column in foreign.T]
        nearest = int(np.argmax(np.where(np.isnan(share), -np.inf, share)))
        if median > FOREIGN_FLOOR and share[nearest] > FOREIGN_RATIO:
            yield (
                f"labels explain an image no better than {_FOREIGN[nearest]}: albedo x shading is"
                f" off by {median:.2f} of its brightness, with those by"
                f" {_median(foreign[:, nearest]):.2f}; the labels are not those of the images"
            )
            return
        if median > MAX_RESIDUAL:
            yield (
                f"albedo x shading is off by {median:.2f} of the images' brightness, at most"
                f" {MAX_RESIDUAL} can come from shadows and gloss: the labels are not those of the"
                " images, or in another convention"
            )

    def _wrong_directions(self, source: str) -> Iterator[str]:
        columns = self._table(source)[:, -1 - len(_MIRRORS) :].T
        cosine, *mirrored = (_median(column) for column in columns)
        best = int(np.argmax(np.where(np.isnan(mirrored), -np.inf, mirrored)))
        if mirrored[best] > MIRRORED_COSINE > cosine + 0.03:
            yield (
                f"light directions and light labels differ (cosine {cosine:.2f}) and agree with"
                f" {_MIRRORS[best]} of the directions turned ({mirrored[best]:.2f}); the frame is"
                " +x right in the image, +y up, +z to the camera"
            )
        elif cosine < MIN_COSINE:
            yield (
                f"light directions and light labels differ: their cosine is {cosine:.2f} at the"
                f" median, {MIN_COSINE} or more needed"
            )

    def _outliers(self, source: str, *, real: bool) -> Iterator[tuple[str, str, str]]:
        table = self._table(source)
        residual, cosine = table[:, 0], table[:, -1 - len(_MIRRORS)]
        median = _median(residual)
        limit = min(MAX_RESIDUAL, max(OUTLIER_FLOOR, OUTLIER_FACTOR * median))
        is_real = np.frombuffer(self._real[source], np.uint8).astype(bool)
        for number in np.flatnonzero((residual > limit) & (is_real == real)):
            yield (
                source,
                self._keys[source][number],
                f"albedo x shading is off by {residual[number]:.2f} of the brightness, at the"
                f" median of {source} by {median:.3f}: its labels are not those of its images",
            )
        if not real:
            for number in np.flatnonzero(cosine < MIN_COSINE):
                message = f"light directions and light labels differ: cosine {cosine[number]:.2f}"
                yield source, self._keys[source][number], message


def _median(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(np.median(known)) if len(known) else float("nan")


def _chosen_pixels(portrait: Portrait) -> Int[np.ndarray, "pixels"]:
    size = portrait.image.shape[1] * portrait.image.shape[2]
    inside = np.arange(size) if portrait.mask is None else np.flatnonzero(portrait.mask)
    return inside[:: max(1, -(-len(inside) // _PIXELS))]


def _labelled(
    portrait: Portrait, labels: Portrait, pixels: Int[np.ndarray, "pixels"]
) -> Labelled | None:
    """Images of one portrait with the labels of, perhaps, another."""
    if labels.albedo is None or labels.normal is None or labels.sh is None or not len(pixels):
        return None
    if labels.image.shape[1:3] != portrait.image.shape[1:3]:
        return None
    lights, _, _, channels = portrait.image.shape
    stored = portrait.image.reshape(lights, -1, channels)[:, pixels].swapaxes(1, 2)
    image = from_integer(np.ascontiguousarray(stored), portrait.provenance.transfer)
    if np.median(image.mean((0, 1))) <= 0:
        return None
    return Labelled(
        image=np.repeat(image, 3 // channels, axis=1),
        albedo=np.ascontiguousarray(labels.albedo.reshape(-1, 3)[pixels].T),
        normal=np.ascontiguousarray(labels.normal.reshape(-1, 3)[pixels].T),
        sh=np.resize(labels.sh, (lights, 3, 9)),
    )


def _cosines(portrait: Portrait) -> list[float]:
    """Between the lights' directions and where their harmonics are brightest, then mirrored."""
    none = [float("nan")] * (1 + len(_MIRRORS))
    if portrait.direction is None or portrait.sh is None:
        return none
    strength = np.abs(portrait.sh[:, :, 0]).mean(1)
    linear = np.linalg.norm(portrait.sh[:, :, 1:4].mean(1), axis=1)
    directed = linear > _UNIFORM * np.maximum(strength, _SMALLEST)
    if not directed.any():
        return none
    brightest = dominant_direction(torch.from_numpy(portrait.sh[directed])).numpy()
    signs = np.concatenate([np.ones((1, 3)), 1 - 2 * np.eye(3)]).astype(np.float32)
    cosine = np.einsum("lk,sk,lk->sl", portrait.direction[directed], signs, brightest)
    return np.median(cosine, axis=1).tolist()
