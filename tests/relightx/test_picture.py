"""A picture file gives exactly the pixels it holds, upright, or is refused by name."""

import io
import os
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import OpenEXR
import pytest
import tifffile
from PIL import Image, ImageCms

from relightx.picture import is_linear_picture, read_linear_picture, read_picture
from relightx.sample import MAX_SIDE_PX

TURNED = {
    1: lambda upright: upright,
    2: lambda upright: upright[:, ::-1],
    3: lambda upright: upright[::-1, ::-1],
    4: lambda upright: upright[::-1],
    5: lambda upright: upright.swapaxes(0, 1),
    6: lambda upright: upright[:, ::-1].swapaxes(0, 1),
    7: lambda upright: upright[::-1, ::-1].swapaxes(0, 1),
    8: lambda upright: upright[::-1].swapaxes(0, 1),
}
"""What is stored, by the orientation under which it must be seen as the upright picture.

From the standard's words: what the first row and column are of the upright picture. In 6 the first
row is its right side and the first column its top."""


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def integers(rng, dtype, channels: int, height: int = 7, width: int = 5) -> np.ndarray:
    return rng.integers(0, np.iinfo(dtype).max + 1, (height, width, channels), dtype=dtype)


def encoded(pixels: np.ndarray, kind: str, **options) -> bytes:
    """The file that Pillow makes of 8-bit pixels."""
    buffer = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(
        buffer, kind, **options
    )
    return buffer.getvalue()


def png_16(pixels: np.ndarray) -> bytes:
    """The PNG that OpenCV makes of 16-bit pixels with 1, 3 or 4 channels."""
    order = {1: [0], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[pixels.shape[2]]
    return cv2.imencode(".png", np.ascontiguousarray(pixels[..., order]))[1].tobytes()


def chunk(kind: bytes, content: bytes) -> bytes:
    """A part of a PNG, with its checksum."""
    return (
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
    )


def with_chunk(png: bytes, kind: bytes, content: bytes) -> bytes:
    """The PNG with one more part behind its header."""
    return png[:33] + chunk(kind, content) + png[33:]


def write_tiff(file: Path, pixels: np.ndarray, **options) -> None:
    gray = pixels.shape[2] == 1
    alpha = {"extrasamples": ["unassalpha"]} if pixels.shape[2] in (2, 4) else {}
    photometric = "minisblack" if pixels.shape[2] < 3 else "rgb"
    settings = {"photometric": photometric, "metadata": None} | alpha | options
    tifffile.imwrite(file, pixels[..., 0] if gray else pixels, **settings)


def write_exr(file: Path, header: dict | None = None, **channels: np.ndarray) -> None:
    """An EXR of channels by name."""
    settings = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    with OpenEXR.File(settings | (header or {}), channels) as picture:
        picture.write(str(file))


# --- What is read, exactly -------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "WEBP"])
@pytest.mark.parametrize("channels", [1, 3])
def test_eight_bits_come_back_exactly(tmp_path, rng, kind, channels):
    pixels = integers(rng, np.uint8, channels)
    options = {"lossless": True} if kind == "WEBP" else {}
    (tmp_path / "a").write_bytes(encoded(pixels, kind, **options))
    read = read_picture(tmp_path / "a")
    # WebP knows no gray.
    assert read.shape == (7, 5, 3 if kind == "WEBP" else channels) and read.dtype == np.uint8
    np.testing.assert_array_equal(read, np.broadcast_to(pixels, read.shape))


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_sixteen_bits_come_back_exactly(tmp_path, rng, channels):
    pixels = integers(rng, np.uint16, channels)
    (tmp_path / "a.png").write_bytes(png_16(pixels))
    read = read_picture(tmp_path / "a.png")
    assert read.dtype == np.uint16
    np.testing.assert_array_equal(read, pixels[..., :3])


def test_gray_with_alpha_stays_gray_in_a_16_bit_png(tmp_path, rng):
    pixels = integers(rng, np.uint16, 2)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", 5, 7, 16, 4, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*p) for p in parts))
    np.testing.assert_array_equal(read_picture(tmp_path / "a.png"), pixels[..., :1])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"byteorder": ">"},
        {"compression": "lzw"},
        {"compression": "deflate", "predictor": True},
        {"tile": (16, 16)},
    ],
    ids=str,
)
def test_a_tiff_comes_back_exactly(tmp_path, rng, dtype, channels, options):
    pixels = integers(rng, dtype, channels)
    write_tiff(tmp_path / "a.tif", pixels, **options)
    read = read_picture(tmp_path / "a.tif")
    assert read.dtype == dtype
    np.testing.assert_array_equal(read, pixels[..., :3])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_tiff_whose_zero_is_white_is_not_read_as_its_negative(tmp_path, rng, dtype):
    pixels = integers(rng, dtype, 1)
    write_tiff(tmp_path / "a.tif", pixels, photometric="miniswhite")
    np.testing.assert_array_equal(read_picture(tmp_path / "a.tif"), np.iinfo(dtype).max - pixels)


