"""What a data set holds in numbers: people, lights, labels, brightness, skin tones, head poses.

Counts are of everything, from the indexes. What only the portraits themselves tell is taken from
some of them, spread over the set, and said to be: memory and time do not grow with the set.
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float

from relightx.color import LUMINANCE, from_integer
from relightx.index import GroupEntry, Index, Totals
from relightx.pose import POSE, Pose
from relightx.sample import Portrait, decode, extensions
from relightx.sh import dominant_direction
from relightx.storage import Folder
from shards.looking.listing import totals_table
from shards.looking.skin_tone import LAYER, SkinTone, groups_of, skin_tone
from shards.parallel import ordered_map
from shards.read import Place, SplitPlace, find_splits, name_of, read_members, read_split

SAMPLES = 400
"""Portraits of a data set that are opened."""
MAX_LIGHTS = 32
"""Lights of a portrait that are opened, spread over all."""
_LABELS = ("albedo", "normal", "light")
_PERCENTILES = (0, 5, 25, 50, 75, 95, 100)
_SHOWN = 6


class Sample(NamedTuple):
    """A portrait to open."""

    folder: Folder
    shard: str
    group: GroupEntry


class Seen(NamedTuple):
    """What one portrait tells.

    label: 'real', 'pseudo' or 'absent' of each of albedo, normal and light. brightness: mean linear
    luminance of each light inside the mask. mask, confidence: shares; None when it has none.
    direction: unit vectors toward the lights; has_direction: they are stated, and not read off the
    light's harmonics. skin, pose_deg: None where it has no albedo, no pose.
    """

    kind: str
    source: str
    licence: str
    label: tuple[str, ...]
    brightness: list[float]
    mask: float | None
    confidence: float | None
    direction: Float[np.ndarray, "lights 3"]
    has_direction: bool
    skin: SkinTone | None
    pose_deg: Pose | None


@dataclass(frozen=True)
class Stats:
    """Numbers of a data set; `str` is the text for people.

    lights, portraits_per_subject: value -> how many portraits or subjects have it, of all.
    opened: portraits that the following comes from. kinds, sources, licences: text -> portraits.
    labels: of albedo, normal, light, mask, confidence, direction and pose: kind -> portraits.
    brightness: mean luminance of an image inside its mask, mask: its share of the picture,
    confidence: its mean inside the mask, one number for each image or portrait opened.
    direction: x, y, z toward each light opened.
    skin_lightness, ita_deg: CIE L* and typology angle (shards.looking.skin_tone), pose_deg: yaw,
    pitch and roll (relightx.pose), one for each portrait opened that has it.
    """

    name: str
    totals: dict[str, Totals]
    lights: dict[int, int]
    portraits_per_subject: dict[int, int]
    opened: int
    kinds: dict[str, int]
    sources: dict[str, int]
    licences: dict[str, int]
    labels: dict[str, dict[str, int]]
    brightness: list[float] = field(repr=False)
    mask: list[float] = field(repr=False)
    confidence: list[float] = field(repr=False)
    direction: list[tuple[float, float, float]] = field(repr=False)
    skin_lightness: list[float] = field(repr=False)
    ita_deg: list[float] = field(repr=False)
    pose_deg: list[Pose] = field(repr=False)

    @property
    def portraits(self) -> int:
        return sum(total.groups for total in self.totals.values())

    @property
    def sampling(self) -> str:
        """What the numbers that need pictures come from."""
        lights = f", up to {MAX_LIGHTS} lights of each" if max(self.lights) > MAX_LIGHTS else ""
        if self.opened == self.portraits:
            return f"all {self.opened} portraits were opened{lights}"
        return (
            f"{self.opened} of {self.portraits} portraits were opened, spread over the set{lights}"
        )

    @property
    def poses(self) -> dict[str, list[float]]:
        """Yaw, pitch and roll of the portraits, each by its name."""
        return {name: [pose[axis] for pose in self.pose_deg] for axis, name in enumerate(POSE)}

    @property
    def light_angles(self) -> dict[str, list[float]]:
        """Where lights are, in degrees: to the right of the camera, and above it."""
        x, y, z = np.array(self.direction, np.float64).reshape(-1, 3).T
        above = np.degrees(np.arcsin(np.clip(y, -1, 1)))
        return {"right": np.degrees(np.arctan2(x, z)).tolist(), "above": above.tolist()}

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain values, for JSON; lists of numbers as their percentiles."""
        content = asdict(self)
        for name in ("brightness", "mask", "confidence", "skin_lightness", "ita_deg"):
            content[name] = percentiles(getattr(self, name))
        content["skin_groups"] = groups_of(self.ita_deg)
        content["pose_deg"] = {name: percentiles(values) for name, values in self.poses.items()}
        content["light_deg"] = {
            name: percentiles(values) for name, values in self.light_angles.items()
        }
        content["direction"] = [[round(part, 4) for part in place] for place in self.direction]
        return {**content, "portraits": self.portraits, "sampling": self.sampling}

    def __str__(self) -> str:
        back = sum(z < 0 for _, _, z in self.direction)
        directions = f"{len(self.direction)} lights, {back} from behind" if self.direction else "-"
        lit = self.light_angles.items() if self.direction else ()
        turned = self.poses.items() if self.pose_deg else [("pose", [])]
        lines = [
            ("lights of a portrait", _histogram(self.lights)),
            ("portraits of a subject", _histogram(self.portraits_per_subject)),
            ("", f"({self.sampling})"),
            ("pictures", _shares(self.kinds)),
            *((name, _shares(held)) for name, held in self.labels.items()),
            ("brightness", _spread(self.brightness)),
            ("mask's share", _spread(self.mask)),
            ("confidence inside", _spread(self.confidence)),
            ("directions", directions),
            *((f"lights' degrees {side}", _spread(angles, 0)) for side, angles in lit),
            ("skin's lightness L*", _spread(self.skin_lightness, 1)),
            ("skin's ITA, degrees", _spread(self.ita_deg, 0)),
            ("skin", _shares(groups_of(self.ita_deg))),
            *((f"head's {name}, degrees", _spread(turns, 1)) for name, turns in turned),
            ("source", _shares(self.sources)),
            ("licence", _shares(self.licences)),
        ]
        table = totals_table(self.totals)
        return f"{self.name}\n{table}\n" + "".join(f"\n{name:<23}{text}" for name, text in lines)


