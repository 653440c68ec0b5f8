"""A portrait goes into tar members and comes out again; what cannot be stored whole is named."""

import copy
import io
import json
import tarfile
from dataclasses import replace

import cv2
import numpy as np
import pytest
import webdataset

from relightx.color import to_srgb8
from relightx.sample import (
    MAX_LIGHTS,
    Portrait,
    check,
    decode,
    encode,
    extensions,
    light_extension,
    without_labels,
)


def altered(portrait: Portrait, **fields) -> Portrait:
    """The portrait with unfit fields, past the constructor that pytest's shape hook guards."""
    changed = copy.copy(portrait)
    for name, value in fields.items():
        object.__setattr__(changed, name, value)
    return changed


def eight_bit(portrait: Portrait) -> Portrait:
    """The portrait as a camera would store it: 8-bit sRGB."""
    return replace(
        portrait,
        image=to_srgb8(portrait.linear_image()),
        provenance=replace(portrait.provenance, transfer="srgb"),
    )


def angles_deg(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    one, other = (v / np.linalg.norm(v, axis=-1, keepdims=True) for v in (one, other))
    half = np.linalg.norm(one - other, axis=-1), np.linalg.norm(one + other, axis=-1)
    return np.degrees(2 * np.arctan2(*half))


def assert_same(one: Portrait, other: Portrait) -> None:
    np.testing.assert_array_equal(one.image, other.image)
    assert one.image.dtype == other.image.dtype
    np.testing.assert_allclose(one.albedo, other.albedo, atol=0.5001 / 65535)
    assert angles_deg(one.normal.astype(float), other.normal.astype(float)).max() < 0.0017
    np.testing.assert_array_equal(one.mask, other.mask)
    np.testing.assert_allclose(one.sh, other.sh, atol=1e-6)
    np.testing.assert_allclose(one.direction, other.direction, atol=1e-6)
    for name in ("key", "subject", "light_name", "provenance"):
        assert getattr(one, name) == getattr(other, name)


def test_a_portrait_survives_encoding(portrait):
    assert_same(decode(portrait.key, encode(portrait)), portrait)


def test_an_eight_bit_portrait_survives_encoding(portrait):
    assert_same(decode(portrait.key, encode(eight_bit(portrait))), eight_bit(portrait))


def test_a_gray_portrait_stays_gray_and_is_read_as_equal_colours(portrait):
    gray = replace(portrait, image=portrait.image[..., :1])
    back = decode(gray.key, encode(gray))
    np.testing.assert_array_equal(back.image, gray.image)
    assert back.linear_image().shape == (3, 32, 32, 3)
    np.testing.assert_array_equal(back.linear_image()[..., 0], back.linear_image()[..., 2])


def test_colours_are_stored_in_the_order_that_other_programs_read(portrait):
    from PIL import Image

    stored = eight_bit(portrait)
    member = encode(stored)["light001.png"]
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(member))), stored.image[1])


def test_normals_keep_their_stated_precision(portrait):
    rng = np.random.default_rng(0)
    normal = rng.normal(size=(512, 512, 3))
    normal[::2, :, 2] *= 0.001  # grazing
    normal[1::4, :, :2] *= 0.001  # facing
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    large = replace(
        portrait,
        image=np.zeros((3, 512, 512, 3), np.uint8),
        normal=normal.astype(np.float32),
        albedo=np.zeros((512, 512, 3), np.float32),
        mask=None,
    )
    back = decode("ball", encode(large)).normal
    np.testing.assert_allclose(np.linalg.norm(back, axis=-1), 1, atol=1e-6)
    assert angles_deg(normal, back.astype(float)).max() < 0.0016


def test_normals_of_another_length_are_stored_as_unit_vectors(portrait):
    back = decode("ball", encode(replace(portrait, normal=portrait.normal * np.float32(0.3))))
    assert angles_deg(back.normal.astype(float), portrait.normal.astype(float)).max() < 0.0017


