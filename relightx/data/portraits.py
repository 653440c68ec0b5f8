"""From a visit to an example: a portrait under drawn lights, augmented, with the labels it keeps.

Everything drawn comes from (seed, epoch, portrait), never from a worker or a rank, and a portrait
that cannot be read is replaced, if it may be, by one that the same three numbers choose: so every
batch is the same on any cluster, faults included.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch.utils.data import Dataset

from relightx.data.augment import augment, mixed
from relightx.data.fit import Views, fit
from relightx.data.order import Visit
from relightx.data.read import ReadFault, ShardReader
from relightx.data.supervision import labelled_subjects
from relightx.index import Index
from relightx.sample import Portrait
from relightx.settings.data import DataConfig

_SUBSTITUTES = 8
"""Portraits tried in place of one that cannot be read, before the fault is taken for the rule."""


@dataclass(frozen=True)
class Example:
    """A portrait ready for a batch: which of its labels may be used, besides having them.

    faults: of the portraits in whose place it stands.
    """

    views: Views
    has_albedo: bool
    has_normal: bool
    has_light: bool
    faults: tuple[str, ...] = ()


@dataclass(frozen=True)
class Draw:
    """What is read of a portrait: lights, and those they are mixed with, by their weight."""

    number: int
    lights: list[int]
    weight: np.ndarray | None
    rng: np.random.Generator


class TrainingPortraits(Dataset):
    """Looks visits up; no order, no state but a cache of decoded portraits.

    Raises ValueError when a portrait has fewer lights than `data.num_lights`, and on reading what
    cannot be read, unless `data.on_fault` is skip.
    """

    def __init__(self, indexes: Sequence[Index], reader: ShardReader, config: DataConfig) -> None:
        self.reader, self.config = reader, config
        self._subject_of = [index.subject_of for index in indexes]
        splits = config.train or [""] * len(indexes)
        kept = zip(indexes, splits, strict=True)
        self._keeps = [_kept(index, split, config) for index, split in kept]
        self._first = np.cumsum([0, *(index.num_groups for index in indexes)])
        self._memory = _Memory(config.memory_cache_mb << 20)
        self._refuse_few_lights(indexes)

    def __getitem__(self, visit: Visit) -> Example:
        return self.__getitems__([visit])[0]

    def __getitems__(self, visits: list[Visit]) -> list[Example]:
        """Several at once, whose bytes a distant source can fetch side by side."""
        draws = [self._drawn(*visit) for visit in visits]
        found = self._views(draws)
        return [
            self._replaced(visit, views)
            if isinstance(views, ReadFault)
            else self._made(draw, views)
            for visit, draw, views in zip(visits, draws, found, strict=True)
        ]

    def draw(self, number: int, rng: np.random.Generator) -> Draw:
        """What a visit reads of a portrait and does with it."""
        count, held = self.config.num_lights, int(self.reader.lights[number])
        lights = rng.choice(held, count, replace=False).tolist()
        if not self.config.augment.mix:
            return Draw(number, lights, None, rng)
        others = rng.choice(held, count).tolist()
        weight = rng.uniform(0, 1, count)
        weight[rng.random(count) >= self.config.augment.mix] = 1
        return Draw(number, lights + others, weight, rng)

    def example(self, draw: Draw, portrait: Portrait, faults: tuple[str, ...] = ()) -> Example:
        """What a visit makes of a portrait under the lights drawn."""
        return replace(self._made(draw, fit(portrait, self.config.image_size)), faults=faults)

    def _drawn(self, number: int, epoch: int) -> Draw:
        return self.draw(number, np.random.default_rng([self.config.seed, epoch, number]))

    def _views(self, draws: list[Draw]) -> list[Views | ReadFault]:
        """Each portrait under its lights, at training size."""
        if not self.config.memory_cache_mb:
            portraits = self.reader.try_many([(draw.number, draw.lights) for draw in draws])
            return [self._fitted(portrait) for portrait in portraits]
        everything = [(n, list(range(int(self.reader.lights[n])))) for n in self._unknown(draws)]
        for (number, _), portrait in zip(everything, self.reader.try_many(everything), strict=True):
            self._memory.put(number, self._fitted(portrait))
        found = [self._memory.take(draw.number) for draw in draws]
        self._memory.shrink()
        return [
            views if isinstance(views, ReadFault) else views.of_lights(draw.lights)
            for draw, views in zip(draws, found, strict=True)
        ]

    def _unknown(self, draws: list[Draw]) -> list[int]:
        numbers = dict.fromkeys(draw.number for draw in draws)
        return [number for number in numbers if number not in self._memory]

    def _fitted(self, portrait: Portrait | ReadFault) -> Views | ReadFault:
        if isinstance(portrait, ReadFault):
            return portrait
        return fit(portrait, self.config.image_size)

    def _made(self, draw: Draw, views: Views) -> Example:
        if draw.weight is not None:
            count = len(draw.weight)
            first, second = list(range(count)), list(range(count, 2 * count))
            views = mixed(views.of_lights(first), views.of_lights(second), draw.weight)
        keeps_albedo, keeps_normal, keeps_light = self._labels_kept(draw.number)
        has_normal = views.normal is not None and keeps_normal
        return Example(
            augment(views, self.config.augment, draw.rng, has_normal),
            views.albedo is not None and keeps_albedo,
            has_normal,
            views.sh is not None and keeps_light,
        )

    def _labels_kept(self, number: int) -> list[bool]:
        """Whether a portrait's subject keeps albedo, normals and light."""
        part = int(np.searchsorted(self._first, number, "right")) - 1
        subject = self._subject_of[part][number - self._first[part]]
        return self._keeps[part][:, subject].tolist()

    def _replaced(self, visit: Visit, fault: ReadFault) -> Example:
        """Another portrait of the same epoch in the place of one that cannot be read."""
        if self.config.on_fault == "stop":
            raise ValueError(str(fault)) from None  # torch can hand on nothing but the message
        number, epoch = visit
        rng = np.random.default_rng([self.config.seed, epoch, number, _SUBSTITUTES])
        faults = [str(fault)]
        for _ in range(_SUBSTITUTES):
            draw = self._drawn(int(rng.integers(*self._alike(number))), epoch)
            (views,) = self._views([draw])
            if not isinstance(views, ReadFault):
                return replace(self._made(draw, views), faults=tuple(faults))
            faults.append(str(views))
        raise ValueError(
            f"{_SUBSTITUTES} portraits in place of one that cannot be read cannot be read either;"
            f" the first: {faults[0]}; the last: {faults[-1]}"
        )

    def _alike(self, number: int) -> tuple[int, int]:
        """Numbers, from and below, that may stand for a portrait: of its own split, where the
        splits have shares of each batch."""
        if not self.config.weights:
            return 0, int(self._first[-1])
        part = int(np.searchsorted(self._first, number, "right")) - 1
        return int(self._first[part]), int(self._first[part + 1])

    def _refuse_few_lights(self, indexes: Sequence[Index]) -> None:
        for index in indexes:
            few = np.flatnonzero(index.lights < self.config.num_lights)
            if len(few):
                group = index.groups[int(few[0])]
                raise ValueError(
                    f"{index.path}: portrait {group.key!r} has {group.lights} lights,"
                    f" data.num_lights asks for {self.config.num_lights}"
                )