@pytest.mark.parametrize("top", [1, 100, 255, 1023, 65535])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_pgm_or_ppm_fills_8_or_16_bits_whatever_its_largest_value(tmp_path, rng, top, channels):
    stored = rng.integers(0, top + 1, (7, 5, channels))
    stored.flat[:2] = 0, top
    kind, full = (np.uint8, 255) if top < 256 else (">u2", 65535)
    head = f"P{5 if channels == 1 else 6}\n# a camera\n5 7\n{top}\n".encode()
    (tmp_path / "a.pgm").write_bytes(head + stored.astype(kind).tobytes())
    read = read_picture(tmp_path / "a.pgm")
    assert read.dtype == (np.uint8 if top < 256 else np.uint16)
    np.testing.assert_allclose(read / full, stored / top, atol=0.5 / full)
    assert read.flat[0] == 0 and read.flat[1] == full


def test_black_and_white_gray_and_palettes_are_told_apart(tmp_path, rng):
    gray = integers(rng, np.uint8, 1)
    (tmp_path / "gray").write_bytes(encoded(gray, "PNG"))
    np.testing.assert_array_equal(read_picture(tmp_path / "gray"), gray)
    with Image.fromarray(gray[..., 0] > 127) as bits:
        bits.save(tmp_path / "bits.png")
    np.testing.assert_array_equal(read_picture(tmp_path / "bits.png"), (gray > 127) * np.uint8(255))
    Image.fromarray(gray[..., 0]).convert("RGB").quantize(256).save(tmp_path / "palette.png")
    palette = read_picture(tmp_path / "palette.png")
    np.testing.assert_array_equal(palette, np.broadcast_to(gray, (7, 5, 3)))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_what_lies_under_an_alpha_channel_is_kept(tmp_path, rng, dtype):
    pixels = integers(rng, dtype, 4)
    pixels[..., 3] = 0
    (tmp_path / "a.png").write_bytes(
        encoded(pixels, "PNG") if dtype == np.uint8 else png_16(pixels)
    )
    np.testing.assert_array_equal(read_picture(tmp_path / "a.png"), pixels[..., :3])


def test_jpeg_decodes_to_the_same_bits_as_the_shards_own_decoder(tmp_path, rng):
    """The shards' readers use OpenCV: a JPEG means the same pixels on both ways."""
    pixels = cv2.GaussianBlur(integers(rng, np.uint8, 3, 64, 48), (0, 0), 2)
    data = encoded(pixels, "JPEG", quality=90)
    (tmp_path / "a.jpg").write_bytes(data)
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    np.testing.assert_array_equal(read_picture(tmp_path / "a.jpg"), decoded)


def test_the_content_decides_not_the_name(tmp_path, rng):
    pixels = integers(rng, np.uint8, 3)
    (tmp_path / "a.jpg").write_bytes(encoded(pixels, "PNG"))
    np.testing.assert_array_equal(read_picture(tmp_path / "a.jpg"), pixels)