def test_only_the_lights_asked_for_are_read_in_the_order_asked(make_portrait):
    portrait = make_portrait(lights=5)
    members = encode(portrait)
    asked = {name: members[name] for name in extensions(members, 5, [3, 1], ())}
    part = decode("ball", asked, lights=[3, 1])
    np.testing.assert_array_equal(part.image, portrait.image[[3, 1]])
    np.testing.assert_allclose(part.sh, portrait.sh[[3, 1]], atol=1e-6)
    assert part.light_name == ("lamp3", "lamp1")
    assert part.albedo is None and part.normal is None and part.mask is None


def test_members_asked_for_are_members_written(portrait):
    trusted = replace(portrait, confidence=np.full(portrait.mask.shape, 0.5, np.float32))
    for held in (encode(portrait), encode(trusted)):
        assert set(extensions(held, 3, [0, 1, 2])) == set(held)


def test_images_stored_as_jpeg_come_back_close_and_are_asked_for_by_their_name(portrait):
    eight_bit = replace(
        portrait,
        image=to_srgb8(portrait.linear_image()),
        provenance=replace(portrait.provenance, transfer="srgb"),
    )
    held = encode(eight_bit, jpeg_quality=95)
    assert set(extensions(held, 3, [0, 1, 2])) == set(held) and "light002.jpg" in held
    stored = decode("ball", held)
    difference = stored.image.astype(int) - eight_bit.image
    assert 0 < np.abs(difference).max() < 40 and np.abs(difference).mean() < 2
    with pytest.raises(ValueError, match="uint16 linear; JPEG holds uint8 srgb"):
        encode(portrait, jpeg_quality=95)
    with pytest.raises(ValueError, match=r"light001.jpg is cut short"):
        decode("ball", held | {"light001.jpg": held["light001.jpg"][:-9]})


def test_confidence_and_the_way_back_to_the_source_are_kept(portrait):
    confidence = np.linspace(0, 1, 32 * 32, dtype=np.float32).reshape(32, 32)
    moved = replace(
        portrait.provenance, affine=((0.5, 0.1, -3.0), (-0.1, 0.5, 7.25)), source_size=(640, 480)
    )
    stored = decode("ball", encode(replace(portrait, confidence=confidence, provenance=moved)))
    np.testing.assert_allclose(stored.confidence, confidence, atol=0.5 / 255 + 1e-6)
    assert stored.provenance == moved


def test_a_pose_is_kept_and_its_absence_leaves_no_trace(portrait):
    posed = replace(portrait, pose_deg=(12.5, -3.25, 1e-3))
    members = encode(posed)
    assert decode("ball", members).pose_deg == decode("ball", members, [1]).pose_deg
    assert decode("ball", members).pose_deg == (12.5, -3.25, 1e-3)
    assert decode("ball", encode(portrait)).pose_deg is None
    assert b"pose" not in encode(portrait)["meta.json"]
    same = {name: data for name, data in members.items() if name != "meta.json"}
    assert same.items() <= encode(portrait).items()


@pytest.mark.parametrize("pose", ["[1, 2]", "[1, 2, NaN]", "7", '[1, 2, "x"]'])
def test_a_pose_that_is_none_is_refused(portrait, pose):
    members = encode(replace(portrait, pose_deg=(1.0, 2.0, 3.0)))
    members["meta.json"] = members["meta.json"].replace(b"[1.0, 2.0, 3.0]", pose.encode())
    with pytest.raises(ValueError, match=r"portrait 'ball': meta.json cannot be used"):
        decode("ball", members)


@pytest.mark.parametrize("lights", [[3], [-1], [0, 99]])
def test_lights_that_a_portrait_lacks_are_refused(portrait, lights):
    with pytest.raises(ValueError, match="3"):
        extensions(encode(portrait), 3, lights)
    with pytest.raises(ValueError, match="has 3 lights"):
        decode("ball", encode(portrait), lights)


def test_asking_for_no_light_is_refused(portrait):
    with pytest.raises(ValueError, match=r"'ball'.*asked for are \[\]"):
        decode("ball", encode(portrait), [])


def test_the_same_portrait_gives_the_same_bytes(make_portrait):
    assert encode(make_portrait(seed=3)) == encode(make_portrait(seed=3))


def test_members_come_in_the_documented_order(portrait):
    lights = [light_extension(index) for index in range(3)]
    assert list(encode(portrait)) == [*lights, "albedo.png", "normal.png", "mask.png", "meta.json"]


