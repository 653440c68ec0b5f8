"""Source `multipie`: CMU Multi-PIE, one group per session, person, recording and camera.

    ROOT/session01/multiview/001/01/05_1/001_01_01_051_00.png ... 001_01_01_051_19.png
         session   person ---^   ^  ^    person_session_recording_camera_frame
                      recording -+  +- camera

ROOT is the folder that holds session01 to session04, or one whose folder `data` does. Frames 01 to
18 are lit by one flash each; 00 and 19 have the light of the room alone. A person has the same
number in every session and is one subject. What else the set holds (`highres`, with other names,
and `movie`) is not read. Groups with flashes missing are kept down to two; the missing ones are
named in the provenance.

The set is licensed by Carnegie Mellon University against a fee (page "The CMU Multi-PIE Face
Database"), to the licensee alone, without redistribution; cite Gross et al. 2010.

Labels: the direction of each flash, and no more. Normals, albedo and light come from --stereo. The
faces fill a part of the picture: --align crops them.

Where the flashes are. Thirteen cameras stand at head height around the face every 15 degrees, two
more above; each has a flash beside it, and three more flashes hang between the upper two (Gross et
al.). Flash 07 is the frontal one. Directions of flashes 04, 05, 09, 10, 14, 15, 17 and 18 in the
frontal view are published, with x right in the image, y up and z to the camera (Hou et al. 2022,
test_relight_single_image.py of GeomConsistentFR). Assumed, as nothing published contradicts it: the
flashes 01 to 13 follow each other along the arc from the image's right to its left, those without
a published direction at a multiple of 15 degrees, and flash 16 is midway above. Cameras are taken
at multiples of 15 degrees, in the order 11_0, 12_0, 09_0, 08_0, 13_0, 14_0, 05_1, 05_0, 04_1, 19_0,
20_0, 01_0, 24_0 from the person's left, and 08_1 and 19_1 at flashes 14 and 18; published positions
are up to 6 degrees off those multiples, so expect that error of directions.

What the cameras' response is was not found published: `transfer` is sRGB unless told otherwise. The
room adds its light to every frame, and no direction describes it: it is subtracted in linear light.
"""

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float

from relightx.sample import Portrait, Provenance
from shards.group import Group, faulty, key_of
from shards.layouts.frames import read_frames, without_ambient

Camera = Literal[
    *("11_0", "12_0", "09_0", "08_0", "13_0", "14_0", "05_1", "05_0", "04_1", "19_0"),
    *("20_0", "01_0", "24_0", "08_1", "19_1", "all"),
]
CAMERAS: tuple[str, ...] = get_args(Camera)[:-1]
"""The thirteen at head height from the person's left to the right, then the two above."""
STEP_DEG = 15.0
"""Angle between neighbours along the arc."""
PUBLISHED = {
    4: (0.7518, 0.0, 0.6594),
    5: (0.5145, 0.0, 0.8575),
    9: (-0.5843, 0.0, 0.8115),
    10: (-0.7574, 0.0, 0.6529),
    14: (0.6893, 0.3991, 0.6047),
    15: (0.4478, 0.4925, 0.7463),
    17: (-0.5151, 0.4722, 0.7154),
    18: (-0.7076, 0.3892, 0.5897),
}
"""Directions of flashes in the frontal view, by Hou et al. 2022."""
UPPER_MIDDLE = (0.0, 0.66, 1.0)
"""Toward flash 16: the published upper flashes are all 0.66 up at a distance of 1."""
AMBIENT, FLASHES = (0, 19), range(1, 19)
MIN_FLASHES = 2

_SESSION, _TWO_DIGITS, _THREE_DIGITS = (
    re.compile(pattern) for pattern in (r"session\d\d", r"\d\d", r"\d{3}")
)
_FRAME = re.compile(r"(\d{3}_\d\d_\d\d_\d{3})_(\d\d)")


def multipie(
    root: Path,
    *,
    camera: Camera = "05_1",
    ambient: Literal["subtract", "keep"] = "subtract",
    transfer: Literal["srgb", "linear"] = "srgb",
) -> Iterator[Group]:
    """The recordings under `root` by session, person, recording and camera.

    Raises ValueError for a root without sessions or without recordings.

    Args:
        camera: the camera to read, frontal is 05_1; 'all' makes a group of each camera
        ambient: 'subtract' takes the mean of the frames without flash from those with one; 'keep'
            leaves the light of the room in
        transfer: transfer function of the pictures
    """
    found = False
    for session in _sessions(root):
        for recording in _recordings(session / "multiview"):
            found = True
            if isinstance(recording, Group):
                yield recording
                continue
            for name in CAMERAS if camera == "all" else (camera,):
                yield _found(recording / name, ambient, transfer)
    if not found:
        raise ValueError(
            f"{root}: its sessions hold no recordings; folders like session01/multiview/001/01/05_1"
            " are needed"
        )


def flash_direction(flash: int) -> Float[np.ndarray, "3"]:
    """Unit vector toward a flash, 1 to 18, in the frontal camera's view."""
    if flash in PUBLISHED:
        toward = np.array(PUBLISHED[flash])
    elif flash == 16:
        toward = np.array(UPPER_MIDDLE)
    else:
        toward = _on_arc((7 - flash) * STEP_DEG)
    return toward / np.linalg.norm(toward)