@pytest.mark.parametrize("orientation", TURNED)
@pytest.mark.parametrize("kind", ["jpeg", "png", "png16", "tiff", "tiff16", "tiff float"])
def test_a_picture_is_turned_as_its_exif_says(tmp_path, kind, orientation):
    upright = np.zeros((16, 24, 3), np.uint8)
    upright[:8, :16, 0] = upright[:8, 8:, 1] = upright[8:, :8, 2] = 255
    stored = np.ascontiguousarray(TURNED[orientation](upright))
    exif = Image.Exif()
    exif[0x0112] = orientation
    tag = {"extratags": [(0x0112, "H", 1, orientation, True)]}
    file, read = tmp_path / "a", read_picture
    if kind == "jpeg":
        file.write_bytes(encoded(stored, "JPEG", exif=exif, quality=100, subsampling=0))
    elif kind == "png":
        file.write_bytes(encoded(stored, "PNG", exif=exif))
    elif kind == "png16":
        wide = png_16(stored.astype(np.uint16) * 257)
        file.write_bytes(with_chunk(wide, b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0")))
    elif kind == "tiff float":
        write_tiff(file, stored.astype(np.float32), **tag)
        read = read_linear_picture
    else:
        write_tiff(file, stored if kind == "tiff" else stored.astype(np.uint16) * 257, **tag)
    turned = read(file).astype(np.float64)
    np.testing.assert_allclose(turned / turned.max(), upright / 255, atol=0.02)


def test_a_camera_s_second_view_is_left_aside(tmp_path, rng):
    pixels = integers(rng, np.uint8, 3, 16, 16)
    with Image.fromarray(pixels) as first, Image.fromarray(pixels[:8, :8]) as second:
        first.save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[second])
    assert read_picture(tmp_path / "a.jpg").shape == (16, 16, 3)


def test_the_small_copies_in_a_tiff_are_left_aside(tmp_path, rng):
    pixels = integers(rng, np.uint16, 3, 16, 16)
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        tiff.write(pixels, photometric="rgb", metadata=None)
        tiff.write(pixels[::2, ::2], photometric="rgb", subfiletype=1, metadata=None)
    np.testing.assert_array_equal(read_picture(tmp_path / "a.tif"), pixels)


def test_a_colour_profile_changes_nothing(tmp_path, rng):
    pixels = integers(rng, np.uint8, 3)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    (tmp_path / "a.png").write_bytes(encoded(pixels, "PNG", icc_profile=profile))
    np.testing.assert_array_equal(read_picture(tmp_path / "a.png"), pixels)


# --- What is refused -------------------------------------------------------------------------


def samples(rng) -> dict[str, bytes]:
    """A file of each kind with real structure, 48 pixels on a side."""
    pixels = cv2.GaussianBlur(integers(rng, np.uint8, 3, 48, 48), (0, 0), 1)
    buffer = io.BytesIO()
    wide = pixels.astype(np.uint16) * 257
    tifffile.imwrite(buffer, wide, photometric="rgb", compression="deflate", rowsperstrip=8)
    return {
        "JPEG": encoded(pixels, "JPEG"),
        "progressive": encoded(pixels, "JPEG", progressive=True),
        "PNG": encoded(pixels, "PNG"),
        "PNG16": png_16(wide),
        "BMP": encoded(pixels, "BMP"),
        "GIF": encoded(pixels, "GIF"),
        "WEBP": encoded(pixels, "WEBP"),
        "PPM": encoded(pixels, "PPM"),
        "PPM16": b"P6 48 48 65535\n" + wide.astype(">u2").tobytes(),
        "TIFF": encoded(pixels, "TIFF"),
        "TIFF LZW": encoded(pixels, "TIFF", compression="tiff_lzw"),
        "TIFF16": buffer.getvalue(),
    }


@pytest.mark.parametrize("kind", list(samples(np.random.default_rng(0))))
def test_a_picture_cut_short_is_refused(tmp_path, rng, kind):
    data = samples(rng)[kind]
    for share in (0.01, 0.1, 0.5, 0.9):
        (tmp_path / "cut").write_bytes(data[: int(len(data) * share)])
        with pytest.raises(ValueError, match=rf"^{tmp_path}/cut: "):
            read_picture(tmp_path / "cut")


@pytest.mark.parametrize("kind", ["PNG", "PNG16"])
def test_each_changed_byte_of_a_png_s_pixels_is_noticed(tmp_path, rng, kind):
    data = samples(rng)[kind]
    start, end = data.index(b"IDAT") + 4, data.index(b"IEND") - 8
    for place in rng.integers(start, end, 40):
        changed = bytearray(data)
        changed[place] ^= int(rng.integers(1, 256))
        (tmp_path / "a.png").write_bytes(changed)
        with pytest.raises(ValueError, match=r"a\.png: is broken"):
            read_picture(tmp_path / "a.png")


@pytest.mark.parametrize("kind", list(samples(np.random.default_rng(0))))
def test_changed_bytes_give_a_picture_or_a_refusal_by_name_and_nothing_else(
    tmp_path, rng, kind, capfd
):
    data = samples(rng)[kind]
    for step in range(60):
        changed = bytearray(data)
        for place in rng.integers(0, min(len(data), 200) if step % 2 else len(data), 3):
            changed[place] ^= int(rng.integers(1, 256))
        (tmp_path / "a").write_bytes(changed)
        try:
            read = read_picture(tmp_path / "a")
        except ValueError as error:
            assert str(error).startswith(f"{tmp_path / 'a'}: ")
        else:
            assert read.shape[2] in (1, 3) and max(read.shape) <= MAX_SIDE_PX
    if kind != "TIFF LZW":  # libtiff inside Pillow speaks for itself
        assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b"text", "is not a picture"),
        (b"\x89PNG\r\n\x1a\n", "a"),
        (b"\xff\xd8\xff\xe0", "a"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "is not a picture"),
        (b"\0\0\0\x18ftypheic\0\0\0\0heicmif1", "is not a picture"),
        (b"P5 4 4\n", "begins with width"),
        (b"P5 4 4 0\n" + bytes(16), "its largest value is 0"),
        (b"II*\0\x08\0\0\0\xff\xff", "tags lie outside"),
        (b"\x76\x2f\x31\x01", "floating point"),
        (b"#?RADIANCE\n", "floating point"),
    ],
)
def test_what_is_no_picture_of_integers_is_refused(tmp_path, data, message):
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(ValueError, match=rf"a\.png: .*{message}"):
        read_picture(tmp_path / "a.png")


