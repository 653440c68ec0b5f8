"""CelebA's official partition as a split file.

    python -m shards.layouts.celeba_split --in ROOT --out FILE

The file lists every subject of the pictures there are, as --split-file of a build wants it. The
partition goes by picture and a split by person: one whose pictures are in several parts goes to
test before validation before training, so that no person that is tested on was trained on.
"""

import argparse
import json
import sys
from collections import Counter
from pathlib import Path

from shards.sources.celeba import find_partition, find_people, list_pictures
from shards.splits import SPLITS

PRECEDENCE = ("test", "val", "train")


def official_split(
    root: Path,
    *,
    identities: Path | None = None,
    mapping: Path | None = None,
    partition: Path | None = None,
) -> dict[str, list[str]]:
    """The subjects of each split, sorted. The arguments are those of the source `celeba`.

    Raises ValueError as the source does, when there is no partition, and for pictures outside it.
    """
    found = list_pictures(root)
    people, parts = find_people(found, identities, mapping), find_partition(found, partition)
    if not parts:
        raise ValueError(
            f"{root}: list_eval_partition.txt is not beside the pictures; give its place"
        )
    split_of: dict[str, str] = {}
    outside: Counter[str] = Counter()
    for name in found.names:
        part = parts.get(found.original(name, people) or "")
        if part is None:
            outside[name] += 1
            continue
        subject = found.subject(name, people)
        split_of[subject] = min(part, split_of.get(subject, part), key=PRECEDENCE.index)
    if outside:
        hint = "; CelebA-HQ needs CelebA-HQ-to-CelebA-mapping.txt" if found.hq else ""
        raise ValueError(
            f"{root}: {len(outside)} of {len(found.names)} pictures are not in the partition, such"
            f" as {next(iter(outside))}{hint}"
        )
    return {split: sorted(s for s in split_of if split_of[s] == split) for split in SPLITS}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m shards.layouts.celeba_split", description=__doc__
    )
    parser.add_argument("--in", dest="root", type=Path, required=True, metavar="DIR")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE")
    for name in ("identities", "mapping", "partition"):
        parser.add_argument(f"--{name}", type=Path, metavar="FILE", help="see the source celeba")
    given = vars(parser.parse_args(arguments))
    root, out = given.pop("root"), given.pop("out")
    try:
        split = official_split(root, **given)
        out.write_text(
            json.dumps({"about": "CelebA's official partition", **split}, indent=1) + "\n"
        )
    except (ValueError, OSError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2
    print(f"{out}: " + ", ".join(f"{len(split[name])} subjects in {name}" for name in SPLITS))
    return 0


if __name__ == "__main__":
    sys.exit(main())
