"""A light named by direction, numbers, map or photograph shines from where it was said to."""

import json
import math

import cv2
import numpy as np
import pytest
import torch

from relightx.light import Light
from relightx.portrait import load
from relightx.sh import ambient_light, shade


@pytest.fixture(autouse=True)
def openexr(monkeypatch) -> None:
    """OpenCV writes .exr only when asked; the product asks when it reads."""
    monkeypatch.setenv("OPENCV_IO_ENABLE_OPENEXR", "1")


def shading(light: Light, toward: tuple[float, float, float]) -> np.ndarray:
    """What the light does to a surface that faces somewhere, for each colour."""
    normal = torch.nn.functional.normalize(torch.tensor(toward, dtype=torch.float32), dim=0).view(
        3, 1, 1
    )
    return shade(normal, torch.from_numpy(light.sh))[:, 0, 0].numpy()


@pytest.fixture
def sky(tmp_path):
    """sky(x, y): an .hdr map, dim but for a lamp at a place given as shares of width and height."""

    def make(x: float, y: float, suffix: str = ".hdr", height: int = 32) -> str:
        radiance = np.full((height, 2 * height, 3), 0.1, np.float32)
        row, column = int(y * height), int(x * 2 * height)
        radiance[row - 1 : row + 1, column - 1 : column + 1] = 80
        path = tmp_path / f"sky{suffix}"
        assert cv2.imwrite(str(path), radiance)
        return str(path)

    return make


@pytest.mark.parametrize("direction", [(1, 0, 0), (0, -2, 0), (0.3, 0.4, 0.5), (-1, 1, -1)])
def test_a_lamp_shines_from_its_direction(direction):
    light = Light.from_direction(direction)
    assert light.sh.shape == (3, 9)
    np.testing.assert_allclose(light.direction, direction / np.linalg.norm(direction), atol=1e-5)


def test_a_lamp_shades_what_faces_it_to_one_and_ambient_adds():
    # Second order shows a lamp of 1 as 1.0625.
    np.testing.assert_allclose(
        shading(Light.from_direction((0, 0, 1), ambient=0.0), (0, 0, 1)), 1.0625, atol=1e-5
    )
    np.testing.assert_allclose(
        shading(Light.from_direction((0, 0, 1), ambient=0.3), (0, 0, 1)), 1.3625, atol=1e-5
    )


def test_colour_tints_lamp_and_ambient():
    tinted = shading(Light.from_direction((0, 0, 1), 0.2, color=(1.0, 0.5, 0.0)), (0, 0, 1))
    np.testing.assert_allclose(tinted, 1.2625 * np.array([1, 0.5, 0]), atol=1e-5)


def test_a_uniform_light_has_no_direction():
    light = Light.from_sh(ambient_light(0.7).tolist())
    assert (light.direction == 0).all()
    np.testing.assert_allclose(shading(light, (0.6, 0.0, 0.8)), 0.7, atol=1e-5)


@pytest.mark.parametrize("direction", [(0, 0, 0), (1, 2), (1, math.nan, 0), ((1, 2, 3),)])
def test_a_direction_that_is_none_is_refused(direction):
    with pytest.raises(ValueError, match=r"length zero|is not a vector x, y, z"):
        Light.from_direction(direction)


@pytest.mark.parametrize("ambient", [-0.1, math.inf, math.nan])
def test_impossible_ambient_light_is_refused(ambient):
    with pytest.raises(ValueError, match=r"ambient light is .*; 0 or more needed"):
        Light.from_direction((0, 0, 1), ambient)


@pytest.mark.parametrize("color", [(1.0, 1.0), (1.0, -1.0, 1.0), (1.0, math.nan, 1.0)])
def test_an_impossible_colour_is_refused(color):
    with pytest.raises(ValueError, match=r"colour of the light is .*; three numbers"):
        Light.from_direction((0, 0, 1), 0.2, color)


def test_coefficients_come_gray_flat_or_by_colour():
    gray = list(range(1, 10))
    colours = [[float(10 * c + k) for k in range(9)] for c in range(3)]
    for values in (gray, [gray], [gray] * 3):
        np.testing.assert_array_equal(Light.from_sh(values).sh, [gray] * 3)
    for values in (colours, np.ravel(colours), np.array(colours)):
        np.testing.assert_array_equal(Light.from_sh(values).sh, colours)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1] * 8, r"shape \(8,\); 9, 27 or 3 x 9"),
        (np.ones((9, 3)), r"shape \(9, 3\)"),
        ([[1] * 9, [1] * 8], "are not numbers"),
        (["bright"] * 9, "are not numbers"),
        ([1] * 8 + [math.nan], "not finite"),
        ({"a": 1}, "are not numbers"),
        (3.0, r"shape \(\)"),
    ],
)
def test_coefficients_of_another_kind_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        Light.from_sh(values)


@pytest.mark.parametrize(
    ("spec", "direction"),
    [
        ("direction:0,0", (0, 0, 1)),
        ("direction:90,0", (1, 0, 0)),
        ("direction:-90,0", (-1, 0, 0)),
        ("direction:0,90", (0, 1, 0)),
        ("direction:180,0", (0, 0, -1)),
        ("direction: 90 , 30 , 0.5", (math.cos(math.pi / 6), 0.5, 0)),
    ],
)
def test_angles_count_toward_the_pictures_right_and_up(spec, direction):
    np.testing.assert_allclose(Light.from_spec(spec).direction, direction, atol=1e-5)


