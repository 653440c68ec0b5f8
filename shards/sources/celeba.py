"""Source `celeba`: CelebA and CelebA-HQ, one photograph a portrait, with or without pseudo-labels.

ROOT is the folder of the pictures, or one that holds one of these:

    Img/img_align_celeba/000001.jpg ... 202599.jpg    aligned and cropped, 178x218 JPEG
    img_align_celeba/ (also twice, as Kaggle has it)  the same
    Img/img_align_celeba_png/000001.png               the same as PNG
    Img/img_celeba/000001.jpg                         in the wild: use --align
    CelebA-HQ-img/0.jpg ... 29999.jpg                 CelebA-HQ as CelebAMask-HQ has it, 1024x1024

or, given as ROOT itself, imgHQ00000.png (.jpg, or .npy of 1x3x1024x1024 uint8) as the tools that
make CelebA-HQ leave it, or 00001.jpg, the resized copies that go about.

CelebA is given by the Multimedia Laboratory of the Chinese University of Hong Kong
(mmlab.ie.cuhk.edu.hk/projects/CelebA.html) for non-commercial research, without redistribution;
cite Liu 2015. CelebA-HQ: Karras 2018; CelebAMask-HQ: Lee 2020 (github.com/switchablenorms). The
pictures are the Internet's, so `srgb` is the best that can be said of their transfer function.

A person is an identity of identity_CelebA.txt (10,177; given on request), which is looked for
beside the pictures and in the folders Anno and Eval around them, or is given by --identities.
CelebA-HQ needs CelebA-HQ-to-CelebA-mapping.txt (--mapping) as well. A picture whose person nothing
tells is a subject of its own: then splits by subject can share people. The number of 00001.jpg may
not be that of CelebA-HQ, whose records are shuffled, so no person is looked up for such a copy.

The official partition (list_eval_partition.txt, beside the pictures or by --partition) is written
into the provenance. To split by it, make a split file first:

    python -m shards.layouts.celeba_split --in ROOT --out celeba.json
    relightx-shards build celeba --in ROOT --split-file celeba.json ...

--pseudolabels DIR attaches what `relightx pseudolabel` wrote for shards of this source:
KEY.albedo.png, KEY.normal.png, KEY.light.json, and optionally KEY.mask.png and KEY.confidence.png,
in the size of the picture here; where the shards were built with --align, in the original's. They
are 'pseudo'. Without a confidence picture the confidence of light.json holds for every pixel.
Portraits of which DIR has nothing are kept without labels, or passed over with --unlabelled skip;
one of which a file is missing or has another size is skipped and reported.
"""

import os
import re
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Integer

from relightx.picture import read_picture
from relightx.sample import MAX_SIDE_PX, Portrait, Provenance
from shards.group import Group, faulty, key_of
from shards.layouts.celeba_tables import (
    HQ_NAMES,
    IDENTITY_NAMES,
    PARTITION_NAMES,
    People,
    find_table,
    read_partition,
    read_people,
)
from shards.layouts.pseudolabels import (
    Pseudolabels,
    labelled_keys,
    open_pseudolabels,
    with_pseudolabels,
)

FOLDERS = (
    "img_align_celeba",
    "img_align_celeba_png",
    "img_celeba",
    "CelebA-HQ-img",
)
PLACES = (
    "",
    *(f"{above}{name}" for above in ("", "Img/", "CelebAMask-HQ/") for name in FOLDERS),
    *(f"{name}/{name}" for name in FOLDERS),
)
"""Where a folder of pictures may be below ROOT."""

_CELEBA = re.compile(r"(\d{6})\.(?:jpg|png)")
_HQ = re.compile(r"(?:imgHQ(\d{5})|(0|[1-9]\d{0,4}))\.(?:jpg|png|npy)")
_COPY = re.compile(r"(\d{5})\.(?:jpg|png)")
_PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".npy", ".bmp", ".webp", ".tif", ".tiff")


class Listing(NamedTuple):
    """The pictures that were found.

    name: of each file, by number. hq: whether they are CelebA-HQ's; numbered: and have its numbers.
    """

    directory: Path
    names: list[str]
    strangers: list[str]
    hq: bool
    numbered: bool

    def key(self, name: str) -> str:
        if not self.hq:
            return f"celeba_{_stem(name)}"
        return f"celebahq_{int(_stem(name)):05d}"

    def subject(self, name: str, people: People) -> str:
        stem = _stem(name)
        if not self.hq:
            return people.of_celeba(stem)
        return people.of_hq(int(stem)) if self.numbered else f"celebahq-copy{stem}"

    def original(self, name: str, people: People) -> str | None:
        """Stem of the picture in CelebA, as far as it is known."""
        if not self.hq:
            return _stem(name)
        return people.original.get(int(_stem(name))) if self.numbered else None