def stats(place: Place, samples: int = SAMPLES, workers: int = 1) -> Stats:
    """Numbers of a data set or one split of it.

    samples: portraits that are opened, at most. workers: processes that do.
    Raises ValueError when the place holds neither, for a broken portrait and numbers below 1.
    """
    if samples < 1:
        raise ValueError(f"{samples} samples asked; at least 1 needed")
    splits = find_splits(place)
    indexes = {split: read_split(split) for split in splits}
    seen = list(ordered_map(look, _samples(indexes, samples), workers))
    return Stats(
        name=name_of(place),
        totals={split.name: index.totals for split, index in indexes.items()},
        lights=_counted(np.concatenate([index.lights for index in indexes.values()])),
        portraits_per_subject=_per_subject(list(indexes.values())),
        opened=len(seen),
        kinds=_common(one.kind for one in seen),
        sources=_common(one.source for one in seen),
        licences=_common(one.licence for one in seen),
        labels=_labels(seen),
        brightness=[value for one in seen for value in one.brightness],
        mask=[one.mask for one in seen if one.mask is not None],
        confidence=[one.confidence for one in seen if one.confidence is not None],
        direction=[tuple(place) for one in seen for place in one.direction.tolist()],
        skin_lightness=[one.skin.lightness for one in seen if one.skin is not None],
        ita_deg=[one.skin.ita_deg for one in seen if one.skin and one.skin.ita_deg is not None],
        pose_deg=[one.pose_deg for one in seen if one.pose_deg is not None],
    )


def look(sample: Sample) -> Seen:
    """Open one portrait; raises ValueError for a broken one."""
    lights = sorted(_spread_over(sample.group.lights, MAX_LIGHTS))
    held, labels = sample.group.members, ("albedo", "mask", "confidence")
    wanted = extensions(held, sample.group.lights, lights, labels)
    wanted += [name for name in (f"{LAYER}.png",) if name in held]
    members = read_members(sample.folder, sample.shard, sample.group, wanted)
    portrait = decode(sample.group.key, members, lights)
    _, height, width, channels = portrait.image.shape
    has, bits = portrait.provenance, portrait.image.dtype.itemsize * 8
    inside = np.ones((height, width), bool) if portrait.mask is None else portrait.mask
    return Seen(
        kind=f"{width}x{height} {bits}-bit {'gray' if channels == 1 else 'RGB'} {has.transfer}",
        source=has.source,
        licence=has.licence,
        label=tuple(getattr(has, name) for name in _LABELS),
        brightness=[_brightness(image[inside], has.transfer) for image in portrait.image],
        mask=None if portrait.mask is None else float(portrait.mask.mean()),
        confidence=_confidence(portrait, inside),
        direction=_directions(portrait),
        has_direction=portrait.direction is not None,
        skin=skin_tone(portrait, members),
        pose_deg=portrait.pose_deg,
    )


def percentiles(values: list[float]) -> dict[str, float]:
    """Smallest, largest and what lies between, by the percent of the values below."""
    if not values:
        return {}
    found = np.percentile(values, _PERCENTILES)
    return {f"{p}%": round(float(v), 4) for p, v in zip(_PERCENTILES, found, strict=True)}


