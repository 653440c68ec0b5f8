"""What decoding costs, by library, by how a PNG is stored, and by stage of a training portrait.

python tests/benchmarks/decoding.py
python tests/benchmarks/decoding.py --tables libraries --rounds 40

Rendered heads with a camera's grain, as shards hold them. All ways of a table take turns, picture
by picture through several rounds of one run, on one thread; a time is the median, in microseconds.
`OpenCV, copied` is the way that relightx once went; `times` says how often faster the others are.
`view` also has the pixels in linear light, letterboxed for training. Libraries that are not
installed are left out: pip install imagecodecs pyspng imgread brings the whole table.
"""

import argparse
import importlib
import io
import os
import platform
import time
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image

from relightx.codec import decode_picture, encode_jpeg, encode_png
from relightx.color import from_integer
from relightx.data.fit import fit, letterbox
from relightx.sample import Portrait, decode, encode, light_extension
from shards.rendering.synthetic import synthetic_one

BEFORE = "OpenCV, copied"
VIEW = 128
"""Pixels of a side that pictures are trained at."""
Decoder = Callable[[bytes], np.ndarray]


class Kind(NamedTuple):
    """Pictures of one kind: how they are stored, and as integers."""

    stored: list[bytes]
    pixels: list[np.ndarray]
    transfer: str


# ---------------------------------------------------------------- pictures


def heads(count: int, size: int, lights: int = 2) -> list[Portrait]:
    """Rendered portraits, with noise of one and a half levels on the head."""
    noise = np.random.default_rng(0)
    found = []
    for head in range(count):
        portrait = synthetic_one(head, lights=lights, size=size)
        grain = noise.normal(0, 1.5, portrait.image.shape) * (portrait.image > 0)
        image = np.clip(np.rint(portrait.image + grain), 0, 255).astype(np.uint8)
        found.append(replace(portrait, image=image))
    return found


def kinds(count: int) -> dict[str, Kind]:
    """What shards hold."""
    found = {}
    for size in (128, 256):
        portraits = heads(count, size)
        members = [encode(portrait) for portrait in portraits]
        colour = [picture for portrait in portraits for picture in portrait.image]
        found[f"RGB {size}x{size}"] = png_kind(colour)
        found[f"gray {size}x{size}"] = png_kind([picture[..., 1:2] for picture in colour])
        for name in ("albedo", "normal", "mask"):
            stored = [held[f"{name}.png"] for held in members]
            pixels = [decode_picture(data, (size, size)) for data in stored]
            found[f"{name} {size}x{size}"] = Kind(stored, pixels, "linear")
        jpegs = [encode_jpeg(picture, 95) for picture in colour]
        found[f"JPEG {size}x{size}"] = Kind(jpegs, [copied(data) for data in jpegs], "srgb")
    tall = [portrait.image[0][:, 12:180, 1:2] for portrait in heads(count, 192, lights=1)]
    found["gray 168x192"] = png_kind(tall)
    return found


def png_kind(pixels: list[np.ndarray]) -> Kind:
    return Kind([encode_png(picture) for picture in pixels], pixels, "srgb")


# ---------------------------------------------------------------- libraries


def opencv(data: bytes, flags: int = cv2.IMREAD_UNCHANGED) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(data, np.uint8), flags)


def copied(data: bytes) -> np.ndarray:
    """The way that relightx once went; of a JPEG, Pillow read the header."""
    if data[:2] == b"\xff\xd8":
        with Image.open(io.BytesIO(data), formats=["JPEG"]) as picture:
            assert picture.height
    pixels = opencv(data)
    return pixels[..., None] if pixels.ndim == 2 else np.ascontiguousarray(pixels[..., ::-1])


def swapped(data: bytes) -> np.ndarray:
    pixels = opencv(data)
    return pixels if pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)


