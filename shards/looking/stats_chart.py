"""A picture of a data set's numbers: where light comes from, and histograms.

A set without albedo and poses has no row for them."""

import io
import math
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure, SubFigure
from matplotlib.patches import Circle
from matplotlib.ticker import MaxNLocator, PercentFormatter

from relightx.index import write_atomically
from shards.looking.skin_tone import BOUNDS_DEG
from shards.looking.stats import Stats

PAPER, INK, SOFT, RULE = "#fafaf8", "#1d1c1a", "#66635c", "#d9d5cc"
ACCENT, BLUE, GRAY = "#c2570c", "#2f6f9f", "#cfcac0"
_KIND_COLOUR = {
    **dict.fromkeys(("real", "present", "stated"), ACCENT),
    **dict.fromkeys(("pseudo", "read off the light"), "#e9a06a"),
    "absent": GRAY,
}
_RINGS_DEG = (30, 60, 90)
_MAX_DOTS = 5000
_SENSE = {
    "yaw": "degrees to the image's right",
    "pitch": "degrees up",
    "roll": "degrees counter-clockwise",
}
_SIDES = (
    (0, 1.05, "above", "center", "bottom"),
    (0, -1.05, "below", "center", "top"),
    (-1.04, 0, "left", "right", "center"),
    (1.04, 0, "right", "left", "center"),
)


def draw(stats: Stats, file: Path) -> Path:
    """Write the picture as a PNG; raises ValueError for another kind of file."""
    if file.suffix.lower() != ".png":
        raise ValueError(f"{file}: the picture is a PNG; name it so")
    heights = [7.8, 2.6] if stats.skin_lightness or stats.pose_deg else [7.8]
    figure = Figure(figsize=(12.5, sum(heights)), dpi=110, facecolor=PAPER)
    parts = figure.subfigures(len(heights), squeeze=False, height_ratios=heights)[:, 0]
    _draw_lights(parts[0], stats)
    if len(parts) > 1:
        _draw_heads(parts[1], stats)
    FigureCanvasAgg(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", facecolor=PAPER, metadata={"Software": None})
    file.parent.mkdir(parents=True, exist_ok=True)
    return write_atomically(file, buffer.getvalue())


def _draw_lights(figure: SubFigure, stats: Stats) -> None:
    """The title, where light comes from, and what any set has."""
    figure.set_facecolor(PAPER)
    grid = figure.add_gridspec(
        2, 4, left=0.03, right=0.975, top=0.83, bottom=0.085, wspace=0.32, hspace=0.42
    )
    images = sum(total.images for total in stats.totals.values())
    subjects = sum(total.subjects for total in stats.totals.values())
    figure.text(0.025, 0.94, stats.name, fontsize=19, color=INK, fontweight="bold")
    counts = f"{stats.portraits:,} portraits of {subjects:,} subjects, {images:,} images"
    figure.text(0.025, 0.9, f"{counts}; {stats.sampling}", fontsize=10.5, color=SOFT)
    _light_disc(figure.add_subplot(grid[:, :2]), stats)
    _bars(figure.add_subplot(grid[0, 2]), stats.lights, "Lights of a portrait", "portraits")
    _coverage(figure.add_subplot(grid[0, 3]), stats)
    bright, masked = (figure.add_subplot(grid[1, column]) for column in (2, 3))
    _distribution(bright, stats.brightness, "Brightness inside the mask", "images")
    _distribution(masked, stats.mask, "Mask's share of the picture", "portraits")
    for axes in (bright, masked):
        axes.xaxis.set_major_formatter(PercentFormatter(1))


def _draw_heads(figure: SubFigure, stats: Stats) -> None:
    """Skin tones and head poses."""
    figure.set_facecolor(PAPER)
    panels = figure.subplots(
        1,
        5,
        gridspec_kw={"left": 0.045, "right": 0.975, "top": 0.9, "bottom": 0.22, "wspace": 0.28},
    )
    lightness, angle, *turns = panels
    _distribution(
        lightness, stats.skin_lightness, "Skin, lightness L*", "portraits", (0.0, 100.0), 25
    )
    _distribution(angle, stats.ita_deg, "Skin, typology angle", "", (-90.0, 90.0), 30)
    for bound in BOUNDS_DEG:
        angle.axvline(bound, color=SOFT, lw=0.6, ls=(0, (2, 3)))
    angle.set_xlabel("degrees; lines part dark to very light", fontsize=8, color=SOFT)
    widest = max((abs(turn) for pose in stats.pose_deg for turn in pose), default=0)
    reach = max(30.0, 10.0 * math.ceil(widest / 10))
    for axes, (name, degrees) in zip(turns, stats.poses.items(), strict=True):
        _distribution(axes, degrees, f"Head's {name}", "", (-reach, reach), 24)
        axes.set_xlabel(_SENSE[name], fontsize=8, color=SOFT)


def _light_disc(axes: Axes, stats: Stats) -> None:
    """Directions as the camera sees them: the rim is 90 degrees off the line to the camera."""
    direction = np.array(stats.direction, np.float32).reshape(-1, 3)
    for angle in _RINGS_DEG:
        radius = np.sin(np.radians(angle))
        edge = SOFT if angle == _RINGS_DEG[-1] else RULE
        axes.add_patch(_circle(radius, edge))
        place = radius * np.sqrt(0.5)
        axes.text(
            place, place, f" {angle}°", color=SOFT, fontsize=8, va="bottom", ha="left", zorder=4
        )
    axes.plot([-1, 1], [0, 0], color=RULE, lw=0.8, zorder=1)
    axes.plot([0, 0], [-1, 1], color=RULE, lw=0.8, zorder=1)
    shown = direction[:: max(1, -(-len(direction) // _MAX_DOTS))]
    front, back = shown[shown[:, 2] >= 0], shown[shown[:, 2] < 0]
    alpha = float(np.clip(60 / np.sqrt(len(shown) + 1) / 2, 0.18, 0.9))
    axes.scatter(front[:, 0], front[:, 1], s=22, color=ACCENT, alpha=alpha, lw=0, zorder=3)
    axes.scatter(
        back[:, 0], back[:, 1], s=24, facecolors="none", edgecolors=BLUE, alpha=alpha, zorder=2
    )
    num_back = int((direction[:, 2] < 0).sum())
    _title(axes, "Where the light comes from, as the camera sees it")
    if not len(direction):
        axes.text(0, 0, "no light has a direction", color=SOFT, ha="center", va="center")
    else:
        text = f"● {len(direction) - num_back:,} from the front"
        axes.text(-1.08, -1.16, text, color=ACCENT, fontsize=10)
        axes.text(-0.3, -1.16, f"○ {num_back:,} from behind the face", color=BLUE, fontsize=10)
    for x, y, text, horizontal, vertical in _SIDES:
        axes.text(x, y, text, color=SOFT, fontsize=9, ha=horizontal, va=vertical)
    axes.set_xlim(-1.24, 1.24)
    axes.set_ylim(-1.24, 1.16)
    axes.set_aspect("equal")
    axes.set_anchor("NW")
    axes.axis("off")


def _circle(radius: float, edge: str) -> Circle:

    return Circle((0, 0), radius, fill=False, edgecolor=edge, lw=0.9, zorder=1)


def _bars(axes: Axes, counts: dict[int, int], title: str, unit: str) -> None:
    _frame(axes, title, unit)
    values, heights = list(counts), list(counts.values())
    axes.bar(values, heights, width=0.8, color=ACCENT)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=4))
    axes.set_xlim(min(values) - 1.5, max(values) + 1.5)


def _distribution(
    axes: Axes,
    values: list[float],
    title: str,
    unit: str,
    ends: tuple[float, float] = (0.0, 1.0),
    bins: int = 40,
) -> None:
    _frame(axes, title, unit)
    axes.set_xlim(*ends)
    if not values:
        axes.text(0.5, 0.5, "none", color=SOFT, ha="center", transform=axes.transAxes)
        axes.set_yticks([])
        return
    axes.hist(np.clip(values, *ends), bins=np.linspace(*ends, bins + 1), color=ACCENT)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=4))


