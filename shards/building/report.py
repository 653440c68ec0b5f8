"""What a build made and left out, as build-report.json and as lines for people.

Nothing in it depends on when, where or with how many workers the build ran.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from relightx.index import Totals
from shards.building.plan import Fault

VERSION = 1
_SHOWN = 10
# What differs between two faults of one kind: names, paths and numbers.
_PARTICULAR = re.compile(r"\S*[/\\]\S+|'[^']*'|\"[^\"]*\"|[-+]?\d[\w.:x]*")


@dataclass(frozen=True)
class Skips:
    """The limit on what may be left out.

    share: of the groups found, in [0, 1]. found: how many that are.
    """

    share: float
    found: int

    @property
    def allowed(self) -> int:
        """How many groups may be left out."""
        return int(self.share * self.found)


class TooManySkipped(ValueError):
    """More groups had to be left out than the build allows."""


def report(
    about: dict[str, Any],
    totals: dict[str, Totals],
    faults: Iterable[Fault],
    skips: Skips,
    complete: bool = True,
) -> bytes:
    """The content of build-report.json.

    about: source, options, recipe and version, as plain values. totals: of each split, empty when
    the build failed. complete: False when the build stopped, so that there may be further faults.
    """
    left_out = sorted(faults)
    share = len(left_out) / max(skips.found, 1)
    content = {
        "version": VERSION,
        **about,
        "complete": complete,
        "groups_found": skips.found,
        "splits": {split: asdict(total) for split, total in totals.items()},
        "skipped": {
            "groups": len(left_out),
            "share": round(share, 6),
            "allowed_share": skips.share,
            "kinds": dict(Counter(_kind(fault.fault) for fault in left_out).most_common()),
            "list": [
                {"key": fault.key, "subject": fault.subject, "reason": fault.fault}
                for fault in left_out
            ],
        },
    }
    return (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode()


def too_many(faults: list[Fault], skips: Skips, where: str) -> TooManySkipped:
    """The error of a build that had to leave out too much; names the first fault."""
    first = min(faults)
    more = f" and {len(faults) - 1} more groups, listed in {where}" if len(faults) > 1 else ""
    return TooManySkipped(
        f"{first.fault}{more}. {len(faults)} of {skips.found} groups cannot be used and"
        f" --max-skipped {skips.share:g} allows {skips.allowed}: mend or remove them, or allow more"
    )


def lines(faults: list[Fault], where: str) -> list[str]:
    """What was left out, for the terminal."""
    shown = [f"skipped {fault.key}: {fault.fault}" for fault in sorted(faults)[:_SHOWN]]
    if len(faults) > _SHOWN:
        shown.append(f"skipped {len(faults) - _SHOWN} more groups; all are listed in {where}")
    return shown


def _kind(fault: str) -> str:
    """A fault without the names and numbers of its place, so that like ones count together."""
    return " ".join(_PARTICULAR.sub("…", fault).split())[:120]
