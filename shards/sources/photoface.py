"""Source `photoface`: the Photoface database, four lights a capture, one group per capture.

    ROOT/1001/2008-02-23_12-21-31/im0.bmp ... im3.bmp    the four photographs, gray
         |    |                   LightSource.m          zenith and azimuth of their lights
         |    capture             sn.mat                 px, py, pz: the parts of the normals
         person                   albedo.mat             a: the albedo
                                  mask.mat               optional, mask: other than 0 on the face

ROOT is the folder PhotofaceDB or the one above. The release brings the photographs, LightSource.m,
metadata.txt (landmarks) and metadataII.txt; its MATLAB function generateSNAndZ makes sn.mat, z.mat
and albedo.mat of them by photometric stereo. Where sn.mat or albedo.mat is missing, the portrait
has no labels but, from LightSource.m, the directions of its lights: --stereo makes the labels.

The set is given by the Bristol Robotics Laboratory (Centre for Machine Vision, UWE Bristol) for
research; cite Zafeiriou et al. 2011, "The Photoface Database". Faces of passers-by fill a part of
the picture: --align crops them.

Established, by what others' programs read: folders and names, 453 people, px, py and pz as unit
normals, `a` in gray levels, the contents of LightSource.m. Not found published, and therefore told
from the data of each capture: which way px and py point in the picture, which way azimuths run
(shards.layouts.axes: from the shape of the face), whether angles are degrees (some exceed 2 pi) and
which column is the zenith (the one that varies less: the lights surround the camera). The ways
found are in the provenance. Assumed: the rows of LightSource.m are im0 to im3 in order, and gray
levels are proportional to light, as the set's own photometric stereo takes them. Photographs that
this does not explain are refused: their brightness must follow normal . direction.

Labels: normals and albedo are the set's, 'real'. The strength of each light is fitted, which makes
the light label 'pseudo'; where LightSource.m is missing its direction is fitted as well. Only the
product of albedo and strength is in the photographs: strengths are scaled to a median of EXPOSURE,
so that albedos compare over the set. Confidence is one half where the photographs are a tenth of
the albedo off albedo * strength * (normal . direction), as in cast shadows. Values that are not
finite are outside the mask, and counted; they may not be a large part of the face.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Integer

from relightx.color import from_integer
from relightx.sample import Portrait, Provenance
from relightx.sh import directional_light
from shards.group import Group, faulty, key_of
from shards.labelling.lamps import check_agreement, fit_lamp, fit_strength, goodness
from shards.labelling.photometric_stereo import Surface, photometric_stereo
from shards.layouts.axes import axes, described
from shards.layouts.face_region import face_region
from shards.layouts.frames import read_frames
from shards.layouts.matlab import read_maps, read_matrix

NUM_LIGHTS = 4
EXPOSURE = 1.25
"""Median strength of the lights; puts the albedo of bright skin below 1, as in yaleb."""
MAX_MISSING = 0.2
"""Share of the face whose label may be missing."""

_PICTURE = re.compile(r"im(\d+)\.(bmp|png|tif|tiff)", re.IGNORECASE)


def photoface(root: Path) -> Iterator[Group]:
    """The captures under `root` by person and time.

    Raises ValueError for a root without people.
    """
    for person in _people(root):
        captures = _folders(person)
        if not captures:
            key = key_of(person.name)
            yield faulty(
                key, person.name, f"{person}: has no captures; a folder for each is needed"
            )
        for capture in captures:
            yield _found(capture, key_of(person.name, capture.name), person.name)


def _people(root: Path) -> list[Path]:
    needed = "a folder with one numbered folder per person, as in PhotofaceDB, is needed"
    if not root.is_dir():
        found = "is not a folder" if root.exists() else "does not exist"
        raise ValueError(f"{root}: {found}; {needed}")
    for folder in (root, root / "PhotofaceDB"):
        people = [entry for entry in _folders(folder) if entry.name.isdecimal()]
        if people:
            return people
    raise ValueError(f"{root}: no numbered folders in it; {needed}")


def _folders(folder: Path) -> list[Path]:
    """The folders in a folder by name; none where it does not exist."""
    if not folder.is_dir():
        return []
    return sorted(entry for entry in folder.iterdir() if entry.is_dir() and entry.name[0] != ".")


def _found(capture: Path, key: str, subject: str) -> Group:
    try:
        files = _pictures(capture)
    except ValueError as error:
        return faulty(key, subject, str(error))
    return Group(key, subject, len(files), partial(_read_capture, capture, key, subject))


def _pictures(capture: Path) -> list[Path]:
    """The four photographs in order."""
    files: dict[int, Path] = {}
    for file in sorted(capture.iterdir()):
        name = _PICTURE.fullmatch(file.name)
        if not name:
            continue
        number = int(name[1])
        if number >= NUM_LIGHTS:
            raise ValueError(f"{file}: is one too many; a capture has im0 to im3")
        if number in files:
            raise ValueError(f"{file}: light {number} is also in {files[number].name}")
        files[number] = file
    missing = [f"im{number}.bmp" for number in range(NUM_LIGHTS) if number not in files]
    if missing:
        raise ValueError(f"{capture}: {', '.join(missing)} missing; a capture has im0 to im3")
    return [files[number] for number in range(NUM_LIGHTS)]


def _read_capture(capture: Path, key: str, subject: str) -> Portrait:
    image = _read_gray(_pictures(capture))
    linear = from_integer(image[..., 0], "linear")
    lit = _lit(linear)
    direction, notes = _directions(capture / "LightSource.m", linear, lit)
    labels = [name for name in ("sn.mat", "albedo.mat") if not (capture / name).exists()]
    provenance = partial(
        Provenance,
        source="Photoface",
        licence="for research; cite Zafeiriou et al. 2011",
        transfer="linear",
    )
    portrait = partial(
        Portrait, key=key, subject=subject, image=image, light_name=("im0", "im1", "im2", "im3")
    )
    size = f"{image.shape[2]}x{image.shape[1]} as released, taken as linear"
    if labels:
        notes.append(f"no labels, as {' and '.join(labels)} is missing")
        return portrait(provenance=provenance(crop="; ".join((size, *notes))), direction=direction)
    labelled = _label(capture, linear, lit, direction)
    sh = torch.from_numpy(labelled.strength)[:, None] * directional_light(
        torch.from_numpy(labelled.direction)
    )
    return portrait(
        provenance=provenance(
            crop="; ".join((size, *notes, *labelled.notes)),
            albedo="real",
            normal="real",
            light="pseudo",
        ),
        albedo=np.repeat(np.clip(labelled.surface.albedo, 0, 1)[..., None], 3, axis=2),
        normal=labelled.surface.normal,
        mask=labelled.mask,
        confidence=labelled.surface.confidence,
        sh=sh[:, None].expand(-1, 3, -1).numpy(),
        direction=labelled.direction,
    )


def _read_gray(files: list[Path]) -> Integer[np.ndarray, "lights height width 1"]:
    """The photographs with one channel; colour files are gray ones written so."""
    image = read_frames(files)
    for file, frame in zip(files, image, strict=True):
        if (frame != frame[..., :1]).any():
            raise ValueError(f"{file}: is in colour; the photographs of this set are gray")
    return np.ascontiguousarray(image[..., :1])


def _lit(linear: Float[np.ndarray, "lights height width"]) -> Bool[np.ndarray, "height width"]:
    """Where the lights reach something: the person, not the dark behind."""
    brightest = linear.max(axis=0)
    return brightest > 0.25 * np.percentile(brightest, 90)


# --- The lights ----------------------------------------------------------------------------


def _directions(
    file: Path,
    linear: Float[np.ndarray, "lights height width"],
    lit: Bool[np.ndarray, "height width"],
) -> tuple[Float[np.ndarray, "lights 3"] | None, list[str]]:
    """Directions by LightSource.m in our frame, and how its azimuths run; None where missing.

    The lights give normals in the frame of their azimuths, and those normals must point outward.
    """
    if not file.exists():
        return None, ["LightSource.m missing"]
    zenith, azimuth = read_angles(file)
    across, along = np.sin(zenith) * np.cos(azimuth), np.sin(zenith) * np.sin(azimuth)
    toward = np.stack((across, along, np.cos(zenith)), axis=1).astype(np.float32)
    try:
        surface = photometric_stereo(linear, toward)
        check_agreement(linear, surface, lit, toward)
        mask = lit & (goodness(linear, surface, toward) > 0.5)
        way = axes(surface.normal[..., 0], surface.normal[..., 1], mask)
    except ValueError as error:
        raise ValueError(f"{file}: its lights do not explain the photographs: {error}") from None
    first, second = described(way)
    direction = np.concatenate((toward[:, :2] @ way.T, toward[:, 2:]), axis=1)
    return direction.astype(np.float32), [f"azimuth 0 {first} and 90 degrees {second}"]


def read_angles(
    file: Path,
) -> tuple[Float[np.ndarray, " lights"], Float[np.ndarray, " lights"]]:
    """Zenith and azimuth of the four lights, in radians, out of a LightSource.m.

    It sets a matrix with a row for each light, its zenith and azimuth. Raises ValueError naming the
    file for another content.
    """
    angles = read_matrix(file)
    if angles.shape == (2, NUM_LIGHTS):
        angles = angles.T
    if angles.shape != (NUM_LIGHTS, 2):
        raise ValueError(
            f"{file}: its matrix has {angles.shape[0]} rows of {angles.shape[1]}; zenith and"
            f" azimuth of {NUM_LIGHTS} lights are needed"
        )
    if np.abs(angles).max() > 2 * np.pi:
        angles = np.radians(angles)
    spread = np.ptp(angles, axis=0)
    zenith, azimuth = angles.T if spread[0] <= spread[1] else angles.T[::-1]
    if (zenith < 0).any() or (zenith > np.pi / 2).any():
        found = ", ".join(f"{angle:.0f}" for angle in np.degrees(zenith))
        raise ValueError(f"{file}: its zeniths are {found} degrees; 0 to 90 are needed")
    return zenith, azimuth


# --- The labels ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Labels:
    """What the set says of a capture, in our frame and scale, and what was found on the way."""

    surface: Surface
    mask: Bool[np.ndarray, "height width"]
    direction: Float[np.ndarray, "lights 3"]
    strength: Float[np.ndarray, " lights"]
    notes: tuple[str, ...]


def _label(
    capture: Path,
    linear: Float[np.ndarray, "lights height width"],
    lit: Bool[np.ndarray, "height width"],
    direction: Float[np.ndarray, "lights 3"] | None,
) -> Labels:
    size = linear.shape[1:]
    inside = lit
    if (capture / "mask.mat").exists():
        inside = np.nan_to_num(read_maps(capture / "mask.mat", ("mask",), size)["mask"]) != 0
        if not inside.any():
            raise ValueError(f"{capture / 'mask.mat'}: is 0 throughout; it needs the face")
    normal, notes = _read_normal(capture / "sn.mat", size, inside)
    albedo = _read_albedo(capture / "albedo.mat", size, inside)
    known = np.isfinite(normal).all(axis=-1) & np.isfinite(albedo)
    normal[~known], albedo[~known] = (0, 0, 1), 0
    surface = Surface(normal, albedo, confidence=known.astype(np.float32))
    surface, direction, strength = _fit_lights(capture, linear, surface, inside & known, direction)
    mask = inside
    if inside is lit:
        mask = face_region(linear, surface, direction, strength)
    mask = mask & known & (surface.normal[..., 2] > 0)
    if mask.mean() < 0.01:
        raise ValueError(f"{capture}: no face was found where its labels are known")
    try:
        check_agreement(linear, surface, mask, direction * strength[:, None])
    except ValueError as error:
        raise ValueError(f"{capture}: its labels do not explain the photographs: {error}") from None
    confidence = known * goodness(linear, surface, direction * strength[:, None])
    return Labels(
        surface=Surface(surface.normal, surface.albedo, confidence),
        mask=mask,
        direction=direction,
        strength=strength,
        notes=(*notes, f"{int((~known).sum())} pixels without finite labels outside the mask"),
    )


def _read_normal(
    file: Path, size: tuple[int, int], inside: Bool[np.ndarray, "height width"]
) -> tuple[Float[np.ndarray, "height width 3"], list[str]]:
    """Unit normals in our frame, not finite where unknown, and how px and py pointed."""
    found = read_maps(file, ("px", "py"), size, optional=("pz",))
    found = {name: np.where(np.isfinite(part), part, np.nan) for name, part in found.items()}
    first, second = found["px"], found["py"]
    # Without pz, it is what makes the length one; where px and py are too long, it is not a number.
    with np.errstate(invalid="ignore"):
        third = found.get("pz", np.sqrt(1 - first**2 - second**2))
    length = np.sqrt(first**2 + second**2 + third**2)
    length[length < 1e-6] = np.nan
    for name, values in (*found.items(), ("the length of the normals", length)):
        _check_share(file, name, values, inside)
    usual = float(np.median(length[inside & np.isfinite(length)]))
    if abs(usual - 1) > 0.1:
        raise ValueError(
            f"{file}: px, py and pz have a usual length of {usual:.2f}; unit normals are needed"
        )
    known = inside & np.isfinite(length)
    if np.median(third[known]) < 0:
        third = -third
    parts = [np.nan_to_num(part / length).astype(np.float32) for part in (first, second)]
    try:
        way = axes(*parts, known)
    except ValueError as error:
        raise ValueError(f"{file}: px and py cannot be laid over the picture: {error}") from None
    right, up = (
        sum(weight * part for weight, part in zip(line, parts, strict=True)) for line in way
    )
    normal = np.stack((right, up, third / length), axis=-1).astype(np.float32)
    normal[~np.isfinite(length)] = np.nan
    return normal, ["px {} and py {} in the picture".format(*described(way))]


def _read_albedo(
    file: Path, size: tuple[int, int], inside: Bool[np.ndarray, "height width"]
) -> Float[np.ndarray, "height width"]:
    """The albedo, its 99th percentile on the face scaled to 1; not finite where unknown."""
    albedo = read_maps(file, ("a",), size)["a"]
    _check_share(file, "a", albedo, inside)
    albedo = np.where(np.isfinite(albedo), albedo, np.nan)
    brightest = float(np.nanpercentile(albedo[inside], 99))
    if brightest <= 0:
        raise ValueError(f"{file}: a is not above 0 on the face; an albedo is needed")
    return np.maximum(albedo / brightest, 0).astype(np.float32)


def _check_share(
    file: Path,
    name: str,
    values: Float[np.ndarray, "height width"],
    inside: Bool[np.ndarray, "height width"],
) -> None:
    share = 1 - float(np.isfinite(values[inside]).mean())
    if share > MAX_MISSING:
        raise ValueError(
            f"{file}: {name} is not finite on {share:.0%} of the lit part of the picture or mask;"
            f" at most {MAX_MISSING:.0%} is allowed"
        )


def _fit_lights(
    capture: Path,
    linear: Float[np.ndarray, "lights height width"],
    surface: Surface,
    mask: Bool[np.ndarray, "height width"],
    direction: Float[np.ndarray, "lights 3"] | None,
) -> tuple[Surface, Float[np.ndarray, "lights 3"], Float[np.ndarray, " lights"]]:
    """Strength of each light, direction where it is not given, and the albedo at their scale."""
    if direction is None:
        lamps = [fit_lamp(image, surface, mask) for image in linear]
        strength = [None if lamp is None else float(np.linalg.norm(lamp)) for lamp in lamps]
    else:
        strength = [
            fit_strength(image, surface, toward, mask)
            for image, toward in zip(linear, direction, strict=True)
        ]
    for number, found in enumerate(strength):
        if found is None or found <= 0:
            raise ValueError(f"{capture}: the light of im{number} cannot be fitted to its labels")
    if direction is None:
        direction = np.stack(lamps) / np.array(strength)[:, None]
    scale = float(np.median(strength)) / EXPOSURE
    scaled = Surface(surface.normal, surface.albedo * np.float32(scale), surface.confidence)
    return scaled, direction.astype(np.float32), np.array(strength, np.float32) / np.float32(scale)
