"""Stored pictures come back bit by bit; what is broken, cut or of another kind is refused."""

import io
import struct
import subprocess
import sys
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from relightx.codec import decode_picture, encode_jpeg, encode_png

BOMB = """
import resource, struct, zlib
from relightx.codec import decode_picture, encode_png
import numpy as np

def chunk(kind, content):
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)

decode_picture(encode_png(np.zeros((16, 12, 3), np.uint8)), (16, 12))
packer = zlib.compressobj(9)
packed = b"".join(packer.compress(bytes(1 << 20)) for _ in range(256)) + packer.flush()
header = struct.pack(">IIBBBBB", 12, 16, 8, 2, 0, 0, 0)
start = b"\\x89PNG\\r\\n\\x1a\\n" + chunk(b"IHDR", header)
data = start + chunk(b"IDAT", packed) + chunk(b"IEND", b"")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    decode_picture(data, (16, 12))
except ValueError:
    pass
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
"""Prints the MB by which memory grew over a PNG of 16 rows that inflates to 256 MB."""

SHAPES = [(1, 1), (5, 7), (32, 24), (24, 33)]


def picture(shape: tuple[int, ...], dtype: str = "uint8") -> np.ndarray:
    """Smooth with grain, as photographs are."""
    rng = np.random.default_rng(0)
    rows, columns = np.indices(shape[:2])
    smooth = (np.sin(rows / 5) + np.cos(columns / 7) + 2)[..., None] / 4
    grainy = np.clip(smooth + rng.normal(0, 0.02, shape), 0, 1)
    return np.rint(grainy * np.iinfo(dtype).max).astype(dtype)


def chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def handmade_png(
    rows: bytes,
    width: int,
    height: int,
    depth: int,
    colour: int,
    extra: bytes = b"",
    laced: int = 0,
) -> bytes:
    """A PNG of raw rows, each with the number of its filter in front."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, laced)
    body = extra + chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + body + chunk(b"IEND", b"")


def answer(data: bytes, size: tuple[int, int]) -> np.ndarray | None:
    try:
        return decode_picture(data, size)
    except ValueError:
        return None


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", SHAPES)
def test_a_png_comes_back_as_it_was(size, channels, dtype):
    pixels = picture((*size, channels), dtype)
    back = decode_picture(encode_png(pixels), size)
    assert back.dtype == pixels.dtype
    np.testing.assert_array_equal(back, pixels)


@pytest.mark.parametrize(
    "data", [encode_png(picture((9, 8, 3))), encode_jpeg(picture((9, 8, 3)), 90)]
)
def test_pixels_are_a_new_array_ready_to_use(data):
    first, second = decode_picture(data, (9, 8)), decode_picture(data, (9, 8))
    first[:] = 0
    assert first.flags.c_contiguous and second.any()


def test_encoding_leaves_the_callers_pixels_as_they_are():
    pixels = picture((9, 8, 3))
    kept = pixels.copy()
    encode_png(pixels)
    encode_png(pixels[::-1, ::-1])
    np.testing.assert_array_equal(pixels, kept)


@pytest.mark.parametrize("level", [0, 1, 9])
@pytest.mark.parametrize("kind", ["NONE", "SUB", "UP", "AVG", "PAETH"])
@pytest.mark.parametrize(("channels", "dtype"), [(1, "uint8"), (3, "uint8"), (3, "uint16")])
def test_other_programs_pngs_have_the_pixels_that_opencv_sees(kind, level, channels, dtype):
    options = (cv2.IMWRITE_PNG_COMPRESSION, level)
    options += (cv2.IMWRITE_PNG_FILTER, getattr(cv2, f"IMWRITE_PNG_FILTER_{kind}"))
    data = cv2.imencode(".png", picture((33, 24, channels), dtype), options)[1].tobytes()
    seen = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    expected = seen[..., None] if channels == 1 else seen[..., ::-1]
    np.testing.assert_array_equal(decode_picture(data, (33, 24)), expected)