def test_printing_inks_are_refused_with_advice(tmp_path):
    Image.new("CMYK", (4, 4)).save(tmp_path / "print.jpg")
    with pytest.raises(ValueError, match=r"print\.jpg: has colour mode CMYK.*convert it to sRGB"):
        read_picture(tmp_path / "print.jpg")
    Image.new("CMYK", (4, 4)).save(tmp_path / "print.tif")
    with pytest.raises(ValueError, match=r"print\.tif: .*printing inks.*convert"):
        read_picture(tmp_path / "print.tif")


@pytest.mark.parametrize(
    ("pixels", "options", "message"),
    [
        (np.zeros((4, 4, 3), np.float32), {}, "floating point"),
        (np.zeros((4, 4, 1), np.int16), {}, "signed"),
        (np.zeros((4, 4, 1), np.uint32), {}, "32-bit"),
        (np.zeros((4, 4, 2), np.uint16), {}, "gray with alpha"),
        (np.zeros((3, 4, 4), np.uint16), {"planarconfig": "separate"}, "one after another"),
        (np.zeros((4, 4, 3), np.uint16), {"bigtiff": True}, "BigTIFF"),
    ],
)
def test_a_tiff_that_would_be_read_wrongly_is_refused_with_advice(
    tmp_path, pixels, options, message
):
    settings = {"photometric": "rgb"} if "planarconfig" in options else {}
    write_tiff(tmp_path / "a.tif", pixels, **options, **settings)
    with pytest.raises(ValueError, match=rf"a\.tif: .*{message}.*save it"):
        read_picture(tmp_path / "a.tif")


