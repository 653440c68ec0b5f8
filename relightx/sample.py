"""One portrait in a shard: the only place that knows the tar member names and their encoding.

A portrait is one subject, pose and expression under L lights (a multi-lit group). Its members:

    KEY.light000.png ...  one image per light, 8 or 16 bit, gray or RGB, as the source stored it
    KEY.albedo.png        optional, 16-bit RGB, linear
    KEY.normal.png        optional, 16-bit RGB, (normal + 1) / 2: within 0.0016 degrees
    KEY.mask.png          optional, 8-bit gray, 255 on the portrait
    KEY.meta.json         lights (name, sh, direction), subject, provenance

PNG because it is lossless, holds 16 bits and every WebDataset reader decodes it. Images keep the
source's integers and name their transfer function, so packing loses nothing.
"""

import json
import re
from dataclasses import asdict, dataclass, replace
from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool, Float, Integer

from relightx.color import TRANSFERS, from_integer

VERSION = 1
LABELS = ("real", "pseudo", "absent")
MAX_LIGHTS = 1000
MAX_SIDE_PX = 8192
_KEY = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True)
class Provenance:
    """Where a portrait comes from and how far its labels can be trusted."""

    source: str
    """Name of the data set or generator, with its version."""
    licence: str
    """Terms of use of the images, in a few words."""
    crop: str
    """How the picture was cropped and resized from what the source publishes."""
    transfer: str
    """Transfer function of the stored images: 'srgb' or 'linear'."""
    albedo: str = "absent"
    """'real' (measured or rendered), 'pseudo' (estimated) or 'absent'; likewise the next two."""
    normal: str = "absent"
    light: str = "absent"


@dataclass(frozen=True)
class Portrait:
    """One subject, pose and expression under several lights.

    key: name of the group, letters, digits, '_' and '-'; unique in its data set.
    subject: the person; splits and supervision fractions go by it.
    image: integers as stored, one picture per light; 1 (gray) or 3 channels.
    light_name: what the source calls each light.
    albedo: linear RGB in [0, 1].
    normal: unit length; +x right in the image, +y up, +z to the camera; any value outside the mask.
    mask: True on the portrait; None means everywhere.
    sh: radiance coefficients of each light (relightx.sh), with image = albedo * shade(normal, sh).
    direction: unit vector toward each light, same frame.
    """

    key: str
    subject: str
    image: Integer[np.ndarray, "lights height width channels"]
    light_name: tuple[str, ...]
    provenance: Provenance
    albedo: Float[np.ndarray, "height width 3"] | None = None
    normal: Float[np.ndarray, "height width 3"] | None = None
    mask: Bool[np.ndarray, "height width"] | None = None
    sh: Float[np.ndarray, "lights 3 9"] | None = None
    direction: Float[np.ndarray, "lights 3"] | None = None

    @property
    def num_lights(self) -> int:
        return len(self.image)

    def linear_image(self) -> Float[np.ndarray, "lights height width 3"]:
        """The images in linear RGB, [0, 1]; gray is repeated."""
        linear = from_integer(self.image, self.provenance.transfer)
        return np.broadcast_to(linear, (*linear.shape[:3], 3))


def check(portrait: Portrait) -> None:
    """Refuse a portrait that cannot be stored whole: ValueError naming the key and the fault."""
    image, where = portrait.image, f"portrait {portrait.key!r}"
    if not _KEY.fullmatch(portrait.key):
        raise ValueError(f"{where}: a key may only have letters, digits, '_' and '-'")
    if not portrait.subject:
        raise ValueError(f"{where}: its subject is empty")
    if image.ndim != 4 or image.shape[3] not in (1, 3) or image.dtype not in (np.uint8, np.uint16):
        raise ValueError(
            f"{where}: images are {image.dtype} {image.shape};"
            " uint8 or uint16 lights x height x width x (1 or 3) needed"
        )
    lights, height, width = image.shape[:3]
    if not 1 <= lights <= MAX_LIGHTS or not all(
        1 <= side <= MAX_SIDE_PX for side in (height, width)
    ):
        raise ValueError(f"{where}: {lights} lights of {width}x{height} is out of bounds")
    shapes = {
        "albedo": (height, width, 3),
        "normal": (height, width, 3),
        "mask": (height, width),
        "sh": (lights, 3, 9),
        "direction": (lights, 3),
    }
    for name, shape in shapes.items():
        value = getattr(portrait, name)
        if value is not None and value.shape != shape:
            raise ValueError(f"{where}: {name} has shape {value.shape}, its images need {shape}")
        if value is not None and not np.isfinite(value).all():
            raise ValueError(f"{where}: {name} has values that are not finite")
    if len(portrait.light_name) != lights:
        raise ValueError(f"{where}: {len(portrait.light_name)} light names for {lights} images")
    if portrait.provenance.transfer not in TRANSFERS:
        raise ValueError(
            f"{where}: transfer is {portrait.provenance.transfer!r}, needed is one of {TRANSFERS}"
        )
    for name in ("albedo", "normal", "light"):
        label = getattr(portrait.provenance, name)
        held = portrait.sh if name == "light" else getattr(portrait, name)
        if label not in LABELS or (held is None) != (label == "absent"):
            held_text = "absent" if held is None else "present"
            raise ValueError(f"{where}: {name} label is {held_text}, its provenance says {label!r}")