def test_a_png_in_several_pieces_among_other_chunks_is_the_same():
    pixels = picture((16, 12, 3))
    packed = zlib.compress(b"".join(b"\0" + row.tobytes() for row in pixels))
    pieces = [packed[start : start + 100] for start in range(0, len(packed), 100)]
    header = struct.pack(">IIBBBBB", 12, 16, 8, 2, 0, 0, 0)
    body = b"".join(chunk(b"IDAT", piece) for piece in pieces)
    text = chunk(b"tEXt", b"Comment\0made by hand") + chunk(b"gAMA", struct.pack(">I", 45455))
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + text + body + chunk(b"IEND", b"")
    np.testing.assert_array_equal(decode_picture(data, (16, 12)), pixels)


@pytest.mark.parametrize(
    "pixels",
    [picture((12, 9, 3)), picture((12, 9, 1)), picture((8, 6, 3), "uint16")],
    ids=["rgb", "gray", "16 bits"],
)
def test_a_flipped_bit_anywhere_in_a_png_is_refused(pixels):
    data = encode_png(pixels)
    for place in range(len(data)):
        for bit in range(8):
            broken = bytearray(data)
            broken[place] ^= 1 << bit
            found = answer(bytes(broken), pixels.shape[:2])
            assert found is None, f"byte {place}, bit {bit}"


@pytest.mark.parametrize("ending", [b"", b"\0\0\0\0IEND\xaeB`\x82"])
def test_a_png_cut_anywhere_is_refused(ending):
    data = encode_png(picture((12, 9, 3)))
    assert all(answer(data[:end] + ending, (12, 9)) is None for end in range(len(data) - 12))


@pytest.mark.parametrize("ending", [b"", b"\xff\xd9"])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_jpeg_cut_anywhere_is_refused(channels, ending):
    data = encode_jpeg(picture((24, 17, channels)), 95)
    assert all(answer(data[:end] + ending, (24, 17)) is None for end in range(len(data) - 2))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("quality", [50, 95, 100])
@pytest.mark.parametrize("size", SHAPES)
def test_a_jpeg_has_the_pixels_that_opencv_and_pillow_see(size, quality, channels):
    data = encode_jpeg(picture((*size, channels)), quality)
    back = decode_picture(data, size)
    seen = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(back, seen[..., None] if channels == 1 else seen[..., ::-1])
    np.testing.assert_array_equal(np.squeeze(back), np.squeeze(Image.open(io.BytesIO(data))))


@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"subsampling": 2}, {"dpi": (9, 9)}]
)
def test_other_programs_jpegs_have_the_pixels_that_pillow_sees(options):
    stored = io.BytesIO()
    Image.fromarray(picture((40, 56, 3))).save(stored, "JPEG", quality=90, **options)
    seen = np.asarray(Image.open(stored))
    np.testing.assert_array_equal(decode_picture(stored.getvalue(), (40, 56)), seen)


def test_a_jpeg_is_never_turned_by_its_metadata():
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: a quarter turn
    stored = io.BytesIO()
    Image.fromarray(picture((16, 24, 3))).save(stored, "JPEG", exif=exif)
    assert decode_picture(stored.getvalue(), (16, 24)).shape == (16, 24, 3)


def test_fill_bytes_before_a_marker_are_passed_over():
    data = encode_jpeg(picture((16, 24, 3)), 90)
    filled = data[:2] + b"\xff\xff\xff" + data[2:]
    np.testing.assert_array_equal(decode_picture(filled, (16, 24)), decode_picture(data, (16, 24)))


@pytest.mark.parametrize("encode", [encode_png, lambda pixels: encode_jpeg(pixels, 90)])
def test_another_size_is_refused_with_both_sizes(encode):
    with pytest.raises(ValueError, match=r"of 12x16 \(found 24x16\)"):
        decode_picture(encode(picture((16, 24, 3))), (16, 12))


