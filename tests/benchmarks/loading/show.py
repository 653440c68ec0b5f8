"""The figures as tables."""

import json
import os
import platform
import statistics
from collections import Counter
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from loading.batch import BATCH, CHOSEN
from loading.contestants import Entry, Kind
from loading.heads import SIZE, Amount
from loading.job import Storage
from rich.console import Console
from rich.table import Table

_PACKAGES = ("torch", "numpy", "pillow", "webdataset", "mosaicml-streaming", "litdata")
_COLUMNS = (
    "workers",
    "groups/s",
    "spread",
    "images/s",
    "CPU ms",
    "of best peer",
    "of bare loop",
    "first s",
)


class Condition(NamedTuple):
    """What a row's figures are comparable in."""

    lights: int
    workers: int
    storage: Storage


class Results(NamedTuple):
    """found: by name and condition, what each round gave. faults: of what failed."""

    found: dict[tuple[str, Condition], list[dict[str, float]]]
    faults: list[str]

    def median(self, name: str, condition: Condition, figure: str = "groups_per_s") -> float | None:
        """Over the rounds; None without any."""
        found = self.found.get((name, condition))
        return statistics.median(each[figure] for each in found) if found else None

    def best(
        self, entries: Iterable[Entry], condition: Condition, *kinds: Kind
    ) -> tuple[float, str]:
        """The fastest contestant of some kinds: its rate and name."""
        able = [entry.name for entry in entries if entry.kind in kinds]
        return max(
            ((self.median(name, condition) or 0.0, name) for name in able), default=(0.0, "")
        )

    def limit(self, condition: Condition) -> float:
        """The bare loop of as many processes."""
        return self.median("bare loop", condition._replace(storage="disk")) or 0.0

    def conditions(self) -> list[Condition]:
        """All that were measured, in order."""
        return list(dict.fromkeys(condition for _, condition in self.found))

    def as_json(self) -> str:
        """Everything that was found."""
        rows = [
            {"contestant": name, **condition._asdict(), "rounds": found}
            for (name, condition), found in self.found.items()
        ]
        return json.dumps({"rows": rows, "faults": self.faults}, indent=1)


def show(
    results: Results,
    entries: list[Entry],
    amounts: dict[int, Amount],
    bytes_of: dict[int, dict[str, int]],
    machine: str,
) -> None:
    """One table for each number of lights and storage, then what they say of relightx."""
    console = Console(width=124)
    console.print(machine)
    for lights, storage in dict.fromkeys((c.lights, c.storage) for c in results.conditions()):
        amount = amounts[lights]
        table = Table(
            title=f"{storage}: {amount.groups} groups of {lights} lights, {CHOSEN} used, {SIZE} px,"
            f" batches of {BATCH}"
        )
        table.add_column("contestant")
        table.add_column("KiB/group", justify="right")
        for column in _COLUMNS:
            table.add_column(column, justify="right")
        for entry in entries:
            for condition in results.conditions():
                if (condition.lights, condition.storage) == (lights, storage):
                    stored = bytes_of[lights][entry.format]
                    _add(table, results, entries, entry, condition, stored)
        console.print(table)
    console.print(_summary(results, entries))


def _add(
    table: Table,
    results: Results,
    entries: list[Entry],
    entry: Entry,
    condition: Condition,
    stored: int,
) -> None:
    rate = results.median(entry.name, condition)
    if rate is None:
        return
    rates = [each["groups_per_s"] for each in results.found[entry.name, condition]]
    best, _ = results.best(entries, condition, Kind.PEER)
    first = results.median(entry.name, condition, "first_s")
    table.add_row(
        entry.name,
        f"{stored / 1024:.0f}",
        f"{condition.workers}",
        f"{rate:.0f}",
        f"{min(rates):.0f}-{max(rates):.0f}",
        f"{rate * CHOSEN:.0f}",
        f"{results.median(entry.name, condition, 'cpu_ms'):.2f}",
        _ratio(rate, best, "x"),
        _ratio(rate, results.limit(condition), "%"),
        f"{first:.2f}" if first else "",
        style="bold" if entry.kind is Kind.OURS else None,
    )


def _summary(results: Results, entries: list[Entry]) -> Table:
    table = Table(title="relightx's best against the best others")
    for column in ("lights", "workers", "storage", "relightx groups/s", "of bare loop"):
        table.add_column(column, justify="right")
    for column in ("best peer", "ratio", "best by hand", "ratio"):
        table.add_column(column, justify="left" if column != "ratio" else "right")
    for condition in results.conditions():
        ours, _ = results.best(entries, condition, Kind.OURS)
        peer, peer_name = results.best(entries, condition, Kind.PEER)
        hand, hand_name = results.best(entries, condition, Kind.BY_HAND)
        table.add_row(
            f"{condition.lights}",
            f"{condition.workers}",
            condition.storage,
            f"{ours:.0f}",
            _ratio(ours, results.limit(condition), "%"),
            peer_name,
            _ratio(ours, peer, "x"),
            hand_name,
            _ratio(ours, hand, "x"),
        )
    return table


def _ratio(value: float, of: float, unit: str) -> str:
    if not of:
        return ""
    return f"{value / of:.0%}" if unit == "%" else f"{value / of:.2f}x"


def machine_line(load_before: float) -> str:
    """Processor, memory and versions, and how busy the machine was before and after."""
    models = [
        line.split(":")[1].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    processor = ", ".join(f"{count} x {model}" for model, count in Counter(models).items())
    packages = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    return (
        f"{processor or platform.machine()}, {memory:.0f} GiB, load {load_before:.1f} before and"
        f" {os.getloadavg()[0]:.1f} after; Python {platform.python_version()}, {packages}"
    )