def test_labels_are_optional(portrait):
    bare = without_labels(
        replace(portrait, mask=None, direction=None), ("albedo", "normal", "light")
    )
    back = decode("ball", encode(bare))
    assert [getattr(back, n) for n in ("albedo", "normal", "mask", "sh", "direction")] == [None] * 5
    assert (back.provenance.albedo, back.provenance.light) == ("absent", "absent")


@pytest.mark.parametrize("name", ["albedo", "normal", "light"])
def test_taking_one_label_away_leaves_the_others(portrait, name):
    back = decode("ball", encode(without_labels(portrait, (name,))))
    held = {"albedo": back.albedo, "normal": back.normal, "light": back.sh}
    assert [key for key, value in held.items() if value is None] == [name]


def blank(portrait: Portrait, shape: tuple[int, ...], dtype: type = np.uint8) -> Portrait:
    bare = without_labels(portrait, ("albedo", "normal", "light"))
    return altered(bare, image=np.zeros(shape, dtype), mask=None, direction=None)


def with_nan(values: np.ndarray) -> np.ndarray:
    broken = values.copy()
    broken.flat[5] = np.nan
    return broken


UNFIT = {
    "a key with a dot": (lambda p: replace(p, key="a.b"), "a key may only have"),
    "a key with a slash": (lambda p: replace(p, key="../up"), "a key may only have"),
    "no key": (lambda p: replace(p, key=""), "a key may only have"),
    "no subject": (lambda p: replace(p, subject=""), "subject is empty"),
    "float pixels": (lambda p: blank(p, (3, 4, 4, 3), np.float32), "float32"),
    "two channels": (lambda p: blank(p, (3, 4, 4, 2)), r"\(3, 4, 4, 2\)"),
    "no axis of lights": (lambda p: blank(p, (4, 4, 3)), r"\(4, 4, 3\)"),
    "no light": (lambda p: blank(p, (0, 4, 4, 3)), "0 lights"),
    "too many lights": (lambda p: blank(p, (MAX_LIGHTS + 1, 1, 1, 1)), "1001 lights"),
    "no height": (lambda p: blank(p, (3, 0, 4, 3)), "4x0 is out of bounds"),
    "too wide": (lambda p: blank(p, (3, 1, 9000, 1)), "9000x1 is out of bounds"),
    "albedo of another size": (lambda p: altered(p, albedo=p.albedo[:9]), r"albedo.*\(9, 32, 3\)"),
    "normal of another size": (lambda p: altered(p, normal=p.normal[:9]), r"normal.*\(9, 32, 3\)"),
    "mask with channels": (lambda p: altered(p, mask=p.mask[..., None]), r"mask.*\(32, 32, 1\)"),
    "a light too few": (lambda p: altered(p, sh=p.sh[:2]), r"sh.*\(2, 3, 9\)"),
    "light axes swapped": (lambda p: altered(p, sh=p.sh.swapaxes(1, 2)), r"sh.*\(3, 9, 3\)"),
    "a direction too few": (lambda p: altered(p, direction=p.direction[:1]), "direction"),
    "NaN in albedo": (lambda p: replace(p, albedo=with_nan(p.albedo)), "albedo.*not finite"),
    "NaN in normal": (lambda p: replace(p, normal=with_nan(p.normal)), "normal.*not finite"),
    "NaN in light": (lambda p: replace(p, sh=with_nan(p.sh)), "sh.*not finite"),
    "a pose that is infinite": (lambda p: replace(p, pose_deg=(0.0, np.inf, 0.0)), "pose_deg is"),
    "a pose of two angles": (lambda p: altered(p, pose_deg=(0.0, 1.0)), "pose_deg is"),
    "a name too few": (lambda p: replace(p, light_name=("a",)), "1 light names for 3 images"),
    "a label unannounced": (
        lambda p: replace(p, provenance=replace(p.provenance, albedo="absent")),
        "albedo label is present",
    ),
    "a label announced and absent": (lambda p: replace(p, normal=None), "normal label is absent"),
    "a label of unknown trust": (
        lambda p: replace(p, provenance=replace(p.provenance, light="good")),
        "'good'",
    ),
    "an unknown transfer": (
        lambda p: replace(p, provenance=replace(p.provenance, transfer="gamma")),
        "transfer is 'gamma'",
    ),
}