def encode(portrait: Portrait) -> dict[str, bytes]:
    """The tar members of a portrait by extension, in order. Raises ValueError (see `check`)."""
    check(portrait)
    members = {
        light_extension(index): _png(image, portrait.key)
        for index, image in enumerate(portrait.image)
    }
    if portrait.albedo is not None:
        members["albedo.png"] = _png(_to_uint16(portrait.albedo), portrait.key)
    if portrait.normal is not None:
        length = np.linalg.norm(portrait.normal, axis=-1, keepdims=True)
        unit = portrait.normal / np.maximum(length, 1e-6)
        members["normal.png"] = _png(_to_uint16((unit + 1) / 2), portrait.key)
    if portrait.mask is not None:
        members["mask.png"] = _png(portrait.mask.astype(np.uint8)[..., None] * 255, portrait.key)
    members["meta.json"] = json.dumps(_meta(portrait), sort_keys=True).encode()
    return members


def decode(key: str, members: dict[str, bytes], lights: list[int] | None = None) -> Portrait:
    """The portrait of these members, with only the named lights (all when None).

    Raises ValueError naming the key and the member that is missing, broken or of another size.
    """
    meta = _parse_meta(key, members)
    chosen = list(range(len(meta.light_name))) if lights is None else lights
    outside = [index for index in chosen if not 0 <= index < len(meta.light_name)]
    if outside or not chosen:
        raise ValueError(
            f"portrait {key!r} has {len(meta.light_name)} lights, asked for are {chosen}"
        )
    size = meta.size
    image = np.stack([_picture(key, members, light_extension(i), size) for i in chosen])
    albedo = normal = mask = None
    if "albedo.png" in members:
        albedo = _label(key, members, "albedo.png", size)
    if "normal.png" in members:
        normal = _label(key, members, "normal.png", size) * 2 - 1
        normal /= np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-6)
    if "mask.png" in members:
        mask = _picture(key, members, "mask.png", size)[..., 0] > 127
    return Portrait(
        key=key,
        subject=meta.subject,
        image=image,
        light_name=tuple(meta.light_name[i] for i in chosen),
        provenance=meta.provenance,
        albedo=albedo,
        normal=normal,
        mask=mask,
        sh=None if meta.sh is None else meta.sh[chosen],
        direction=None if meta.direction is None else meta.direction[chosen],
    )


def light_extension(index: int) -> str:
    """Extension of the member that holds one light's image."""
    return f"light{index:03d}.png"


def extensions(num_lights: int, lights: list[int], labels: list[str]) -> list[str]:
    """Members to read for some lights and some of 'albedo', 'normal', 'mask'."""
    outside = [index for index in lights if not 0 <= index < num_lights]
    if outside:
        raise ValueError(f"lights {outside} asked of a portrait with {num_lights}")
    return [light_extension(i) for i in lights] + [f"{name}.png" for name in labels] + ["meta.json"]


def without_labels(portrait: Portrait, names: tuple[str, ...]) -> Portrait:
    """The portrait with some of its 'albedo', 'normal', 'light' labels taken away."""
    fields = {("sh" if name == "light" else name): None for name in names}
    provenance = replace(portrait.provenance, **dict.fromkeys(names, "absent"))
    return replace(portrait, provenance=provenance, **fields)


