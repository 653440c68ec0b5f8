"""A photograph of any kind and size is decomposed at its size, and relit inside its mask."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import relightx
from relightx.checkpoint import save_model
from relightx.color import from_integer, srgb_to_linear, to_srgb8
from relightx.index import write_atomically
from relightx.light import Light
from relightx.model import IntrinsicNet, ModelConfig
from relightx.pictures import (
    check_picture_name,
    decomposition_sheet,
    refuse_used_directory,
    write_decomposition,
    write_picture,
)
from relightx.portrait import Model, read_linear
from relightx.sh import to_sfsnet

ASTRONAUT = Path(relightx.__file__).parent / "photos" / "astronaut.jpg"
LEFT = Light.from_direction((-1, 0, 1))


@pytest.fixture(scope="module")
def model(tiny_model) -> Model:
    return relightx.load(tiny_model)


@pytest.fixture(scope="module")
def face(model):
    return model.decompose(ASTRONAUT)


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(20, 236, (40, 56, 3), dtype=np.uint8)


def assert_sound(result, height: int, width: int) -> None:
    for name in ("image", "albedo", "normal", "shading"):
        value = getattr(result, name)
        assert value.shape == (height, width, 3) and value.dtype == np.float32, name
        assert np.isfinite(value).all()
    assert result.mask.shape == result.weight.shape == (height, width)
    assert result.mask.dtype == bool and result.light.sh.shape == (3, 9)
    assert result.albedo.min() >= 0 and result.albedo.max() <= 1
    assert result.shading.min() >= 0
    assert result.weight.min() >= 0 and result.weight.max() <= 1
    np.testing.assert_allclose(np.linalg.norm(result.normal[result.mask], axis=-1), 1, atol=1e-5)
    outside = result.weight == 0
    for name in ("albedo", "normal", "shading"):
        assert (getattr(result, name)[outside] == 0).all()


def test_a_face_is_found_and_decomposed_at_the_photographs_size(face):
    assert face.face_found
    assert_sound(face, 512, 512)
    assert 0.02 < face.mask.mean() < 0.4
    rows, columns = np.nonzero(face.mask)
    assert 60 < rows.mean() < 180 and 170 < columns.mean() < 280


def test_path_picture_and_array_are_the_same_photograph(model, face):
    with Image.open(ASTRONAUT) as picture:
        from_picture = model.decompose(picture)
        from_array = model.decompose(srgb_to_linear(np.asarray(picture.convert("RGB")) / 255))
    for other in (from_picture, from_array, model.decompose(str(ASTRONAUT))):
        for name in ("image", "albedo", "normal", "shading", "weight"):
            np.testing.assert_allclose(getattr(other, name), getattr(face, name), atol=1e-3)


def test_a_face_relit_leaves_the_rest_of_the_photograph_untouched(model, face):
    relit = model.relight(ASTRONAUT, LEFT)
    np.testing.assert_array_equal(relit, face.relit(LEFT))
    outside = face.weight == 0
    np.testing.assert_array_equal(relit[outside], face.image[outside])
    assert np.abs(relit - face.image)[face.mask].mean() > 0.01
    assert relit.min() >= 0 and relit.max() <= 1


def test_relighting_follows_the_light(face):
    left, right = (face.relit(Light.from_direction((x, 0, 1))) for x in (-1, 1))
    assert np.abs(left - right)[face.mask].mean() > 1e-3
    bright, dark = (face.relit(Light.from_direction((0, 0, 1), a)) for a in (0.4, 0.0))
    assert (bright >= dark - 1e-6).all() and (bright > dark)[face.mask].mean() > 0.9


def test_fine_detail_of_the_photograph_is_in_the_albedo(face):
    """The network saw 32 pixels; the albedo follows the photograph's own grain."""
    fine = {}
    for name in ("image", "albedo"):
        gray = np.log(getattr(face, name).mean(2) + 0.02)
        fine[name] = np.diff(gray, axis=1)[face.mask[:, 1:] & face.mask[:, :-1]]
    assert np.corrcoef(fine["image"], fine["albedo"])[0, 1] > 0.5