def pillow(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as picture:
        return np.asarray(picture)


def decoders(size: tuple[int, int]) -> dict[str, Decoder]:
    """By name, those that are installed; some raise for some kinds."""
    in_rgb = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION
    found = {
        BEFORE: copied,
        "relightx": lambda data: decode_picture(data, size),
        "OpenCV, cvtColor": swapped,
        "OpenCV, COLOR_RGB": lambda data: opencv(data, in_rgb),
        "Pillow": pillow,
    }
    optional = {
        "imagecodecs": ("png_decode", "spng_decode", "apng_decode", "jpeg8_decode"),
        "pyspng": ("load",),
        "imgread": ("load_numpy_from_bytes",),
        "simplejpeg": ("decode_jpeg",),
    }
    for module, names in optional.items():
        try:
            library = importlib.import_module(module)
        except ImportError:
            continue
        found |= {f"{module} {name}": getattr(library, name) for name in names}
    kornia = importlib.import_module("kornia_rs")
    found["kornia_rs Image.decode"] = lambda data: kornia.image.Image.decode(data).numpy()
    found["kornia_rs jpegturbo"] = lambda data: kornia.io.decode_image_jpegturbo(data, "rgb")
    return found


def able(decoder: Decoder, kind: Kind) -> bool:
    """Whether it decodes this kind, with the very pixels of OpenCV and Pillow."""
    for data, expected in zip(kind.stored, kind.pixels, strict=True):
        try:
            pixels = decoder(data)
        except Exception:  # each library raises its own
            return False
        same = pixels.dtype == expected.dtype and pixels.size == expected.size
        if not same or not np.array_equal(pixels.ravel(), expected.ravel()):
            return False
    return True


def viewed(decoder: Decoder, transfer: str) -> Decoder:
    """Decoding up to linear light at the size of training."""
    return lambda data: letterbox(from_integer(decoder(data), transfer).squeeze(), VIEW)


def turns(ways: dict[str, Callable], items: list, rounds: int) -> dict[str, float]:
    """Median microseconds of each way for an item."""
    spent: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name, way in ways.items():
            for item in items:
                start = time.perf_counter()
                way(item)
                if turn:  # the first one warms up
                    spent[name].append(time.perf_counter() - start)
    return {name: float(np.median(times)) * 1e6 for name, times in spent.items()}


def compare_libraries(count: int, rounds: int) -> None:
    """Every kind, by every library that gives its exact pixels."""
    print(f"{'':<32}{'pixels':>9}{'times':>7}{'view':>9}{'times':>7}")
    for name, kind in kinds(count).items():
        mean = np.mean([len(data) for data in kind.stored])
        print(f"{name}, {mean:.0f} bytes")
        everyone = decoders(kind.pixels[0].shape[:2])
        ways = {who: way for who, way in everyone.items() if able(way, kind)}
        pixels = turns(ways, kind.stored, rounds)
        views = {who: viewed(way, kind.transfer) for who, way in ways.items()}
        view = turns(views, kind.stored, rounds)
        for who in sorted(ways, key=pixels.get):
            gain, view_gain = pixels[BEFORE] / pixels[who], view[BEFORE] / view[who]
            print(f"  {who:<30}{pixels[who]:>9.0f}{gain:>7.2f}{view[who]:>9.0f}{view_gain:>7.2f}")


# ---------------------------------------------------------------- storing


def png_options() -> dict[str, tuple[int, ...]]:
    """Ways to store a PNG that can come near our own: OpenCV's options by name."""
    found: dict[str, tuple[int, ...]] = {"OpenCV's default": ()}
    filters = {
        name.lower(): getattr(cv2, f"IMWRITE_PNG_{name}")
        for name in ("FILTER_NONE", "FILTER_SUB", "FILTER_UP", "FILTER_AVG", "FILTER_PAETH")
    } | {"fast filters": cv2.IMWRITE_PNG_FAST_FILTERS, "all filters": cv2.IMWRITE_PNG_ALL_FILTERS}
    runs, filtered = cv2.IMWRITE_PNG_STRATEGY_RLE, cv2.IMWRITE_PNG_STRATEGY_FILTERED
    for name, chosen in filters.items():
        for level, strategy, word in ((1, runs, "runs"), (4, filtered, "level 4")):
            found[f"{name.removeprefix('filter_')}, {word}"] = (
                *(cv2.IMWRITE_PNG_COMPRESSION, level),  # first: it sets the other two back
                *(cv2.IMWRITE_PNG_FILTER, chosen, cv2.IMWRITE_PNG_STRATEGY, strategy),
            )
    return found


def compare_storing(count: int, rounds: int) -> None:
    """Bytes, encoding and decoding of each kind of PNG; all against OpenCV's default."""
    print(f"{'':<32}{'bytes':>9}{'share':>7}{'encode':>9}{'share':>7}{'decode':>9}{'share':>7}")
    for name, kind in kinds(count).items():
        if name.startswith("JPEG"):
            continue
        print(name)
        pixels = [np.ascontiguousarray(picture) for picture in kind.pixels]
        encoders = {
            way: lambda picture, options=options: cv2.imencode(".png", picture, options)[1]
            for way, options in png_options().items()
        }
        stored = {way: [e(picture).tobytes() for picture in pixels] for way, e in encoders.items()}
        encoding = turns(encoders, pixels, max(1, rounds // 4))
        readers = {
            way: lambda index, held=held, size=pixels[0].shape[:2]: decode_picture(
                held[index], size
            )
            for way, held in stored.items()
        }
        reading = turns(readers, list(range(len(pixels))), rounds)
        length = {way: float(np.mean([len(data) for data in held])) for way, held in stored.items()}
        first = next(iter(stored))
        for way in stored:
            line = f"  {way:<30}"
            for figure in (length, encoding, reading):
                line += f"{figure[way]:>9.0f}{figure[way] / figure[first]:>7.2f}"
            print(line)


# ---------------------------------------------------------------- a portrait


LIGHTS = [2, 5]
LABELS = ["albedo.png", "normal.png", "mask.png"]


def stages(portraits: list[dict[str, bytes]], size: int) -> dict[str, Callable]:
    """Ways to spend time on a portrait, by number; the last two are all of it."""
    whole = [decode("head", members, LIGHTS) for members in portraits]

    def pixels(names: list[str]) -> Callable:
        return lambda i: [decode_picture(portraits[i][name], (size, size)) for name in names]

    return {
        "pixels of 2 lights": pixels([light_extension(light) for light in LIGHTS]),
        "pixels of albedo, normal, mask": pixels(LABELS),
        "decode, these within": lambda i: decode("head", portraits[i], LIGHTS),
        "fit": lambda i: fit(whole[i], VIEW),
    }


def show_stages(count: int, rounds: int) -> None:
    """A portrait under two of its eight lights, with all labels, as training reads it."""
    for size in (128, 256):
        portraits = [encode(portrait) for portrait in heads(count, size, lights=8)]
        found = turns(stages(portraits, size), list(range(count)), rounds)
        print(f"portrait of {size}x{size}, 2 of 8 lights, fitted to {VIEW}")
        for stage, spent in found.items():
            print(f"  {stage:<32}{spent:>9.0f}")
        total = found["decode, these within"] + found["fit"]
        share = sum(spent for stage, spent in found.items() if stage.startswith("pixels")) / total
        print(f"  {'decode and fit':<32}{total:>9.0f}   {share:.0%} of it decompression")


TABLES = {"libraries": compare_libraries, "storing": compare_storing, "stages": show_stages}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=list(TABLES))
    parser.add_argument("--heads", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    cv2.setNumThreads(0)
    print(f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    for name in options.tables:
        print(f"\n{name}: {TABLES[name].__doc__}")
        TABLES[name](options.heads, options.rounds)


if __name__ == "__main__":
    main()
