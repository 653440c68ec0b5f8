"""What is trained on and how it is read; each key of `data` with its default and its bounds."""

import math
import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from relightx.settings.augment import AugmentConfig
from relightx.settings.supervision import SupervisionConfig
from relightx.storage import S3Options


@dataclass(frozen=True)
class DataConfig:
    """What is trained on and how it is read."""

    train: list[str] = field(default_factory=list)
    """Training splits: directories or s3:// URLs, each with its index.json."""
    val: list[str] = field(default_factory=list)
    """Validation splits, likewise; empty: no validation."""
    weights: list[float] = field(default_factory=list)
    """Share of each training split in every batch, such as [3, 1]; empty: every portrait of every
    split once an epoch."""
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
    """Shards that are shuffled together, in each stream."""
    streams: int = 1
    """Parts that the order of an epoch is cut into, read side by side: as many as nodes, or a
    multiple, and a node needs only its own part's shards. It divides batch_size. It belongs to the
    run: keep it when the number of nodes changes."""
    seed: int = 0
    """Of order, choice of lights and augmentation."""
    reader: Literal["index", "stream"] = "index"
    """index: exact order and resume, only the members needed; stream: plain WebDataset."""
    fetch: Literal["auto", "shards", "members"] = "auto"
    """What is fetched from s3://: whole shards into the node's cache, or the members needed."""
    cache_dir: str = ""
    """Where shards from s3:// are kept, on a disk of the node's own; empty: a folder of this user's
    in the system's temporary directory ($TMPDIR)."""
    cache_gb: float = 50.0
    """Size of that folder in gigabytes, 10^9 bytes."""
    on_fault: Literal["stop", "skip"] = "stop"
    """What a portrait that cannot be read does: stop the run, or be replaced by another."""
    max_skipped: float = 0.001
    """Share of the portraits read that may be replaced before the run stops."""
    s3: S3Options = field(default_factory=S3Options)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    supervision: SupervisionConfig = field(default_factory=SupervisionConfig)

    def __post_init__(self) -> None:
        for name in ("image_size", "batch_size", "num_lights", "window", "streams"):
            if getattr(self, name) < 1:
                raise ValueError(f"data.{name} is {getattr(self, name)}; 1 or more needed")
        for name in ("num_workers", "memory_cache_mb", "seed"):
            if getattr(self, name) < 0:
                raise ValueError(f"data.{name} is {getattr(self, name)}; 0 or more needed")
        if not 0 < self.cache_gb < math.inf:
            raise ValueError(f"data.cache_gb is {self.cache_gb}; more than 0 needed")
        if not 0 <= self.max_skipped < 1:
            raise ValueError(f"data.max_skipped is {self.max_skipped}; a share below 1 needed")
        for split in self.supervision.unlabelled:
            if split not in self.train:
                raise ValueError(
                    f"data.supervision.unlabelled names {split!r}, which data.train does not list:"
                    f" {self.train}"
                )
        if self.weights and len(self.weights) != len(self.train):
            raise ValueError(
                f"data.weights has {len(self.weights)} numbers, data.train {len(self.train)} splits"
            )
        for weight in self.weights:
            if not 0 < weight < math.inf:
                raise ValueError(f"data.weights holds {weight}; each must be above 0")

    @property
    def cache_bytes(self) -> int:
        return int(self.cache_gb * 1e9)


def cache_directory(path: str) -> Path:
    """The node's cache: `path`, or the user's own folder in the temporary directory.

    Raises ValueError when that folder is somebody else's, who could put other data into it.
    """
    if path:
        return Path(path).expanduser()
    directory = Path(tempfile.gettempdir()) / f"relightx-{os.getuid()}"
    directory.mkdir(mode=0o700, exist_ok=True)
    about = directory.lstat()
    if about.st_uid != os.getuid() or about.st_mode & 0o022 or directory.is_symlink():
        raise ValueError(
            f"{directory}: belongs to another user or may be written by others; name a folder of"
            " your own in data.cache_dir"
        )
    return directory
