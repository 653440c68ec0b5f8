"""Portraits as a plain WebDataset stream: shards drawn with replacement and read from end to end.

For those who know WebDataset's training loop and want it: any reader may take any shard at any
time, and reads are sequential. Its tar reader, its grouping by keys and its shuffle buffer are used
as they are; what it would do wrong without a word is done here:

- It opens no s3://, and a tar that is cut gives it a portrait with a light less. So shards come
  through the sources of relightx.data.sources, size and sha256 compared before the first use, and
  every portrait is compared with the index, member by member, and with its own meta.json. What is
  missing is a fault that names shard and key, never a smaller portrait.
- Its ResampledShards has seeds of 31 bits, too few for the readers of a large cluster not to meet,
  and no weights. So shards are drawn here.
- Its shuffle buffer would hold all lights. So lights are drawn before it, pictures decoded after.

Given up, beside relightx.data.loader: there are no epochs (in as many visits as there are portraits
about 37 %, 1/e, are not met), the order depends on ranks and readers, a run that is resumed draws a
new stream and not the rest of the old one, all lights are read to use a few, and only neighbours
are mixed. For the same seed, start_step, rank, number of readers and buffer the stream is the same.
A set that was not built here needs the member names and the meta.json of relightx.sample, and an
index.
"""

import io
import random
import tarfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from itertools import count
from typing import Any, Generic, Literal, NamedTuple, Protocol, TypeVar

import numpy as np
from torch.utils.data import IterableDataset, get_worker_info
from webdataset import shuffle
from webdataset.tariterators import group_by_keys, tar_file_expander

from relightx.data.cache import ShardCache
from relightx.data.fault import ReadFault
from relightx.data.sources import CachedShards, LocalShards, Source, Wanted
from relightx.index import GroupEntry, Index, ShardEntry
from relightx.metatext import split_meta
from relightx.sample import Portrait, check, decode, extensions, light_member
from relightx.storage import Folder, LocalFolder

_FAULTS = 8
"""Faults without a portrait between them, after which skipping them is given up."""
_READ_BYTES = 1 << 20
_SHARDS, _BUFFER, _PORTRAITS = range(3)
"""What is drawn from seeds of its own."""


class Draw(Protocol):
    """What was drawn for a portrait; the lights wanted are all that matters here."""

    @property
    def lights(self) -> list[int]:
        """Numbers of the lights to decode, in this order."""


DrawT = TypeVar("DrawT", bound=Draw)


class Streamed(NamedTuple, Generic[DrawT]):
    """A visit of a portrait.

    draw: as it was drawn. portrait: under the lights drawn. faults: of what was skipped before it.
    """

    draw: DrawT
    portrait: Portrait
    faults: tuple[str, ...]


class _Place(NamedTuple):
    """A shard, and the number of its first portrait."""

    source: Source
    folder: Folder
    shard: ShardEntry
    first: int


class _Chosen(NamedTuple):
    """A portrait as it waits in the buffer: the bytes of the members wanted."""

    url: str
    key: str
    members: dict[str, bytes]
    draw: Any