@pytest.mark.parametrize("fault", UNFIT)
def test_a_portrait_that_cannot_be_stored_whole_is_refused_with_key_and_fault(portrait, fault):
    change, message = UNFIT[fault]
    check(portrait)
    with pytest.raises(ValueError, match=f"portrait '.*{message}"):
        encode(change(portrait))


def png(pixels: np.ndarray) -> bytes:
    return cv2.imencode(".png", pixels)[1].tobytes()


def flipped(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 0xFF]) + data[place + 1 :]


BROKEN = {
    "a light gone": ("light001.png", lambda data: None, "light001.png is missing"),
    "no meta": ("meta.json", lambda data: None, "meta.json is missing"),
    "not a picture": ("light000.png", lambda data: b"hello", "light000.png is not a PNG"),
    "an empty member": ("normal.png", lambda data: b"", "normal.png is not a PNG"),
    "a picture cut short": ("mask.png", lambda data: data[:-9], "mask.png is cut short"),
    "a damaged picture": ("light002.png", lambda d: flipped(d, len(d) // 2), "cannot be decoded"),
    "a picture of another size": (
        "albedo.png",
        lambda data: png(np.zeros((16, 20, 3), np.uint16)),
        "albedo.png is not a PNG of 32x32 .found 20x16",
    ),
    "8-bit normals": (
        "normal.png",
        lambda data: png(np.zeros((32, 32, 3), np.uint8)),
        "normal.png is uint8 with 3 channels; 16-bit RGB needed",
    ),
    "gray albedo": (
        "albedo.png",
        lambda data: png(np.zeros((32, 32), np.uint16)),
        "albedo.png is uint16 with 1 channels",
    ),
    "meta that is not JSON": ("meta.json", lambda data: data[:-5], "meta.json cannot be read"),
    "meta that is a list": ("meta.json", lambda data: b"[]", "meta.json cannot be read"),
    "meta of the future": (
        "meta.json",
        lambda data: data.replace(b'"version": 1', b'"version": 9'),
        "format version 9, this program reads 1",
    ),
    "meta without a size": (
        "meta.json",
        lambda data: data.replace(b'"width"', b'"wide"'),
        "cannot be used: KeyError.*width",
    ),
    "meta with foreign provenance": (
        "meta.json",
        lambda data: data.replace(b'"licence"', b'"license"'),
        "cannot be used: .*licence",
    ),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_member_is_named_with_its_portrait(portrait, fault, capfd):
    name, damage, message = BROKEN[fault]
    members = encode(portrait)
    members[name] = damage(members[name])
    with pytest.raises(ValueError, match=f"portrait 'ball': .*{message}"):
        decode("ball", {key: data for key, data in members.items() if data is not None})
    capfd.readouterr()  # libpng's own complaint


def test_a_light_of_too_few_coefficients_is_refused(portrait):
    members = encode(portrait)
    meta = json.loads(members["meta.json"])
    meta["lights"][1]["sh"] = meta["lights"][1]["sh"][:2]
    members["meta.json"] = json.dumps(meta).encode()
    with pytest.raises(ValueError, match=r"portrait 'ball': meta.json cannot be used"):
        decode("ball", members)


def test_plain_webdataset_reads_the_members(make_portrait, tmp_path):
    portraits = [eight_bit(make_portrait(key=f"ball{seed}", seed=seed)) for seed in range(3)]
    shard = tmp_path / "balls.tar"
    with tarfile.open(shard, "w") as tar:
        for portrait in portraits:
            for extension, data in encode(portrait).items():
                entry = tarfile.TarInfo(f"{portrait.key}.{extension}")
                entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data))
    read = list(webdataset.WebDataset(str(shard), shardshuffle=False).decode("rgb8"))
    assert [sample["__key__"] for sample in read] == ["ball0", "ball1", "ball2"]
    for sample, portrait in zip(read, portraits, strict=True):
        np.testing.assert_array_equal(sample["light002.png"], portrait.image[2])
        assert sample["meta.json"]["subject"] == "anna"
        np.testing.assert_allclose(
            sample["meta.json"]["lights"][1]["sh"], portrait.sh[1], atol=1e-6
        )