def test_the_third_number_of_a_direction_is_ambient_light():
    bright, dark = (shading(Light.from_spec(f"direction:0,0,{a}"), (0, 0, 1)) for a in (0.5, 0))
    np.testing.assert_allclose(bright - dark, 0.5, atol=1e-5)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("direction:", r"direction:AZ,EL\[,AMBIENT\] in degrees is needed"),
        ("direction:30", r"direction:AZ,EL"),
        ("direction:30,up", r"direction:AZ,EL"),
        ("direction:1,2,3,4", r"direction:AZ,EL"),
        ("direction:181,0", "azimuth from -180 to 180"),
        ("direction:0,91", "elevation from -90 to 90"),
        ("direction:nan,0", "azimuth from -180"),
        ("direction:0,0,-1", "ambient light is -1.0"),
        ("", "is no file and no direction"),
        ("nowhere.json", "is no file and no direction; needed: a JSON file of SH"),
        ("left", "is no file and no direction"),
        ("/", "is no file and no direction"),
        ("x" * 5000, "is no file and no direction"),
    ],
)
def test_an_impossible_spec_is_refused(spec, message):
    with pytest.raises(ValueError, match=message):
        Light.from_spec(spec)


@pytest.mark.parametrize("wrap", [lambda v: v, lambda v: {"sh": v, "direction": [0, 0, 1]}])
def test_a_json_file_is_a_light(tmp_path, wrap):
    light = Light.from_direction((1, 2, 3), 0.1, (1.0, 0.8, 0.6))
    (tmp_path / "light.JSON").write_text(json.dumps(wrap(light.sh.tolist())))
    np.testing.assert_allclose(Light.from_spec(f"{tmp_path}/light.JSON").sh, light.sh, atol=1e-6)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not readable as JSON"),
        (b"\xff\xfe\x00", "not readable as JSON"),
        (b'{"light": [1]}', "has no 'sh' key"),
        (b"[1, 2, 3]", r"shape \(3,\)"),
        (b'{"sh": null}', "coefficients"),
        (b'"abc"', "are not numbers"),
        (b"[1, 1, 1, 1, 1, 1, 1, 1, 1e999]", "not finite"),
    ],
)
def test_a_json_file_of_another_kind_is_refused_by_name(tmp_path, content, message):
    file = tmp_path / "light.json"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=rf"{file}: .*{message}"):
        Light.from_spec(str(file))


@pytest.mark.parametrize(
    ("place", "direction"),
    [
        ((0.75, 0.5), (1, 0, 0)),  # right of the centre, which is behind the head
        ((0.25, 0.5), (-1, 0, 0)),
        ((0.5, 0.5), (0, 0, -1)),
        ((0.97, 0.5), (0.19, 0, 0.98)),  # the right edge, before the face
        ((0.75, 0.25), (0.707, 0.707, 0)),
    ],
)
def test_a_lamp_in_a_map_shines_from_its_place(sky, place, direction):
    light = Light.from_environment(sky(*place))
    assert np.dot(light.direction, direction) > 0.99


def test_a_map_of_any_brightness_has_mean_luminance_one(sky):
    light = Light.from_environment(sky(0.75, 0.5))
    mean = light.sh[:, 0] / ambient_light(1.0)[0].item()
    assert np.dot([0.2126, 0.7152, 0.0722], mean) == pytest.approx(1, abs=1e-5)


def test_a_map_turns_about_the_vertical(sky):
    path = sky(0.75, 0.25)  # toward +x and up
    turned = {deg: Light.from_environment(path, deg).direction for deg in (0.0, 90.0, 180.0)}
    x, y, z = turned[0]
    np.testing.assert_allclose(turned[90], (z, y, -x), atol=1e-5)
    np.testing.assert_allclose(turned[180], (-x, y, -z), atol=1e-5)


@pytest.mark.parametrize("suffix", [".hdr", ".exr"])
def test_a_spec_may_be_a_map(sky, suffix):
    light = Light.from_spec(sky(0.75, 0.5, suffix))
    assert light.direction[0] > 0.99


def write_map(path, values) -> None:
    assert cv2.imwrite(str(path), np.asarray(values, np.float32))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"not a map", "no .exr, .hdr or floating-point TIFF found"),
        (b"", "is empty"),
        (np.ones((8, 8, 3)), "is 8x8; an equirectangular map is 2:1"),
        (np.zeros((8, 16, 3)), "its mean luminance is 0; light is needed"),
    ],
)
def test_a_file_that_is_no_map_is_refused_by_name(tmp_path, content, message):
    file = tmp_path / "sky.hdr"
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        write_map(file, content)
    with pytest.raises(ValueError, match=rf"{file}: .*{message}"):
        Light.from_spec(str(file))


def test_a_map_with_values_that_are_not_finite_is_refused(tmp_path):
    values = np.ones((8, 16, 3))
    values[0, 0, 0] = np.inf
    write_map(tmp_path / "sky.exr", values)
    with pytest.raises(ValueError, match="has 1 values that are not finite"):
        Light.from_environment(tmp_path / "sky.exr")


def test_a_map_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"no such file; an .hdr or .exr environment map"):
        Light.from_environment(tmp_path / "sky.hdr")


def test_a_photograph_gives_the_light_a_model_sees(tiny_model, tmp_path):
    model = load(tiny_model)
    photo = tmp_path / "photo.png"
    cv2.imwrite(str(photo), np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8))
    light = Light.from_spec(str(photo), model)
    np.testing.assert_array_equal(light.sh, Light.from_photo(model, photo).sh)
    np.testing.assert_array_equal(light.sh, model.decompose(photo).light.sh)
    with pytest.raises(ValueError, match="a photograph's light needs a model"):
        Light.from_spec(str(photo))