def test_a_huge_picture_is_refused_by_its_header_alone():
    rows = b"\0" * 64
    data = handmade_png(rows, 2**31 - 1, 2**31 - 1, 8, 2)
    with pytest.raises(ValueError, match="found 2147483647x2147483647"):
        decode_picture(data, (16, 16))


@pytest.mark.parametrize(
    "data", [b"", b"\xff\xd8", b"\xff\xd8\xff\xd9", b"GIF89a", b"\x89PNG\r\n\x1a\n"]
)
def test_what_is_no_picture_is_refused(data):
    with pytest.raises(ValueError, match="is not a"):
        decode_picture(data, (16, 16))


def test_a_jpeg_whose_lengths_lead_nowhere_is_refused():
    with pytest.raises(ValueError, match=r"found 0x0"):
        decode_picture(b"\xff\xd8" + b"\xff\xe0\0\0" * 50_000 + b"\xff\xd9", (16, 16))


@pytest.mark.parametrize(
    ("depth", "colour", "bytes_per_row"),
    [(1, 0, 2), (4, 0, 6), (8, 4, 24), (8, 6, 48), (16, 6, 96), (8, 3, 12)],
    ids=["1 bit", "4 bits", "gray with alpha", "RGBA", "RGBA of 16 bits", "palette"],
)
def test_colours_that_shards_do_not_hold_are_refused(depth, colour, bytes_per_row):
    rows = (b"\0" + b"\1" * bytes_per_row) * 16
    palette = chunk(b"PLTE", bytes(range(6))) if colour == 3 else b""
    data = handmade_png(rows, 12, 16, depth, colour, palette)
    assert cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) is not None
    with pytest.raises(ValueError, match=f"{depth} bits and colour type {colour}"):
        decode_picture(data, (16, 12))


def test_a_jpeg_of_four_channels_is_refused():
    stored = io.BytesIO()
    Image.fromarray(picture((16, 24, 4)), "CMYK").save(stored, "JPEG")
    with pytest.raises(ValueError, match="4 channels; gray or RGB"):
        decode_picture(stored.getvalue(), (16, 24))


def test_rows_too_few_or_with_an_unknown_filter_are_refused_though_checksums_agree():
    row = bytes(12 * 3)
    whole = handmade_png((b"\0" + row) * 16, 12, 16, 8, 2)
    np.testing.assert_array_equal(decode_picture(whole, (16, 12)), np.zeros((16, 12, 3)))
    for rows in ((b"\0" + row) * 15, (b"\7" + row) * 16, b""):
        assert answer(handmade_png(rows, 12, 16, 8, 2), (16, 12)) is None


def test_rows_without_end_behind_a_small_header_take_no_memory():
    grown = subprocess.run([sys.executable, "-c", BOMB], capture_output=True, text=True, check=True)
    assert int(grown.stdout) < 32


def test_random_damage_with_true_checksums_never_breaks_out():
    rng = np.random.default_rng(0)
    pixels = picture((16, 12, 3))
    rows = b"".join(b"\2" + row.tobytes() for row in pixels)
    packed = zlib.compress(rows)
    for _ in range(3000):
        damaged = bytearray(packed)
        for place in rng.integers(0, len(packed), rng.integers(1, 4)):
            damaged[place] = rng.integers(256)
        header = struct.pack(">IIBBBBB", 12, 16, 8, 2, 0, 0, int(rng.integers(2)))
        body = chunk(b"IHDR", header) + chunk(b"IDAT", bytes(damaged)) + chunk(b"IEND", b"")
        found = answer(b"\x89PNG\r\n\x1a\n" + body, (16, 12))
        assert found is None or found.shape == (16, 12, 3)


@pytest.mark.parametrize("quality", [0, 101])
def test_a_jpeg_quality_out_of_range_is_refused(quality):
    with pytest.raises(ValueError, match=f"JPEG quality is {quality}; 1 to 100"):
        encode_jpeg(picture((8, 8, 3)), quality)
