"""What a build does to a group between its files and its shard, in a worker process.

read -> align -> photometric stereo -> encode. Whatever is wrong with one group ends here as a
sentence; the build goes on with the others.
"""

import errno
import os
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, NamedTuple

from relightx.color import to_srgb8
from relightx.sample import Portrait
from shards.group import Group
from shards.write import Packed, pack

_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True)
class Recipe:
    """Steps of a build that do not depend on the source."""

    align: int | None = None
    """Find the face, once for all lights of a group, and store a square crop of so many pixels"""
    mask: Literal["keep", "face", "skin"] = "face"
    """Mask of an aligned portrait: the face's oval, its skin alone, or what the source says"""
    min_face: int = 40
    """Smallest face that is aligned, chin to forehead, in pixels of the photograph"""
    stereo: Literal["given", "estimated"] | None = None
    """Make missing labels by photometric stereo, from the lights' known directions, or from
    directions that are estimated too, up to the bas-relief ambiguity"""
    jpeg: int | None = None
    """Store the images as JPEG of this quality, 8-bit sRGB, instead of PNG without loss"""

    def __post_init__(self) -> None:
        if self.align is not None and not 16 <= self.align <= 4096:
            raise ValueError(f"align is {self.align} pixels; 16 to 4096 needed")
        if self.min_face < 1:
            raise ValueError(f"min_face is {self.min_face}; at least 1 pixel needed")
        if self.jpeg is not None and not 1 <= self.jpeg <= 100:
            raise ValueError(f"jpeg quality is {self.jpeg}; 1 to 100 needed")

    def record(self) -> dict[str, Any]:
        """The steps as plain values, for the build's report."""
        return asdict(self)


class Task(NamedTuple):
    """A group on its way to a worker.

    subject: its person's name in the data set. ordinal: its place among all groups found.
    """

    ordinal: int
    group: Group
    subject: str
    recipe: Recipe


class Prepared(NamedTuple):
    """What became of a group: its portraits, or why it has none."""

    ordinal: int
    packed: list[Packed]
    fault: str | None = None


def prepare(task: Task) -> Prepared:
    """Read, transform and encode a group; a fault of its files is returned, not raised.

    Raises OSError when the disk is full and ModuleNotFoundError when a package is missing: neither
    is the group's fault.
    """
    try:
        found = task.group.read()
        portraits = [found] if isinstance(found, Portrait) else found
        if not portraits:
            raise ValueError(f"group {task.group.key!r}: no portrait could be read")
        return Prepared(task.ordinal, [_packed(portrait, task) for portrait in portraits])
    except (ModuleNotFoundError, MemoryError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _FULL:
            raise
        return Prepared(task.ordinal, [], _sentence(error))


def _packed(portrait: Portrait, task: Task) -> Packed:
    key, recipe = task.group.key, task.recipe
    if portrait.key != key and not portrait.key.startswith((f"{key}_", f"{key}-")):
        raise ValueError(f"group {key!r}: its portrait calls itself {portrait.key!r}")
    portrait = replace(portrait, subject=task.subject)
    if recipe.align is not None:
        from shards.labelling.align import aligned  # loads the face finder

        portrait = aligned(portrait, recipe.align, recipe.mask, recipe.min_face)
    if recipe.stereo is not None:
        from shards.labelling.stereo import with_stereo_labels  # heavy

        portrait = with_stereo_labels(portrait, recipe.stereo)
    if recipe.jpeg is not None:
        portrait = _as_photograph(portrait)
    return pack(portrait, recipe.jpeg)


def _as_photograph(portrait: Portrait) -> Portrait:
    """8-bit sRGB, which JPEG holds; the step that rounds most is then the eye's own."""
    if portrait.image.dtype == "uint8" and portrait.provenance.transfer == "srgb":
        return portrait
    image = to_srgb8(portrait.linear_image()[..., : portrait.image.shape[3]])
    return replace(portrait, image=image, provenance=replace(portrait.provenance, transfer="srgb"))


def _sentence(error: Exception) -> str:
    """One line; the kind of error where the reader of a file did not expect it."""
    text = " ".join(str(error).split()) or "no message"
    expected = isinstance(error, ValueError | OSError)
    if isinstance(error, OSError) and error.errno and error.filename:
        text = f"{error.filename}: {os.strerror(error.errno)}"
    return text if expected else f"{type(error).__name__}: {text}"