def _spread_over(count: int, wanted: int) -> set[int]:
    """Numbers below `count`, evenly spaced, at most as many as wanted."""
    return set(np.linspace(0, count - 1, min(count, wanted)).round().astype(int).tolist())


def _samples(indexes: dict[SplitPlace, Index], most: int) -> Iterator[Sample]:
    """Portraits spread over all splits."""
    every, first = sum(index.num_groups for index in indexes.values()), 0
    wanted = sorted(_spread_over(every, most))
    for split, index in indexes.items():
        for number in wanted:
            if 0 <= number - first < index.num_groups:
                shard, group = index.place_of(number - first)
                yield Sample(split.folder, shard.name, group)
        first += index.num_groups


def _per_subject(indexes: list[Index]) -> dict[int, int]:
    """Portraits of a subject, in whichever splits they are -> subjects."""
    portraits: Counter[str] = Counter()
    for index in indexes:
        counts = np.bincount(index.subject_of, minlength=index.num_subjects).tolist()
        portraits.update(dict(zip(index.subjects, counts, strict=True)))
    return _sorted(Counter(portraits.values()))


def _brightness(pixels: np.ndarray, transfer: str) -> float:
    if not pixels.size:
        return 0.0
    linear = from_integer(pixels, transfer).mean(0)
    return float(linear @ LUMINANCE if len(linear) == 3 else linear[0])


def _confidence(portrait: Portrait, inside: np.ndarray) -> float | None:
    if portrait.confidence is None or not inside.any():
        return None
    return float(portrait.confidence[inside].mean())


def _directions(portrait: Portrait) -> Float[np.ndarray, "lights 3"]:
    """Stated directions; of light labels without them, where their harmonics are brightest."""
    if portrait.direction is not None:
        return portrait.direction
    if portrait.sh is None:
        return np.zeros((0, 3), np.float32)
    direction = dominant_direction(torch.from_numpy(portrait.sh)).numpy()
    return direction[np.linalg.norm(direction, axis=1) > 0.5]


def _labels(seen: list[Seen]) -> dict[str, dict[str, int]]:
    labels = {name: _common(one.label[place] for one in seen) for place, name in enumerate(_LABELS)}
    labels["mask"] = _common(_present(one.mask is not None) for one in seen)
    labels["confidence"] = _common(_present(one.confidence is not None) for one in seen)
    labels["direction"] = _common(
        "stated" if one.has_direction else "read off the light" if len(one.direction) else "absent"
        for one in seen
    )
    labels["pose"] = _common(_present(one.pose_deg is not None) for one in seen)
    return labels


def _present(held: bool) -> str:
    return "present" if held else "absent"


def _common(values: Iterable[str]) -> dict[str, int]:
    """Counts, the commonest first."""
    return dict(sorted(Counter(values).items(), key=lambda item: (-item[1], item[0])))


def _counted(values: np.ndarray) -> dict[int, int]:
    found, counts = np.unique(values, return_counts=True)
    return dict(zip(found.tolist(), counts.tolist(), strict=True))


def _sorted(counts: Mapping[int, int]) -> dict[int, int]:
    return dict(sorted(counts.items()))


def _shares(counts: dict[str, int]) -> str:
    whole = sum(counts.values())
    if len(counts) <= 1:
        return next(iter(counts), "-")
    shown = [f"{value} {_percent(count, whole)}" for value, count in counts.items()][:_SHOWN]
    if len(counts) > _SHOWN:
        shown.append(f"and {len(counts) - _SHOWN} more")
    return f"\n{'':<23}".join(shown) if any(len(text) > 30 for text in shown) else ", ".join(shown)


def _percent(count: int, whole: int) -> str:
    """Rounded so that some is never none, and not all never all."""
    share = 100 * count / whole
    return "<1%" if share < 1 else ">99%" if 99 < share < 100 else f"{math.floor(share + 0.5)}%"


def _histogram(counts: dict[int, int]) -> str:
    if len(counts) <= _SHOWN:
        return ", ".join(f"{value} ({count})" for value, count in counts.items())
    values = np.repeat(list(counts), list(counts.values())) if counts else np.zeros(1)
    return f"{min(counts)} to {max(counts)}, median {np.median(values):g}"


def _spread(values: list[float], digits: int = 3) -> str:
    found = percentiles(values)
    if not found:
        return "-"
    shown = (round(found[part], digits) + 0.0 for part in ("50%", "5%", "95%"))  # no -0
    middle, low, high = (f"{value:.{digits}f}" for value in shown)
    return f"{middle} at the median, {low} to {high} mostly"