@pytest.mark.parametrize("kind", ["TIFF", "GIF", "WEBP", "PNG"])
def test_one_of_several_pictures_is_not_chosen_for_anybody(tmp_path, rng, kind):
    pictures = [Image.fromarray(integers(rng, np.uint8, 3)) for _ in range(3)]
    pictures[0].save(tmp_path / "many", kind, save_all=True, append_images=pictures[1:])
    with pytest.raises(ValueError, match=r"many: holds 3 pictures; one is needed"):
        read_picture(tmp_path / "many")


def claims(kind: str, width: int, height: int) -> bytes:
    """A small file whose header claims a size."""
    pixels = np.zeros((4, 4, 3), np.uint8)
    data = bytearray(encoded(pixels, kind)) if kind != "PPM16" else bytearray()
    if kind == "PNG":
        data[16:24] = struct.pack(">II", width, height)
        data[29:33] = zlib.crc32(bytes(data[12:29])).to_bytes(4, "big")
    elif kind == "JPEG":
        place = data.index(b"\xff\xc0") + 5
        data[place : place + 4] = struct.pack(">HH", height, width)
    elif kind == "TIFF":
        data = bytearray(encoded(pixels, "TIFF"))
        for tag, size in ((256, width), (257, height)):
            place = data.index(struct.pack("<HH", tag, 4))
            data[place + 8 : place + 12] = struct.pack("<I", size)
    elif kind == "BMP":
        data[18:26] = struct.pack("<ii", width, height)
    elif kind == "GIF":
        data[6:10] = struct.pack("<HH", width, height)
    else:
        data = bytearray(f"P6 {width} {height} 65535\n".encode())
    return bytes(data)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "BMP", "GIF", "PPM16"])
@pytest.mark.parametrize("size", [(MAX_SIDE_PX + 1, 1), (60000, 60000)])
def test_a_bomb_is_refused_before_it_is_decoded(tmp_path, kind, size):
    (tmp_path / "bomb").write_bytes(claims(kind, *size))
    with pytest.raises(ValueError, match=r"bomb: is (too large|\d+x\d+; 1 to 8192 pixels)"):
        read_picture(tmp_path / "bomb")


def test_a_profile_that_unpacks_without_end_is_refused(tmp_path, rng):
    packed = zlib.compress(bytes(64 << 20), 9)
    png = with_chunk(encoded(integers(rng, np.uint8, 3), "PNG"), b"iCCP", b"p\0\0" + packed)
    (tmp_path / "a.png").write_bytes(png)
    with pytest.raises(ValueError, match=r"a\.png: Decompressed data too large"):
        read_picture(tmp_path / "a.png")


@pytest.mark.parametrize("read", [read_picture, read_linear_picture, is_linear_picture])
def test_what_is_no_regular_file_is_refused_without_waiting(tmp_path, read):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    (tmp_path / "folder.png").mkdir()
    for file, message in {
        tmp_path / "pipe.png": "not a regular file",
        Path("/dev/zero"): "not a regular file",
        tmp_path / "folder.png": "is a folder",
        tmp_path / "loop.png": "cannot be read: Too many levels",
        tmp_path / "none.png": "cannot be read: No such file",
    }.items():
        with pytest.raises(ValueError, match=f"^{file}: .*{message}"):
            read(file)


def test_a_file_that_may_not_be_read_is_refused(tmp_path, rng, monkeypatch):
    (tmp_path / "a.png").write_bytes(encoded(integers(rng, np.uint8, 3), "PNG"))
    (tmp_path / "a.png").chmod(0)
    tmp_path.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    user = os.geteuid()
    if user == 0:  # who may read everything
        os.seteuid(65534)
    try:
        with pytest.raises(ValueError, match=r"a\.png: cannot be read: Permission denied"):
            read_picture(Path("a.png"))
    finally:
        os.seteuid(user)


def test_a_picture_behind_a_link_is_read(tmp_path, rng):
    pixels = integers(rng, np.uint8, 3)
    (tmp_path / "a.png").write_bytes(encoded(pixels, "PNG"))
    (tmp_path / "link.png").symlink_to("a.png")
    np.testing.assert_array_equal(read_picture(tmp_path / "link.png"), pixels)


# --- Linear radiance -------------------------------------------------------------------------