@pytest.mark.parametrize(("height", "width"), [(40, 56), (33, 17), (1, 1), (3, 200)])
def test_a_picture_without_a_face_is_taken_whole(model, height, width):
    image = np.random.default_rng(0).random((height, width, 3), np.float32)
    result = model.decompose(image)
    assert not result.face_found and result.mask.all()
    assert_sound(result, height, width)


def test_gray_is_the_same_as_equal_colours(model):
    gray = np.random.default_rng(0).random((40, 30)).astype(np.float32)
    first, second = model.decompose(gray), model.decompose(np.repeat(gray[..., None], 3, 2))
    np.testing.assert_array_equal(first.albedo, second.albedo)
    np.testing.assert_array_equal(first.image, np.repeat(gray[..., None], 3, 2))


def test_the_input_is_not_changed(model):
    image = np.random.default_rng(0).random((40, 30, 3)).astype(np.float32)
    before = image.copy()
    model.relight(image, LEFT)
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P"])
def test_files_of_all_usual_kinds_are_read_as_srgb(pixels, tmp_path, mode):
    picture = Image.fromarray(pixels).convert(mode)
    picture.save(tmp_path / "a.png")
    expected = from_integer(np.asarray(picture.convert("RGB")), "srgb")
    np.testing.assert_allclose(read_linear(tmp_path / "a.png"), expected, atol=1e-6)
    np.testing.assert_allclose(read_linear(picture), expected, atol=1e-6)


def test_a_picture_turned_by_exif_is_read_upright_from_file_and_from_memory(pixels, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # shown a quarter turn clockwise
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    upright = from_integer(np.rot90(pixels, -1), "srgb")
    np.testing.assert_array_equal(read_linear(tmp_path / "a.png"), upright)
    with Image.open(tmp_path / "a.png") as picture:
        np.testing.assert_array_equal(read_linear(picture), upright)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((4, 4, 3), np.uint8), r"image is uint8; .*PIL.Image.fromarray"),
        (np.zeros((4, 4, 3), int), "image is int64"),
        (np.full((4, 4, 3), np.nan), "negative or not finite"),
        (np.full((4, 4, 3), -0.1), "negative or not finite"),
        (np.full((4, 4, 3), 255.0), "up to 255; linear light from 0 to 1 needed"),
        (np.zeros((4, 4, 4)), r"shape \(4, 4, 4\)"),
        (np.zeros((3, 8, 8)), r"shape \(3, 8, 8\)"),
        (np.zeros((4, 0, 3)), r"shape \(4, 0, 3\)"),
        (np.zeros(5), r"shape \(5,\)"),
    ],
)
def test_what_is_no_linear_image_is_refused(image, message):
    with pytest.raises(ValueError, match=message):
        read_linear(image)


@pytest.mark.parametrize("content", [b"", b"just text", b"\x89PNG\r\n\x1a\n broken"])
def test_a_file_that_is_no_picture_is_refused_by_name(model, tmp_path, content):
    file = tmp_path / "photo.png"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=rf"{file}: "):
        model.decompose(file)


def test_a_photograph_that_is_not_there_is_refused_by_name(model, tmp_path):
    with pytest.raises(ValueError, match=rf"{tmp_path / 'photo.png'}: .*No such file"):
        model.decompose(tmp_path / "photo.png")


def test_normals_and_light_belong_to_the_photographs_frame(tmp_path):
    """A network of constant answers, asked about a wide picture: nothing may turn them."""
    network = IntrinsicNet(ModelConfig("sfsnet"))
    last, light = network.backbone.normal_head[-1], network.backbone.light
    with torch.no_grad():
        last.weight.zero_()
        last.bias.copy_((torch.tensor([0.6, 0.0, 0.8]) + 1) / 2)
        light.weight.zero_()
        light.bias.copy_(to_sfsnet(torch.from_numpy(LEFT.sh)).flatten())
    save_model(tmp_path / "m", network.config, network.state_dict(), 32, {})
    result = relightx.load(tmp_path / "m").decompose(np.full((30, 50, 3), 0.4, np.float32))
    np.testing.assert_allclose(
        result.normal, np.broadcast_to([0.6, 0, 0.8], (30, 50, 3)), atol=1e-4
    )
    np.testing.assert_allclose(result.light.sh, LEFT.sh, atol=1e-4)