def _meta(portrait: Portrait) -> dict[str, Any]:
    def light(index: int) -> dict[str, Any]:
        return {
            "name": portrait.light_name[index],
            "sh": None if portrait.sh is None else _rounded(portrait.sh[index]),
            "direction": None
            if portrait.direction is None
            else _rounded(portrait.direction[index]),
        }

    return {
        "version": VERSION,
        "subject": portrait.subject,
        "height": portrait.image.shape[1],
        "width": portrait.image.shape[2],
        "lights": [light(index) for index in range(portrait.num_lights)],
        "provenance": asdict(portrait.provenance),
    }


@dataclass(frozen=True)
class _Meta:
    """What meta.json holds, for all lights."""

    subject: str
    size: tuple[int, int]
    light_name: list[str]
    sh: np.ndarray | None
    direction: np.ndarray | None
    provenance: Provenance


def _parse_meta(key: str, members: dict[str, bytes]) -> _Meta:
    if "meta.json" not in members:
        raise ValueError(f"portrait {key!r}: member meta.json is missing")
    try:
        meta = json.loads(members["meta.json"])
        version = meta["version"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"portrait {key!r}: meta.json cannot be read: {error!r}") from None
    if version != VERSION:
        raise ValueError(
            f"portrait {key!r}: format version {version}, this program reads {VERSION}"
        )
    try:
        return _Meta(
            subject=meta["subject"],
            size=(meta["height"], meta["width"]),
            light_name=[light["name"] for light in meta["lights"]],
            sh=_light_array(meta["lights"], "sh", (3, 9)),
            direction=_light_array(meta["lights"], "direction", (3,)),
            provenance=Provenance(**meta["provenance"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"portrait {key!r}: meta.json cannot be used: {error!r}") from None


def _light_array(
    records: list[dict[str, Any]], name: str, shape: tuple[int, ...]
) -> np.ndarray | None:
    values = [record[name] for record in records]
    if any(value is None for value in values):
        return None
    return np.array(values, np.float32).reshape(len(values), *shape)


def _rounded(values: np.ndarray) -> list:
    return np.round(np.asarray(values, np.float64), 7).tolist()


def _to_uint16(values: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(values, 0, 1) * 65535).astype(np.uint16)


def _png(pixels: np.ndarray, key: str) -> bytes:
    stored = pixels[..., ::-1] if pixels.shape[-1] == 3 else pixels  # OpenCV's order is BGR
    done, buffer = cv2.imencode(".png", np.ascontiguousarray(stored))
    if not done:
        raise ValueError(f"portrait {key!r}: a {pixels.dtype} {pixels.shape} PNG failed to encode")
    return buffer.tobytes()


def _label(
    key: str, members: dict[str, bytes], extension: str, size: tuple[int, int]
) -> Float[np.ndarray, "height width 3"]:
    """A 16-bit RGB picture as numbers in [0, 1]."""
    pixels = _picture(key, members, extension, size)
    if pixels.dtype != np.uint16 or pixels.shape[2] != 3:
        raise ValueError(
            f"portrait {key!r}: {extension} is {pixels.dtype} with {pixels.shape[2]} channels;"
            " 16-bit RGB needed"
        )
    return pixels / np.float32(65535)


def _picture(
    key: str, members: dict[str, bytes], extension: str, size: tuple[int, int]
) -> Integer[np.ndarray, "height width channels"]:
    if extension not in members:
        raise ValueError(f"portrait {key!r}: member {extension} is missing")
    data = members[extension]
    # The header tells the size before any memory is spent on pixels.
    found = (int.from_bytes(data[20:24], "big"), int.from_bytes(data[16:20], "big"))
    if data[:8] != b"\x89PNG\r\n\x1a\n" or found != size:
        raise ValueError(
            f"portrait {key!r}: {extension} is not a PNG of {size[1]}x{size[0]} (found"
            f" {found[1]}x{found[0]})"
        )
    if not data.endswith(b"IEND\xaeB`\x82"):
        raise ValueError(f"portrait {key!r}: {extension} is cut short")
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise ValueError(f"portrait {key!r}: {extension} cannot be decoded")
    return pixels[..., None] if pixels.ndim == 2 else pixels[..., ::-1]