@pytest.fixture
def radiance(rng) -> np.ndarray:
    return rng.uniform(0, 50, (8, 12, 3)).astype(np.float32)


@pytest.mark.parametrize("name", ["ZIP", "PIZ", "NO", "RLE", "ZIPS"])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_an_exr_comes_back_exactly(tmp_path, radiance, name, dtype):
    header = {"compression": getattr(OpenEXR, f"{name}_COMPRESSION")}
    stored = radiance.astype(dtype)
    write_exr(tmp_path / "a.exr", header, RGBA=np.dstack((stored, stored[..., :1])))
    read = read_linear_picture(tmp_path / "a.exr")
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, stored.astype(np.float32))


@pytest.mark.parametrize("beside", ["", "A", "Z"])
def test_an_exr_of_luminance_is_gray_whatever_else_it_holds(tmp_path, radiance, beside):
    gray = radiance[..., 0].copy()
    write_exr(tmp_path / "a.exr", Y=gray, **{name: gray + 1 for name in beside})
    np.testing.assert_array_equal(read_linear_picture(tmp_path / "a.exr"), radiance[..., :1])


def test_an_exr_is_read_over_its_display_window(tmp_path, radiance):
    """One that was cropped on the right and reaches over the left and upper edges."""
    header = {
        "displayWindow": (np.array([0, 0], np.int32), np.array([19, 9], np.int32)),
        "dataWindow": (np.array([-2, -1], np.int32), np.array([9, 6], np.int32)),
    }
    write_exr(tmp_path / "a.exr", header, RGB=radiance)
    read = read_linear_picture(tmp_path / "a.exr")
    assert read.shape == (10, 20, 3)
    np.testing.assert_array_equal(read[:7, :10], radiance[1:, 2:])
    assert read[7:].max() == 0 and read[:, 10:].max() == 0


def test_an_hdr_comes_back_within_its_precision_and_its_exposure_is_undone(tmp_path, radiance):
    cv2.imwrite(str(tmp_path / "a.hdr"), radiance[..., ::-1])
    read = read_linear_picture(tmp_path / "a.hdr")
    # One exponent for the three channels, 8 bits each.
    bound = radiance.max(axis=2, keepdims=True) / 128
    assert (np.abs(read - radiance) <= bound).all()
    data = (tmp_path / "a.hdr").read_bytes()
    (tmp_path / "b.hdr").write_bytes(
        data.replace(b"FORMAT=", b"EXPOSURE=2\nEXPOSURE=4.0\nFORMAT=", 1)
    )
    np.testing.assert_allclose(read_linear_picture(tmp_path / "b.hdr"), read / 8, rtol=1e-6)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("options", [{}, {"byteorder": ">"}, {"compression": "lzw"}], ids=str)
def test_a_floating_point_tiff_comes_back_exactly(tmp_path, rng, channels, options):
    stored = rng.uniform(0, 50, (8, 12, channels)).astype(np.float32)
    write_tiff(tmp_path / "a.tif", stored, **options)
    np.testing.assert_array_equal(read_linear_picture(tmp_path / "a.tif"), stored[..., :3])


def test_negative_radiance_is_none(tmp_path, radiance):
    write_exr(tmp_path / "a.exr", RGB=radiance - 25)
    np.testing.assert_array_equal(
        read_linear_picture(tmp_path / "a.exr"), np.maximum(radiance - 25, 0)
    )


def test_which_files_hold_radiance_is_told_from_their_content(tmp_path, radiance):
    write_exr(tmp_path / "a.exr", RGB=radiance)
    cv2.imwrite(str(tmp_path / "a.hdr"), radiance)
    write_tiff(tmp_path / "float.tif", radiance)
    write_tiff(tmp_path / "integer.tif", radiance.astype(np.uint16))
    (tmp_path / "a.png").write_bytes(encoded(radiance.astype(np.uint8), "PNG"))
    linear = {file.name for file in tmp_path.iterdir() if is_linear_picture(file)}
    assert linear == {"a.exr", "a.hdr", "float.tif"}


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_radiance_that_is_not_finite_is_refused(tmp_path, radiance, value):
    radiance[3, 4, 1] = value
    write_exr(tmp_path / "a.exr", RGB=radiance)
    with pytest.raises(ValueError, match=r"a\.exr: has 1 values that are not finite"):
        read_linear_picture(tmp_path / "a.exr")