def view(camera: str) -> Float[np.ndarray, "3 3"]:
    """Rotation from the frontal camera's frame to another's, which looks at the face, upright."""
    index = CAMERAS.index(camera)
    upper = {"08_1": 14, "19_1": 18}
    toward = flash_direction(upper[camera]) if camera in upper else _on_arc((6 - index) * STEP_DEG)
    right = np.cross((0, 1, 0), toward)
    right /= np.linalg.norm(right)
    return np.stack((right, np.cross(toward, right), toward))


def _on_arc(azimuth_deg: float) -> Float[np.ndarray, "3"]:
    """Unit vector at head height; azimuth is positive toward the image's right."""
    azimuth = np.radians(azimuth_deg)
    return np.array((np.sin(azimuth), 0.0, np.cos(azimuth)))


def _sessions(root: Path) -> list[Path]:
    needed = "the folder that holds session01, session02, ... is needed"
    if not root.is_dir():
        found = "is not a folder" if root.exists() else "does not exist"
        raise ValueError(f"{root}: {found}; {needed}")
    for folder in (root, root / "data"):
        sessions = [entry for entry in _folders(folder) if _SESSION.fullmatch(entry.name)]
        if sessions:
            return sessions
    raise ValueError(f"{root}: no sessions among its folders; {needed}")


def _recordings(multiview: Path) -> Iterator[Path | Group]:
    """The recordings of a session, and a faulty group for each folder that is none."""
    session = multiview.parent.name
    for person in _folders(multiview):
        if not _THREE_DIGITS.fullmatch(person.name):
            fault = f"{person}: is no person of the set; a folder is named by three digits"
            yield faulty(key_of(session, person.name), person.name, fault)
            continue
        for recording in _folders(person):
            if _TWO_DIGITS.fullmatch(recording.name):
                yield recording
                continue
            fault = f"{recording}: is no recording of the set; a folder is named by two digits"
            yield faulty(key_of(session, person.name, recording.name), person.name, fault)


def _folders(folder: Path) -> list[Path]:
    """The folders in a folder by name; none where it does not exist."""
    if not folder.is_dir():
        return []
    entries = (entry for entry in folder.iterdir() if not entry.name.startswith("."))
    return sorted(entry for entry in entries if entry.is_dir())


def _found(folder: Path, ambient: str, transfer: str) -> Group:
    prefix = _prefix(folder)
    subject = prefix[:3]
    try:
        flashes = [frame for frame in _frames(folder) if frame in FLASHES]
    except ValueError as error:
        return faulty(prefix, subject, str(error))
    return Group(prefix, subject, len(flashes), partial(_read_group, folder, ambient, transfer))


def _prefix(folder: Path) -> str:
    """How the files of a camera's folder begin: person, session, recording and camera."""
    session, _, person, recording, camera = folder.parts[-5:]
    return f"{person}_{session.removeprefix('session')}_{recording}_{camera.replace('_', '')}"


def _frames(folder: Path) -> dict[int, Path]:
    """The pictures of a camera's folder by the number of the frame.

    Raises ValueError for a picture that does not belong there or is there twice.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder}: does not exist; the recording lacks this camera")
    frames: dict[int, Path] = {}
    for file in sorted(folder.iterdir()):
        if file.name.startswith(".") or file.suffix.lower() != ".png":
            continue
        name = _FRAME.fullmatch(file.stem)
        if not name or name[1] != _prefix(folder) or int(name[2]) > max(AMBIENT):
            raise ValueError(
                f"{file}: not a frame of this recording; names are like {_prefix(folder)}_07.png"
                " with numbers from 00 to 19"
            )
        number = int(name[2])
        if number in frames:
            raise ValueError(f"{file}: frame {number:02d} is also in {frames[number].name}")
        frames[number] = file
    return frames


def _read_group(folder: Path, ambient: str, transfer: str) -> Portrait:
    frames, prefix = _frames(folder), _prefix(folder)
    lit = [flash for flash in FLASHES if flash in frames]
    if len(lit) < MIN_FLASHES:
        raise ValueError(
            f"{folder}: {len(lit)} of the {len(FLASHES)} flashes found, {prefix}_07.png and the"
            f" like; {MIN_FLASHES} are needed"
        )
    room = [number for number in AMBIENT if number in frames] if ambient == "subtract" else []
    if ambient == "subtract" and not room:
        raise ValueError(
            f"{folder}: frames 00 and 19, without flash, are both missing; one is needed to"
            " subtract the light of the room (--ambient keep leaves it in)"
        )
    stack = read_frames([frames[number] for number in (*lit, *room)])
    image = stack[: len(lit)]
    if room:
        image = without_ambient(image, stack[len(lit) :], transfer)
    direction = np.stack([flash_direction(flash) for flash in lit]) @ view(folder.name).T
    return Portrait(
        key=prefix,
        subject=prefix[:3],
        image=image,
        light_name=tuple(f"flash{flash:02d}" for flash in lit),
        provenance=Provenance(
            source=f"CMU Multi-PIE, camera {folder.name}",
            licence="to the licensee alone, no redistribution; cite Gross et al. 2010",
            crop=_crop(image.shape[2], image.shape[1], lit, room),
            transfer=transfer,
        ),
        direction=direction.astype(np.float32),
    )


def _crop(width: int, height: int, lit: list[int], room: list[int]) -> str:
    missing = ", ".join(f"{flash:02d}" for flash in FLASHES if flash not in lit) or "none"
    frames = " and ".join(f"{number:02d}" for number in room)
    light = f"mean of frames {frames} subtracted" if room else "light of the room left in"
    return f"{width}x{height} as released, {light}; flashes missing: {missing}"
