"""One portrait in a shard: the only place that knows the tar member names and their encoding.

A portrait is one subject, pose and expression under L lights (a multi-lit group). Its members:

    KEY.light000.png ...    one image per light, 8 or 16 bit, gray or RGB, as the source stored it
                            (light000.jpg where the build was asked for JPEG)
    KEY.albedo.png          optional, 16-bit RGB, linear
    KEY.normal.png          optional, 16-bit RGB, (normal + 1) / 2: within 0.0016 degrees
    KEY.mask.png            optional, 8-bit gray, 255 on the portrait
    KEY.confidence.png      optional, 8-bit gray, 255 where the labels can be trusted
    KEY.NAME.png            optional, layers (relightx.layers)
    KEY.meta.json           lights (name, sh, direction), subject, provenance, pose if known

PNG because it is lossless, holds 16 bits and every WebDataset reader decodes it. Images keep the
source's integers and name their transfer function, so packing loses nothing unless JPEG is asked
for.
"""

import json
import re
from collections.abc import Container, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool, Float, Integer, Shaped

from relightx.codec import decode_picture, encode_jpeg, encode_png
from relightx.color import TRANSFERS, from_integer
from relightx.layers import LAYER_NAME, encode_layer, layers_meta
from relightx.metatext import light_record, split_meta
from relightx.pose import Pose, checked_pose

VERSION = 1
LABELS = ("real", "pseudo", "absent")
MAPS = ("albedo", "normal", "mask", "confidence")
"""Pictures that belong to a portrait and not to one of its lights."""
MAX_LIGHTS = 1000
MAX_SIDE_PX = 8192
_KEY = re.compile(r"[A-Za-z0-9_-]+")


