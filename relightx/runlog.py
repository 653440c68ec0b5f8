"""The log of a run: one JSON line a report (relightx.tracking writes it)."""

import json
from pathlib import Path
from typing import Any

LOG_NAME = "metrics.jsonl"


def read_log(path: Path) -> list[dict[str, Any]]:
    """The records of a run's log, oldest first; a last line cut short is left out."""
    records = []
    for line in path.read_text().splitlines():
        try:
            records.append(json.loads(line))
        except ValueError:
            break
    return records