def _coverage(axes: Axes, stats: Stats) -> None:
    """One bar for each label, of the kinds that portraits have."""
    _title(axes, "Portraits with a label")
    for row, kinds in enumerate(stats.labels.values()):
        left, whole = 0.0, sum(kinds.values())
        for kind in sorted(kinds, key=list(_KIND_COLOUR).index):
            share = kinds[kind] / whole
            axes.barh(row, share, left=left, height=0.62, color=_KIND_COLOUR[kind])
            if share > 0.35:
                colour = SOFT if kind == "absent" else "white"
                x = left + share / 2
                axes.text(x, row, kind, color=colour, fontsize=8.5, ha="center", va="center")
            left += share
    axes.set_yticks(range(len(stats.labels)), list(stats.labels), fontsize=9, color=INK)
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    _bare(axes)
    axes.tick_params(axis="y", length=0)


def _frame(axes: Axes, title: str, unit: str) -> None:
    _title(axes, title)
    axes.set_ylabel(unit, fontsize=8.5, color=SOFT)
    _bare(axes)
    axes.grid(axis="y", color=RULE, lw=0.7)
    axes.set_axisbelow(True)


def _title(axes: Axes, title: str) -> None:
    axes.set_title(title, loc="left", fontsize=10.5, color=INK, pad=10, fontweight="bold")


def _bare(axes: Axes) -> None:
    axes.set_facecolor(PAPER)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(SOFT)
    axes.tick_params(labelsize=8.5, colors=SOFT)