def celeba(
    root: Path,
    *,
    identities: Path | None = None,
    mapping: Path | None = None,
    partition: Path | None = None,
    pseudolabels: Path | None = None,
    unlabelled: Literal["keep", "skip"] = "keep",
) -> Iterator[Group]:
    """The pictures under `root` by number.

    Raises ValueError for a root without pictures or with several sets of them, for broken tables
    and for pseudo-labels that are unfinished or of other pictures.

    Args:
        identities: identity_CelebA.txt, when it is not beside the pictures
        mapping: CelebA-HQ-to-CelebA-mapping.txt, when it is not beside the pictures
        partition: list_eval_partition.txt, when it is not beside the pictures
        pseudolabels: folder that `relightx pseudolabel` wrote
        unlabelled: what becomes of pictures without pseudo-labels, where --pseudolabels is given
    """
    found = list_pictures(root)
    people = find_people(found, identities, mapping)
    parts = find_partition(found, partition)
    labels = None if pseudolabels is None else open_pseudolabels(pseudolabels)
    keys = set() if labels is None else labelled_keys(labels, map(found.key, found.names))
    for name in found.strangers:
        fault = f"{found.directory / name}: a picture that is not named like those beside it"
        yield faulty(key_of("celeba", name), f"celeba-file {name}", fault)
    for before, name in pairwise(["", *found.names]):
        key, subject = found.key(name), found.subject(name, people)
        if before and found.key(before) == key:
            fault = f"{found.directory / name}: the same picture is there as {before}"
            yield faulty(f"{key}-{Path(name).suffix[1:]}", subject, fault)
            continue
        if labels is not None and key not in keys and unlabelled == "skip":
            continue
        part = parts.get(found.original(name, people) or "")
        about = found.directory.name if part is None else f"{found.directory.name}, official {part}"
        own = labels if key in keys else None
        yield Group(
            key,
            subject,
            1,
            partial(read_photograph, found.directory / name, key, subject, about, own),
        )


def read_photograph(
    file: Path, key: str, subject: str, about: str, labels: Pseudolabels | None
) -> Portrait:
    """One picture with its pseudo-labels, if any. Raises ValueError naming the file at fault."""
    image = _read_array(file) if file.suffix == ".npy" else read_picture(file)
    hq = key.startswith("celebahq")
    portrait = Portrait(
        key=key,
        subject=subject,
        image=image[None],
        light_name=("photograph",),
        provenance=Provenance(
            source=f"{'CelebA-HQ' if hq else 'CelebA'} ({about})",
            licence="non-commercial research only, no redistribution; cite Liu 2015"
            + (" and Karras 2018" if hq else ""),
            crop=f"{image.shape[1]}x{image.shape[0]}, as released",
            transfer="srgb",
        ),
    )
    return portrait if labels is None else with_pseudolabels(portrait, labels)


def list_pictures(root: Path) -> Listing:
    """The one folder of pictures in `root` and what it holds. Raises ValueError."""
    needed = f"a folder with {', '.join(FOLDERS)}, or one of these, is needed"
    if not root.is_dir():
        found = "is not a folder" if root.exists() else "does not exist"
        raise ValueError(f"{root}: {found}; {needed}")
    there = [root / place for place in PLACES if (root / place).is_dir()]
    listings = [listing for listing in map(_listing, there) if listing.names]
    if not listings:
        raise ValueError(f"{root}: no pictures of CelebA or CelebA-HQ in it; {needed}")
    if len(listings) > 1:
        several = ", ".join(str(listing.directory.relative_to(root)) for listing in listings)
        raise ValueError(f"{root}: holds several sets of pictures ({several}); give one of them")
    return listings[0]


def find_people(found: Listing, identities: Path | None, mapping: Path | None) -> People:
    """Who is on the pictures, by the tables given or found beside them."""
    identities = identities or find_table(found.directory, IDENTITY_NAMES)
    mapping = mapping or (find_table(found.directory, HQ_NAMES) if found.hq else None)
    return read_people(identities, mapping)


def find_partition(found: Listing, partition: Path | None) -> dict[str, str]:
    """The official part of each picture of CelebA, empty when there is no table."""
    partition = partition or find_table(found.directory, PARTITION_NAMES)
    return {} if partition is None else read_partition(partition)


def _listing(directory: Path) -> Listing:
    """What a folder holds; no file is looked at."""
    with os.scandir(directory) as entries:
        held = [entry.name for entry in entries if entry.name.endswith(_PICTURE_SUFFIXES)]
    # A copy of CelebA-HQ with leading zeros is told by one of its first names.
    padded = any(_COPY.fullmatch(name) and name[0] == "0" for name in held)
    for pattern, hq in ((_CELEBA, False), (_COPY if padded else _HQ, True)):
        names = [name for name in held if pattern.fullmatch(name)]
        if names:
            names.sort(key=lambda name: (int(_stem(name)), name))
            strangers = sorted(set(held) - set(names)) if len(names) < len(held) else []
            return Listing(directory, names, strangers, hq, hq and not padded)
    return Listing(directory, [], [], False, False)


def _stem(name: str) -> str:
    return name.partition(".")[0].removeprefix("imgHQ")


def _read_array(file: Path) -> Integer[np.ndarray, "height width 3"]:
    """A picture as the tools of CelebA-HQ write it: 1 x 3 x height x width, uint8."""
    try:
        # Mapped, so that nothing but the header is read before the size is known.
        stored = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"{file}: cannot be read as an array: {error}") from None
    shape = stored.shape
    if stored.dtype != np.uint8 or len(shape) != 4 or shape[:2] != (1, 3):
        raise ValueError(f"{file}: is {stored.dtype} {shape}; uint8 (1, 3, height, width) needed")
    if not 1 <= max(shape) <= MAX_SIDE_PX or min(shape) < 1:
        raise ValueError(
            f"{file}: is {shape[3]}x{shape[2]}; 1 to {MAX_SIDE_PX} pixels a side needed"
        )
    return np.ascontiguousarray(stored[0].transpose(1, 2, 0))
