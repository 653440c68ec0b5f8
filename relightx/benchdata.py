"""How fast a configuration's data comes: `relightx bench-data [train's options]`.

The batches are those that training would get, so what is measured is what a run on this node, with
these workers, from this bucket will see: network, cache, decoding, augmentation, collation. A
training that takes more images a second than this shows will wait for its data.
"""

import argparse
import sys
import time
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from relightx.config import parse_config
from relightx.data import DataConfig, TrainingBatches, training_batches
from relightx.data.fault import cause_of


@dataclass(frozen=True)
class Rate:
    """What was measured. Seconds are wall-clock time."""

    first_batch_s: float
    groups_per_s: float
    images_per_s: float
    batches: int
    skipped: int


def measure(loader: TrainingBatches, warm_up: int) -> Rate:
    """Go through the batches as fast as they come; the first `warm_up` are not timed.

    Raises ValueError when no batch is left to be timed.
    """
    if len(loader) <= warm_up:
        raise ValueError(f"{len(loader)} batches, of which {warm_up} are not timed; more needed")
    start = time.perf_counter()
    groups = images = 0
    for number, batch in enumerate(loader):
        if number == 0:
            first = time.perf_counter() - start
        if number < warm_up:
            continue
        if number == warm_up:
            begin = time.perf_counter()
            continue
        groups += batch.image.shape[0]
        images += batch.image.shape[0] * batch.image.shape[1]
    elapsed = time.perf_counter() - begin
    return Rate(first, groups / elapsed, images / elapsed, len(loader), loader.skipped)


def bench_data(config: DataConfig, batches: int, warm_up: int) -> Rate:
    """Measure, and print a table. Raises ValueError as `training_batches` does."""
    loader = training_batches(config, 0, batches + warm_up + 1)
    console = Console(stderr=True, width=100)
    console.print(loader.plan.sentence)
    rate = measure(loader, warm_up)
    table = Table(
        title=f"{batches} batches of {config.batch_size} portraits, {config.num_lights} lights"
        f" each, at {config.image_size} px, {config.num_workers} workers"
    )
    table.add_column("measured")
    table.add_column("value", justify="right")
    for name, value in (
        ("seconds to the first batch", f"{rate.first_batch_s:.2f}"),
        ("portraits a second", f"{rate.groups_per_s:.1f}"),
        ("images a second", f"{rate.images_per_s:.1f}"),
        ("portraits replaced", f"{rate.skipped}"),
    ):
        table.add_row(name, value)
    Console(width=100).print(table)
    return rate


def main(arguments: list[str] | None = None, prog: str = "relightx bench-data") -> int:
    """Exit status 0; 2 for a wrong request, with a message."""
    own, others = _parser(prog).parse_known_args(arguments)
    config = parse_config(others, prog)
    try:
        if own.batches < 1 or own.warm_up < 0:
            raise ValueError("--batches must be 1 or more and --warm-up 0 or more")
        bench_data(config.data, own.batches, own.warm_up)
    except (ValueError, OSError) as error:
        print(f"{prog}: error: {cause_of(error)}", file=sys.stderr)
        return 2
    return 0


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=prog,
        allow_abbrev=False,
        description="Read batches as a training run would and say how fast they come. All other"
        " options are train's: --config FILE, --data.train=[s3://BUCKET/SET/train],"
        " --data.num_workers=8 and so on.",
    )
    parser.add_argument(
        "--batches", type=int, default=100, metavar="N", help="to time (default: %(default)s)"
    )
    parser.add_argument(
        "--warm-up",
        type=int,
        default=10,
        metavar="N",
        help="batches before them that are not timed (default: %(default)s)",
    )
    return parser