def test_pictures_are_srgb_outside(tmp_path, pixels):
    write_picture(from_integer(pixels, "srgb"), tmp_path / "new" / "a.png")
    with Image.open(tmp_path / "new" / "a.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture), pixels)
    write_picture(from_integer(pixels, "srgb"), tmp_path / "a.JPG")
    with Image.open(tmp_path / "a.JPG") as picture:
        assert picture.format == "JPEG" and picture.size == (56, 40)


@pytest.mark.parametrize("name", ["a.gif", "a.tiff", "a", "a.png.txt"])
def test_a_file_name_of_another_ending_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match=r"ends in .*; .png or .jpg needed"):
        write_picture(np.zeros((4, 4, 3), np.float32), tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_directory_is_no_file_name(tmp_path):
    (tmp_path / "a.png").mkdir()
    with pytest.raises(ValueError, match="is a directory; a file name is needed"):
        check_picture_name(tmp_path / "a.png")


def test_only_a_new_or_empty_directory_is_taken(tmp_path):
    (tmp_path / "empty").mkdir()
    refuse_used_directory(tmp_path / "empty")
    refuse_used_directory(tmp_path / "new")
    for used in (tmp_path, tmp_path / "file"):
        (tmp_path / "file").write_text("")
        with pytest.raises(ValueError, match=rf"{used}: already there and not empty"):
            refuse_used_directory(used)


def test_a_decomposition_is_written_whole(model, pixels, tmp_path):
    result = model.decompose(Image.fromarray(pixels))
    write_decomposition(result, tmp_path / "out")
    names = {"albedo.png", "normal.png", "shading.png", "mask.png", "sheet.png", "light.json"}
    assert {entry.name for entry in (tmp_path / "out").iterdir()} == names
    with Image.open(tmp_path / "out" / "albedo.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture), to_srgb8(result.albedo))
    with Image.open(tmp_path / "out" / "normal.png") as picture:
        decoded = np.asarray(picture) / 255 * 2 - 1
    np.testing.assert_allclose(decoded, result.normal, atol=0.005)
    with Image.open(tmp_path / "out" / "mask.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture) > 0, result.mask)
    light = json.loads((tmp_path / "out" / "light.json").read_text())
    np.testing.assert_allclose(light["direction"], result.light.direction, atol=1e-5)
    again = Light.from_spec(str(tmp_path / "out" / "light.json"))
    np.testing.assert_allclose(again.sh, result.light.sh, atol=1e-5)


def test_the_sheet_shows_five_pictures_side_by_side(model, pixels):
    result = model.decompose(Image.fromarray(pixels))
    sheet = decomposition_sheet(result)
    assert sheet.shape == (40, 5 * 56, 3) and sheet.dtype == np.uint8
    np.testing.assert_array_equal(sheet[:, :56], pixels)
    np.testing.assert_array_equal(sheet[:, 56:112], to_srgb8(result.albedo))
    rebuilt = to_srgb8(result.albedo * result.shading)
    assert np.abs(sheet[:, 4 * 56 :].astype(int) - rebuilt).max() <= 1


def test_a_picture_that_cannot_be_written_leaves_the_old_one(tmp_path, pixels):
    file = tmp_path / "a.png"
    write_picture(from_integer(pixels, "srgb"), file)
    before = file.read_bytes()
    with pytest.raises(TypeError):
        write_atomically(file, "text is not bytes")  # fails after the file was opened
    assert file.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.png"]