def test_channels_that_are_no_picture_are_refused_by_their_names(tmp_path, radiance):
    gray = radiance[..., 0].copy()
    write_exr(tmp_path / "depth.exr", Z=gray)
    with pytest.raises(ValueError, match=r"depth\.exr: has channels Z; R, G and B"):
        read_linear_picture(tmp_path / "depth.exr")
    whole = {name: gray.astype(np.uint32) for name in "RGB"}
    write_exr(tmp_path / "whole.exr", **whole)
    with pytest.raises(ValueError, match=r"whole\.exr: has whole numbers"):
        read_linear_picture(tmp_path / "whole.exr")
    parts = [OpenEXR.Part({"name": name}, {"RGB": radiance}) for name in ("left", "right")]
    with OpenEXR.File(parts) as picture:
        picture.write(str(tmp_path / "parts.exr"))
    with pytest.raises(ValueError, match=r"parts\.exr: has several parts"):
        read_linear_picture(tmp_path / "parts.exr")


def test_pictures_of_integers_are_refused_as_radiance(tmp_path, rng):
    (tmp_path / "a.exr").write_bytes(encoded(integers(rng, np.uint8, 3), "PNG"))
    with pytest.raises(ValueError, match=r"a\.exr: no .exr, .hdr or floating-point TIFF found"):
        read_linear_picture(tmp_path / "a.exr")
    write_tiff(tmp_path / "a.tif", integers(rng, np.uint16, 3))
    with pytest.raises(ValueError, match=r"a\.tif: has 16-bit integer samples"):
        read_linear_picture(tmp_path / "a.tif")


def test_radiance_that_claims_a_size_is_refused_before_it_is_decoded(tmp_path, radiance):
    write_exr(tmp_path / "a.exr", RGB=radiance)
    data = (tmp_path / "a.exr").read_bytes()
    window = struct.pack("<4i", 0, 0, 11, 7)
    for claim in ((0, 0, 60000, 60000), (-(2**31), 0, 2**31 - 1, 7), (5, 5, 0, 0)):
        (tmp_path / "b.exr").write_bytes(data.replace(window, struct.pack("<4i", *claim)))
        with pytest.raises(ValueError, match=r"b\.exr: is -?\d+x-?\d+; 1 to 8192"):
            read_linear_picture(tmp_path / "b.exr")
    (tmp_path / "c.hdr").write_bytes(
        b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 60000 +X 60000\n" + bytes(64)
    )
    with pytest.raises(ValueError, match=r"c\.hdr: is 60000x60000"):
        read_linear_picture(tmp_path / "c.hdr")


@pytest.mark.parametrize("ending", ["exr", "hdr", "tif"])
def test_broken_radiance_is_refused_by_name(tmp_path, rng, radiance, ending, capfd):
    file = tmp_path / f"a.{ending}"
    big = np.kron(radiance, np.ones((4, 4, 1), np.float32))
    if ending == "exr":
        write_exr(file, RGB=big)
    elif ending == "hdr":
        cv2.imwrite(str(file), big)
    else:
        write_tiff(file, big, compression="deflate", rowsperstrip=8)
    data = file.read_bytes()
    for share in (0.02, 0.3, 0.6, 0.95):
        file.write_bytes(data[: int(len(data) * share)])
        with pytest.raises(ValueError, match=rf"^{file}: "):
            read_linear_picture(file)
    for step in range(60):
        changed = bytearray(data)
        for place in rng.integers(4, min(len(data), 400) if step % 2 else len(data), 3):
            changed[place] ^= int(rng.integers(1, 256))
        file.write_bytes(changed)
        try:
            read = read_linear_picture(file)
        except ValueError as error:
            assert str(error).startswith(f"{file}: ")
        else:
            assert np.isfinite(read).all() and read.min() >= 0
    if ending != "tif":  # libtiff speaks for itself
        assert capfd.readouterr().err == ""
