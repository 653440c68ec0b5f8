"""Batches for training and for evaluation.

The loader is kept out of `accelerator.prepare`, which would split our rank-aware batches a second
time and never read half of the data, without a word. One DataLoader serves the whole run, since
the epoch of each visit travels with it.
"""

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from relightx.batch import Batch, Truth
from relightx.data.augment import AugmentConfig, augment, mixed
from relightx.data.fit import Views, fit
from relightx.data.order import RankBatches, TrainingOrder, Visit
from relightx.data.read import ShardReader
from relightx.data.supervision import SupervisionConfig, labelled_subjects
from relightx.index import Index, read_index


@dataclass(frozen=True)
class DataConfig:
    """What is trained on and how it is read."""

    train: list[str] = field(default_factory=list)
    """Directories of training splits, each with its index.json."""
    val: list[str] = field(default_factory=list)
    """Directories of validation splits; empty: no validation."""
    image_size: int = 128
    """Pictures are scaled to squares of this many pixels."""
    batch_size: int = 16
    """Portraits of one optimiser step, over all processes."""
    num_lights: int = 2
    """Lights drawn of each portrait in a step."""
    num_workers: int = 2
    """Reader processes of each training process; 0 reads in the training process."""
    memory_cache_mb: int = 0
    """Decoded portraits each reader keeps in memory."""
    window: int = 16
    """Shards that are shuffled together."""
    seed: int = 0
    """Of order, choice of lights and augmentation."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    supervision: SupervisionConfig = field(default_factory=SupervisionConfig)

    def __post_init__(self) -> None:
        for name in ("image_size", "batch_size", "num_lights", "window"):
            if getattr(self, name) < 1:
                raise ValueError(f"data.{name} is {getattr(self, name)}; 1 or more needed")
        for name in ("num_workers", "memory_cache_mb", "seed"):
            if getattr(self, name) < 0:
                raise ValueError(f"data.{name} is {getattr(self, name)}; 0 or more needed")


@dataclass(frozen=True)
class Example:
    """A portrait ready for a batch: which of its labels may be used, besides having them."""

    views: Views
    has_albedo: bool
    has_normal: bool
    has_light: bool


class TrainingPortraits(Dataset):
    """Looks a visit up: a portrait under drawn lights, augmented; no order, no state but a cache.

    Raises ValueError when a portrait has fewer lights than `data.num_lights`.
    """

    def __init__(self, indexes: list[Index], config: DataConfig) -> None:
        self.reader, self.config = ShardReader(indexes), config
        self.keeps = {
            name: frozenset().union(
                *(
                    labelled_subjects(index.subjects, share, config.supervision.seed)
                    for index in indexes
                )
            )
            for name, share in (
                ("albedo", config.supervision.albedo),
                ("normal", config.supervision.normal),
                ("light", config.supervision.light),
            )
        }
        self._cache: OrderedDict[int, Views] = OrderedDict()
        self._cached_bytes = 0
        for path, _, group in self.reader.places:
            if group.lights < config.num_lights:
                raise ValueError(
                    f"{path}: portrait {group.key!r} has {group.lights} lights,"
                    f" data.num_lights asks for {config.num_lights}"
                )

    def __getitem__(self, visit: Visit) -> Example:
        number, epoch = visit
        rng = np.random.default_rng([self.config.seed, epoch, number])
        views = self._draw_lights(number, rng)
        subject = self.reader.group(number).subject
        has_normal = views.normal is not None and subject in self.keeps["normal"]
        return Example(
            augment(views, self.config.augment, rng, has_normal),
            views.albedo is not None and subject in self.keeps["albedo"],
            has_normal,
            views.sh is not None and subject in self.keeps["light"],
        )

    def _draw_lights(self, number: int, rng: np.random.Generator) -> Views:
        count, lights = self.config.num_lights, self.reader.group(number).lights
        first = rng.choice(lights, count, replace=False).tolist()
        if not self.config.augment.mix:
            return self._views(number, first)
        second = rng.choice(lights, count).tolist()
        weight = rng.uniform(0, 1, count)
        weight[rng.random(count) >= self.config.augment.mix] = 1
        both = self._views(number, first + second)
        return mixed(
            both.of_lights(list(range(count))),
            both.of_lights(list(range(count, 2 * count))),
            weight,
        )

    def _views(self, number: int, lights: list[int]) -> Views:
        if not self.config.memory_cache_mb:
            return fit(self.reader.read(number, lights), self.config.image_size)
        if number not in self._cache:
            everything = list(range(self.reader.group(number).lights))
            views = fit(self.reader.read(number, everything), self.config.image_size)
            self._cache[number] = views
            self._cached_bytes += views.bytes
            while self._cached_bytes > self.config.memory_cache_mb << 20 and len(self._cache) > 1:
                self._cached_bytes -= self._cache.popitem(last=False)[1].bytes
        self._cache.move_to_end(number)
        return self._cache[number].of_lights(lights)


def training_batches(
    config: DataConfig,
    start_step: int,
    stop_step: int,
    rank: int = 0,
    num_ranks: int = 1,
    num_micro: int = 1,
) -> DataLoader:
    """This rank's micro-batches of the steps from start_step to stop_step, each a Batch.

    Raises ValueError when there is no training split or ranks do not divide the batch size.
    """
    if not config.train:
        raise ValueError("data.train is empty; name at least one directory of training shards")
    indexes = [read_index(path) for path in config.train]
    portraits = TrainingPortraits(indexes, config)
    order = TrainingOrder(
        [index.groups_per_shard for index in indexes], seed=config.seed, window=config.window
    )
    batches = RankBatches(
        order,
        config.batch_size,
        start_step,
        stop_step,
        rank,
        num_ranks,
        num_micro,
        first_row=start_step * config.batch_size,
    )
    return DataLoader(
        portraits,
        batch_sampler=batches,
        num_workers=config.num_workers,
        collate_fn=collate,
        worker_init_fn=use_one_thread,
        pin_memory=torch.cuda.is_available(),
        prefetch_factor=4 if config.num_workers else None,
    )


def evaluation_batches(
    indexes: list[Index],
    image_size: int,
    max_lights: int | None = None,
    rank: int = 0,
    num_ranks: int = 1,
) -> Iterator[tuple[str, Batch]]:
    """Key and batch of every portrait, one at a time under all its lights, in index order.

    max_lights: at most so many lights, evenly spaced. All ranks get equally many batches; those
    that only fill up repeat the last portrait with `valid` False. Raises ValueError for a key that
    stands in two splits, since scores are kept by key.
    """
    reader = ShardReader(indexes)
    seen: set[str] = set()
    for path, _, group in reader.places:
        if group.key in seen:
            raise ValueError(f"{path}: portrait {group.key!r} is in another of the splits too")
        seen.add(group.key)
    steps = -(-len(reader) // num_ranks)
    for number in range(rank, steps * num_ranks, num_ranks):
        is_portrait = number < len(reader)
        number = min(number, len(reader) - 1)
        available = reader.group(number).lights
        count = min(available, max_lights or available)
        lights = np.linspace(0, available - 1, count).round().astype(int).tolist()
        views = fit(reader.read(number, lights), image_size)
        batch = collate(
            [
                Example(
                    views,
                    views.albedo is not None,
                    views.normal is not None,
                    views.sh is not None,
                )
            ]
        )
        valid = torch.tensor([is_portrait])
        yield reader.group(number).key, batch._replace(valid=valid)


def collate(examples: list[Example]) -> Batch:
    """Stack examples of equal size and number of lights; absent labels become zeros.

    A portrait without confidence is trusted: ones.
    """
    views = [example.views for example in examples]
    size, lights = views[0].mask.shape[0], len(views[0].image)
    no_map, no_light = np.zeros((size, size, 3), np.float32), np.zeros((lights, 3, 9), np.float32)
    full_trust = np.ones((size, size), np.float32)

    def stacked(name: str, absent: np.ndarray) -> torch.Tensor:
        values = [getattr(view, name) for view in views]
        return torch.from_numpy(np.stack([absent if v is None else v for v in values]))

    def flags(name: str) -> torch.Tensor:
        return torch.tensor([getattr(example, name) for example in examples])

    truth = Truth(
        albedo=stacked("albedo", no_map).movedim(-1, -3).contiguous(),
        normal=stacked("normal", no_map).movedim(-1, -3).contiguous(),
        sh=stacked("sh", no_light),
        confidence=stacked("confidence", full_trust)[:, None],
        has_albedo=flags("has_albedo"),
        has_normal=flags("has_normal"),
        has_light=flags("has_light"),
    )
    return Batch(
        image=stacked("image", no_map).movedim(-1, -3).contiguous(),
        mask=stacked("mask", no_map)[:, None],
        valid=torch.ones(len(examples), dtype=torch.bool),
        truth=truth,
    )


def use_one_thread(_worker: int) -> None:
    """For each reader process, as DataLoader's worker_init_fn."""
    # OpenCV's own threads would fight the training process for cores, and hang after a fork.
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