class _Memory:
    """Decoded portraits, the longest unused of which go first when they are too many bytes.

    A fault is kept until it was told once, so that the next visit tries again.
    """

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self._held: OrderedDict[int, Views | ReadFault] = OrderedDict()
        self._bytes = 0

    def __contains__(self, number: int) -> bool:
        return number in self._held

    def put(self, number: int, views: Views | ReadFault) -> None:
        self._held[number] = views
        self._bytes += 0 if isinstance(views, ReadFault) else views.bytes

    def take(self, number: int) -> Views | ReadFault:
        self._held.move_to_end(number)
        return self._held[number]

    def shrink(self) -> None:
        for number in [n for n, views in self._held.items() if isinstance(views, ReadFault)]:
            del self._held[number]
        while self._bytes > self.most_bytes and len(self._held) > 1:
            self._bytes -= self._held.popitem(last=False)[1].bytes


def _kept(index: Index, split: str, config: DataConfig) -> np.ndarray:
    """For albedo, normals and light, which subjects keep it: bool, 3 x subjects."""
    share = config.supervision
    used = 0.0 if split in share.unlabelled else 1.0
    return np.stack(
        [
            labelled_subjects(index.subject_digest, used * fraction, share.seed)
            for fraction in (share.albedo, share.normal, share.light)
        ]
    )