class BrokenMember(ValueError):
    """A member that is missing or cannot be what it should; `extension` says which."""

    def __init__(self, key: str, extension: str, fault: object) -> None:
        super().__init__(f"portrait {key!r}: {extension} {fault}")
        self.extension = extension


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
    affine: tuple[tuple[float, float, float], ...] | None = None
    """2 x 3 map from (column, row, 1) in the source's picture to the stored picture, in pixels,
    the centre of the upper left pixel being (0.5, 0.5); None: not moved. It undoes the crop."""
    source_size: tuple[int, int] | None = None
    """Width and height of the source's picture, where `affine` is given."""


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
    confidence: [0, 1], how far the labels can be trusted at each pixel; it weighs their losses.
        None means fully.
    sh: radiance coefficients of each light (relightx.sh), with image = albedo * shade(normal, sh).
    direction: unit vector toward each light, same frame.
    pose_deg: yaw (to the image's right), pitch (up) and roll (counter-clockwise) of the head
        (relightx.pose); None where nobody knows.
    layers: more pictures by name (relightx.layers); what is decoded has none.
    """

    key: str
    subject: str
    image: Integer[np.ndarray, "lights height width channels"]
    light_name: tuple[str, ...]
    provenance: Provenance
    albedo: Float[np.ndarray, "height width 3"] | None = None
    normal: Float[np.ndarray, "height width 3"] | None = None
    mask: Bool[np.ndarray, "height width"] | None = None
    confidence: Float[np.ndarray, "height width"] | None = None
    sh: Float[np.ndarray, "lights 3 9"] | None = None
    direction: Float[np.ndarray, "lights 3"] | None = None
    pose_deg: Pose | None = None
    layers: Mapping[str, Shaped[np.ndarray, "height width _"]] = field(default_factory=dict)

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
        "confidence": (height, width),
        "sh": (lights, 3, 9),
        "direction": (lights, 3),
    }
    for name, shape in shapes.items():
        value = getattr(portrait, name)
        if value is not None and value.shape != shape:
            raise ValueError(f"{where}: {name} has shape {value.shape}, its images need {shape}")
        if value is not None and not np.isfinite(value).all():
            raise ValueError(f"{where}: {name} has values that are not finite")
    if portrait.pose_deg is not None:
        try:
            checked_pose(portrait.pose_deg)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
    for name, values in portrait.layers.items():
        if values.shape[:2] != (height, width) or not LAYER_NAME.fullmatch(name):
            raise ValueError(f"{where}: layer {name!r} has shape {values.shape}, or a bad name")
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


def encode(portrait: Portrait, jpeg_quality: int | None = None) -> dict[str, bytes]:
    """The tar members of a portrait by extension, in order. Raises ValueError (see `check`).

    jpeg_quality: 1 to 100 stores the images of the lights, which must be 8-bit sRGB, as JPEG
        without subsampling of colour; None stores them as PNG, without loss. Labels are always PNG.
    """
    check(portrait)
    if jpeg_quality is None:
        members = {
            light_extension(index): encode_png(image) for index, image in enumerate(portrait.image)
        }
    else:
        members = _jpegs(portrait, jpeg_quality)
    if portrait.albedo is not None:
        members["albedo.png"] = encode_png(_to_uint16(portrait.albedo))
    if portrait.normal is not None:
        length = np.linalg.norm(portrait.normal, axis=-1, keepdims=True)
        unit = portrait.normal / np.maximum(length, 1e-6)
        members["normal.png"] = encode_png(_to_uint16((unit + 1) / 2))
    if portrait.mask is not None:
        members["mask.png"] = encode_png(portrait.mask.astype(np.uint8)[..., None] * 255)
    if portrait.confidence is not None:
        stored = np.rint(np.clip(portrait.confidence, 0, 1) * 255).astype(np.uint8)[..., None]
        members["confidence.png"] = encode_png(stored)
    members |= {f"{name}.png": encode_layer(values) for name, values in portrait.layers.items()}
    members["meta.json"] = json.dumps(_meta(portrait), sort_keys=True).encode()
    return members


def decode(key: str, members: dict[str, bytes], lights: list[int] | None = None) -> Portrait:
    """The portrait of these members, with only the named lights (all when None).

    Raises ValueError naming the key and the member that is missing, broken or of another size.
    """
    meta = _parse_meta(key, members, lights)
    chosen, size = meta.chosen, meta.size
    image = np.stack([_picture(key, members, light_member(members, i), size) for i in chosen])
    albedo = normal = mask = confidence = None
    if "albedo.png" in members:
        albedo = _label(key, members, "albedo.png", size)
    if "normal.png" in members:
        normal = _label(key, members, "normal.png", size)
        normal *= 2
        normal -= 1
        normal = unit(normal)
    if "mask.png" in members:
        mask = _picture(key, members, "mask.png", size)[..., 0] > 127
    if "confidence.png" in members:
        stored = _picture(key, members, "confidence.png", size)[..., 0]
        confidence = stored / np.float32(np.iinfo(stored.dtype).max)
    return Portrait(
        key=key,
        subject=meta.subject,
        image=image,
        light_name=meta.light_name,
        provenance=meta.provenance,
        albedo=albedo,
        normal=normal,
        mask=mask,
        confidence=confidence,
        sh=meta.sh,
        direction=meta.direction,
        pose_deg=meta.pose_deg,
    )


def unit(normal: Float[np.ndarray, "*shape 3"]) -> Float[np.ndarray, "*shape 3"]:
    """Vectors of length 1, float32; a zero vector stays zero."""
    # The same bits as numpy.linalg.norm and a division by its last axis of 1, in an eighth of the
    # time: NumPy is slow along axes that short.
    vectors = np.ascontiguousarray(normal, np.float32).reshape(1, -1, 3)
    square = vectors * vectors
    length = square[..., 0] + square[..., 1]
    length += square[..., 2]
    length = np.maximum(np.sqrt(length, out=length), 1e-6, out=length)
    return (vectors / cv2.cvtColor(length, cv2.COLOR_GRAY2RGB)).reshape(normal.shape)


def light_extension(index: int, ending: str = "png") -> str:
    """Extension of the member that holds one light's image."""
    return f"light{index:03d}.{ending}"


def light_member(held: Container[str], index: int) -> str:
    """Which of the members held is one light's image: JPEG or, also where there is none, PNG."""
    jpeg = light_extension(index, "jpg")
    return jpeg if jpeg in held else light_extension(index)


def extensions(
    held: Container[str], num_lights: int, lights: list[int], labels: tuple[str, ...] = MAPS
) -> list[str]:
    """Members to read, of those held, for some lights and some of `MAPS`."""
    outside = [index for index in lights if not 0 <= index < num_lights]
    if outside:
        raise ValueError(f"lights {outside} asked of a portrait with {num_lights}")
    maps = [f"{name}.png" for name in labels if f"{name}.png" in held]
    return [light_member(held, index) for index in lights] + maps + ["meta.json"]


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

    pose = portrait.pose_deg
    return {
        "version": VERSION,
        **layers_meta(portrait.layers),
        **({} if pose is None else {"pose_deg": _rounded(pose)}),
        "subject": portrait.subject,
        "height": portrait.image.shape[1],
        "width": portrait.image.shape[2],
        "lights": [light(index) for index in range(portrait.num_lights)],
        "provenance": {k: v for k, v in asdict(portrait.provenance).items() if v is not None},
    }


@dataclass(frozen=True)
class _Meta:
    """What meta.json holds of the chosen lights."""

    subject: str
    size: tuple[int, int]
    chosen: list[int]
    light_name: tuple[str, ...]
    sh: np.ndarray | None
    direction: np.ndarray | None
    provenance: Provenance
    pose_deg: Pose | None


def _parse_meta(key: str, members: dict[str, bytes], lights: list[int] | None) -> _Meta:
    if "meta.json" not in members:
        raise ValueError(f"portrait {key!r}: member meta.json is missing")
    try:
        meta, records = split_meta(members["meta.json"])
        version = meta["version"]
    except (ValueError, KeyError, TypeError) as error:
        raise BrokenMember(key, "meta.json", f"cannot be read: {error!r}") from None
    if version != VERSION:
        raise ValueError(
            f"portrait {key!r}: format version {version}, this program reads {VERSION}"
        )
    chosen = list(range(len(records))) if lights is None else lights
    outside = [index for index in chosen if not 0 <= index < len(records)]
    if outside or not chosen:
        raise ValueError(f"portrait {key!r} has {len(records)} lights, asked for are {chosen}")
    try:
        wanted = [light_record(records[index]) for index in chosen]
        return _Meta(
            subject=meta["subject"],
            size=(meta["height"], meta["width"]),
            chosen=chosen,
            light_name=tuple(light["name"] for light in wanted),
            sh=_light_array(wanted, "sh", (3, 9)),
            direction=_light_array(wanted, "direction", (3,)),
            provenance=_provenance(meta["provenance"]),
            pose_deg=checked_pose(meta["pose_deg"]) if "pose_deg" in meta else None,
        )
    except (ValueError, KeyError, TypeError) as error:
        raise BrokenMember(key, "meta.json", f"cannot be used: {error!r}") from None


def _provenance(record: dict[str, Any]) -> Provenance:
    affine, size = record.get("affine"), record.get("source_size")
    if affine is not None:
        affine = tuple(tuple(map(float, row)) for row in affine)
        if [len(row) for row in affine] != [3, 3]:
            raise ValueError(f"affine is not 2 x 3 numbers: {affine}")
    size = None if size is None else tuple(map(int, size))
    return Provenance(**(record | {"affine": affine, "source_size": size}))


def _light_array(
    records: list[dict[str, Any]], name: str, shape: tuple[int, ...]
) -> np.ndarray | None:
    values = [record[name] for record in records]
    if any(value is None for value in values):
        return None
    return np.array(values, np.float32).reshape(len(values), *shape)


def _rounded(values: np.ndarray | Pose) -> list:
    return np.round(np.asarray(values, np.float64), 7).tolist()


def _to_uint16(values: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(values, 0, 1) * 65535).astype(np.uint16)


def _jpegs(portrait: Portrait, quality: int) -> dict[str, bytes]:
    if portrait.image.dtype != np.uint8 or portrait.provenance.transfer != "srgb":
        raise ValueError(
            f"portrait {portrait.key!r}: images are {portrait.image.dtype}"
            f" {portrait.provenance.transfer}; JPEG holds uint8 srgb"
        )
    return {
        light_extension(index, "jpg"): encode_jpeg(image, quality)
        for index, image in enumerate(portrait.image)
    }


def _label(
    key: str, members: dict[str, bytes], extension: str, size: tuple[int, int]
) -> Float[np.ndarray, "height width 3"]:
    """A 16-bit RGB picture as numbers in [0, 1]."""
    pixels = _picture(key, members, extension, size)
    if pixels.dtype != np.uint16 or pixels.shape[2] != 3:
        fault = f"is {pixels.dtype} with {pixels.shape[2]} channels; 16-bit RGB needed"
        raise BrokenMember(key, extension, fault)
    return from_integer(pixels, "linear")


def _picture(
    key: str, members: dict[str, bytes], extension: str, size: tuple[int, int]
) -> Integer[np.ndarray, "height width channels"]:
    if extension not in members:
        raise ValueError(f"portrait {key!r}: member {extension} is missing")
    try:
        return decode_picture(members[extension], size)
    except ValueError as error:
        raise BrokenMember(key, extension, error) from None