class StreamedPortraits(IterableDataset, Generic[DrawT]):
    """One rank's portraits for `num_batches` micro-batches; each pass through it is the same.

    For a DataLoader of the same batch_size, whose collate_fn takes a list of Streamed: every rank
    has equally many full batches, whatever its shards hold.

    draw: from a portrait's number (all splits numbered through) and a generator, the lights wanted
        and whatever else belongs to the visit.
    start_step: another one gives another stream, so that a resumed run does not begin as before.
    weights: share of each split in the visits; None: as many portraits as it has.
    buffer: portraits, with the lights wanted alone, that each reader shuffles.
    cache: where shards from S3 are kept.
    on_fault: skip leaves the rest of a shard out, or the portrait whose pictures are damaged, and
        tells it with the next portrait.
    Raises ValueError without a cache for splits in S3; when read, ReadFault, naming shard, key and
    cause, for what cannot be read or is not whole.
    """

    def __init__(
        self,
        indexes: Sequence[Index],
        draw: Callable[[int, np.random.Generator], DrawT],
        batch_size: int,
        num_batches: int,
        *,
        seed: int,
        start_step: int = 0,
        rank: int = 0,
        weights: Sequence[float] | None = None,
        buffer: int = 256,
        cache: ShardCache | None = None,
        on_fault: Literal["stop", "skip"] = "stop",
    ) -> None:
        if buffer < 1:
            raise ValueError(f"a buffer of {buffer} portraits asked; 1 or more needed")
        self.batch_size, self.num_batches = batch_size, num_batches
        self.draw, self.buffer, self.on_fault = draw, buffer, on_fault
        self.seed = (seed, start_step, rank)
        self.indexes, self.sources = list(indexes), _sources(indexes, cache)
        self.chance = _chances(indexes, weights)
        self._first_shard = np.cumsum([0, *(len(index.shards) for index in indexes)])
        per_shard = np.concatenate([index.groups_per_shard for index in indexes])
        self._first_portrait = np.cumsum([0, *per_shard])

    def __len__(self) -> int:
        return self.num_batches * self.batch_size

    def __iter__(self) -> Iterator[Streamed[DrawT]]:
        info = get_worker_info()
        worker, num_workers = (info.id, info.num_workers) if info else (0, 1)
        # DataLoader takes batches from its workers in turn.
        batches = len(range(worker, self.num_batches, num_workers))
        return self._visits(worker, batches * self.batch_size)

    def _visits(self, worker: int, visits: int) -> Iterator[Streamed[DrawT]]:
        faults: list[ReadFault] = []
        buffered = shuffle(
            self.buffer,
            initial=-(-self.buffer // 4),  # or the first batch would wait for a full buffer
            rng=random.Random(int(self._rng(worker, _BUFFER).integers(1 << 63))),
        )(self._chosen(worker, faults))
        with ExitStack() as stack:
            for source in self.sources:
                stack.callback(source.close)
            stack.enter_context(closing(buffered))
            while visits:
                chosen = next(buffered)
                try:
                    portrait = _decoded(chosen)
                except ReadFault as fault:
                    self._note(fault, faults)
                    continue
                yield Streamed(chosen.draw, portrait, tuple(map(str, faults)))
                faults.clear()
                visits -= 1

    def _chosen(self, worker: int, faults: list[ReadFault]) -> Iterator[_Chosen]:
        """The members wanted of portrait after portrait, shard after shard, without an end."""
        rng, visit = self._rng(worker, _SHARDS), count()
        while True:
            place = self._place(int(np.searchsorted(self.chance, rng.random(), "right")))
            url = place.folder.url_of(place.shard.name)
            try:
                for number, (group, members) in enumerate(_whole(place, url), place.first):
                    draw = self.draw(number, self._rng(worker, _PORTRAITS, next(visit)))
                    wanted = extensions(members, group.lights, draw.lights)
                    yield _Chosen(url, group.key, {name: members[name] for name in wanted}, draw)
            except ReadFault as fault:
                self._note(fault, faults)

    def _place(self, shard: int) -> _Place:
        split = int(np.searchsorted(self._first_shard, shard, "right")) - 1
        index = self.indexes[split]
        entry = index.shards[shard - int(self._first_shard[split])]
        first = int(self._first_portrait[shard])
        return _Place(self.sources[split], index.folder, entry, first)

    def _note(self, fault: ReadFault, faults: list[ReadFault]) -> None:
        if self.on_fault == "stop":
            raise fault
        faults.append(fault)
        if len(faults) > _FAULTS:
            raise ReadFault(
                f"{len(faults)} faults without a portrait between them; the first: {faults[0]}; the"
                f" last: {fault}"
            )

    def _rng(self, worker: int, *what: int) -> np.random.Generator:
        return np.random.default_rng([*self.seed, worker, *what])


def _sources(
    indexes: Sequence[Index], cache: ShardCache | None
) -> list[LocalShards | CachedShards]:
    """For each split what gives its shards as whole files whose sha256 was compared."""
    local = LocalShards(most_open=1, verify=True)
    cached = None if cache is None else CachedShards(cache, most_open=1)
    sources = []
    for index in indexes:
        source = local if isinstance(index.folder, LocalFolder) else cached
        if source is None:
            raise ValueError(
                f"{index.path}: a stream from S3 needs a cache on this node, where whole shards are"
                " verified; name its folder in data.cache_dir"
            )
        sources.append(source)
    return sources


def _chances(indexes: Sequence[Index], weights: Sequence[float] | None) -> np.ndarray:
    """For each shard the chance that it or one before it is drawn.

    The same for all shards of a split, since to draw one visits each of its portraits once.
    """
    if weights is None:
        weights = [index.num_groups for index in indexes]
    each = [
        np.full(len(index.shards), weight / index.num_groups)
        for index, weight in zip(indexes, weights, strict=True)
    ]
    chance = np.cumsum(np.concatenate(each))
    return chance / chance[-1]


def _whole(place: _Place, url: str) -> Iterator[tuple[GroupEntry, dict[str, bytes]]]:
    """A shard's portraits with their members, each compared with the index and its meta.json."""
    groups, found = place.shard.groups, 0
    for members in _grouped(place, url):
        key = members.pop("__key__")
        del members["__url__"]
        if found == len(groups):
            raise ReadFault.at(url, f"its index ends with portrait {found} before it", key=key)
        group = groups[found]
        fault = _incomplete(group, key, members)
        if fault is not None:
            raise ReadFault.at(url, f"{fault}; copy it again or rebuild the shards", key=group.key)
        yield group, members
        found += 1
    if found < len(groups):
        raise ReadFault.at(
            url,
            f"the shard ends before it, after {found} of {len(groups)} portraits; copy it again or"
            " rebuild the shards",
            key=groups[found].key,
        )


def _incomplete(group: GroupEntry, key: str, members: dict[str, bytes]) -> str | None:
    """What is wrong with a portrait, if anything is."""
    if key != group.key:
        return f"it should be here, found is {key!r}"
    sizes = {extension: size for extension, (_, size) in group.members.items()}
    held = {extension: len(data) for extension, data in members.items()}
    if sizes != held:
        missing = sorted(sizes.keys() - held.keys())
        if missing:
            return f"member {missing[0]} is missing"
        name = min(name for name in held if held[name] != sizes.get(name))
        return f"member {name} has {held[name]} bytes, its index says {sizes.get(name, 'none')}"
    if "meta.json" not in members:
        return "member meta.json is missing"
    try:
        lights = len(split_meta(members["meta.json"])[1])
    except (ValueError, KeyError, TypeError) as error:
        return f"meta.json cannot be read: {error!r}"
    if lights != group.lights:
        return f"meta.json names {lights} lights, its index {group.lights}"
    named = [light_member(members, light) for light in range(lights)]
    missing = [name for name in named if name not in members]
    return f"meta.json names {lights} lights, {missing[0]} is missing" if missing else None


def _decoded(chosen: _Chosen) -> Portrait:
    """The portrait, whose maps must be those that its meta.json says it has."""
    try:
        portrait = decode(chosen.key, chosen.members, chosen.draw.lights)
        check(portrait)
    except ValueError as error:
        cause = str(error).removeprefix(f"portrait {chosen.key!r}: ")
        raise ReadFault.at(chosen.url, cause, key=chosen.key) from None
    return portrait


def _grouped(place: _Place, url: str) -> Iterator[dict[str, Any]]:
    """What WebDataset makes of a shard: the members of each key that follow each other."""
    file = _ShardFile(place)
    stream = io.BufferedReader(file, _READ_BYTES)
    try:
        yield from group_by_keys(tar_file_expander([{"url": url, "stream": stream}]), lcase=False)
    except (tarfile.TarError, EOFError, OSError, ValueError) as error:
        # Of what it hands on, WebDataset has appended its own objects to the arguments.
        raise file.fault or ReadFault.at(url, str(error.args[0]) if error.args else error) from None


class _ShardFile(io.RawIOBase):
    """A shard as a file that is read from the front; fault: why it could not be."""

    def __init__(self, place: _Place) -> None:
        self.place, self.offset = place, 0
        self.fault: ReadFault | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        source, folder, shard, _ = self.place
        size = min(len(buffer), shard.bytes - self.offset)
        if size <= 0:
            return 0
        try:
            (data,) = source.read(Wanted(folder, shard, [(self.offset, size)]))
        except ReadFault as fault:
            self.fault = fault.of("")  # a copy: WebDataset will write into this one
            raise
        buffer[:size] = data
        self.offset += size
        return size
