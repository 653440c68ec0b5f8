"""Stacks of exact balls, in all forms of picture and table, give labels and relit pictures."""

import json
import pickle
from pathlib import Path

import cv2
import numpy as np
import OpenEXR
import pytest
import tifffile
import torch
from balls import smooth_albedo, sphere

from relightx.color import to_srgb8
from relightx.sample import check
from relightx.sh import ambient_light, shade
from shards.sources.olat import olat

EXPOSURE = 0.9
SIZE = 32


def in_front(count: int) -> np.ndarray:
    """Directions spread over a little more than the front half of the sphere."""
    index = np.arange(count)
    z = 1 - 1.2 * (index + 0.5) / count
    turn, ring = index * np.pi * (3 - np.sqrt(5)), np.sqrt(1 - z * z)
    return np.stack((ring * np.cos(turn), ring * np.sin(turn), z), axis=1).astype(np.float32)


LAMPS = in_front(30)
STRENGTH = np.linspace(0.6, 1.0, 30, dtype=np.float32)[:, None] * np.array(
    [1, 0.9, 0.8], np.float32
)


@pytest.fixture(scope="module")
def ball():
    """Normal, albedo and mask of a ball, height x width (x 3)."""
    normal, mask = sphere(SIZE)
    albedo = smooth_albedo(SIZE, torch.Generator().manual_seed(0))
    return normal.permute(1, 2, 0).numpy(), albedo.permute(1, 2, 0).numpy(), mask.numpy()


@pytest.fixture
def write_stack(ball):
    """write(folder, ending, lamps, strength): exact pictures of the ball, one lamp lit in each."""
    normal, albedo, mask = ball

    def write(folder: Path, ending: str = "png16", lamps=LAMPS, strength=None) -> list[str]:
        folder.mkdir(parents=True, exist_ok=True)
        strength = np.ones((len(lamps), 3), np.float32) if strength is None else strength
        names = []
        for index, (lamp, colour) in enumerate(zip(lamps, strength, strict=True)):
            cosine = np.maximum(normal @ lamp, 0)[..., None] * mask[..., None]
            picture = (albedo * cosine * colour * EXPOSURE).astype(np.float32)
            names.append(f"{index}.{ending.rstrip('0123456789')}")
            write_picture(folder / names[-1], ending, picture)
        return names

    return write


def write_picture(file: Path, ending: str, linear: np.ndarray) -> None:
    if ending == "exr":
        header = {"type": OpenEXR.scanlineimage, "compression": OpenEXR.ZIP_COMPRESSION}
        # The package takes no notice of strides.
        with OpenEXR.File(header, {"RGB": np.ascontiguousarray(linear * 40)}) as picture:
            picture.write(str(file))
    elif ending == "tif16":
        tifffile.imwrite(file, np.rint(linear * 65535).astype(np.uint16), photometric="rgb")
    elif ending == "tif32":
        tifffile.imwrite(file, linear, photometric="rgb")
    elif ending == "png8":
        cv2.imwrite(str(file), to_srgb8(linear)[..., ::-1])
    else:
        cv2.imwrite(str(file), np.rint(linear * 65535).astype(np.uint16)[..., ::-1])


def write_table(file: Path, lamps=LAMPS) -> None:
    file.write_text("".join(f"{x} {y} {z}\n" for x, y, z in lamps))


@pytest.fixture
def stage(tmp_path, write_stack):
    """A root with one subject's stack of 16-bit linear pictures and a table."""
    write_stack(tmp_path / "anna")
    write_table(tmp_path / "anna" / "lights.txt")
    return tmp_path


def read(root: Path, **options):
    """The portraits of the only group of a root."""
    (group,) = olat(root, **({"transfer": "linear", "exposure": EXPOSURE} | options))
    return group.read()


def modelled(portrait) -> np.ndarray:
    """albedo * shade(normal, sh), lights x height x width x 3."""
    normal = torch.from_numpy(np.ascontiguousarray(portrait.normal.transpose(2, 0, 1)))
    shading = shade(normal[None], torch.from_numpy(portrait.sh)).permute(0, 2, 3, 1).numpy()
    return portrait.albedo * shading


@pytest.mark.parametrize(
    ("ending", "options", "tolerance"),
    [
        ("png16", {}, 1e-3),
        ("png8", {"transfer": "srgb"}, 0.01),
        ("tif16", {}, 1e-3),
        ("tif32", {}, 1e-3),
        ("exr", {"exposure": 40 * EXPOSURE}, 1e-3),
    ],
)
def test_each_kind_of_picture_gives_the_ball_s_labels(
    tmp_path, write_stack, ball, ending, options, tolerance
):
    normal, albedo, mask = ball
    write_stack(tmp_path / "anna", ending)
    write_table(tmp_path / "anna" / "lights.txt")
    stored, relit = read(tmp_path, **options)
    for portrait in (stored, relit):
        check(portrait)
        assert (portrait.provenance.albedo, portrait.provenance.light) == ("real", "real")
        np.testing.assert_allclose(portrait.albedo[mask], albedo[mask], atol=5 * tolerance)
        cosine = (portrait.normal * normal).sum(axis=-1)[mask]
        assert np.degrees(np.arccos(np.clip(cosine, -1, 1))).mean() < 100 * tolerance
        assert portrait.confidence[mask].mean() > 0.9 and portrait.confidence[~mask].max() == 0


def test_the_lamps_light_and_names_are_stored(stage, ball):
    stored = read(stage, groups="olat")
    assert stored.key == "anna_olat" and stored.subject == "anna"
    assert stored.light_name[:3] == ("0", "1", "2") and stored.image.shape == (30, 32, 32, 3)
    np.testing.assert_allclose(stored.direction, LAMPS, atol=1e-6)
    # Exact Lambertian shading, in place of its second order.
    exact = stored.albedo * np.maximum(np.einsum("hwk,lk->lhw", stored.normal, LAMPS), 0)[..., None]
    np.testing.assert_allclose(exact * EXPOSURE, stored.linear_image(), atol=2e-3)
    error = np.abs(modelled(stored) - stored.linear_image())[:, ball[2]]
    assert error.mean() < 0.1 * stored.linear_image()[:, ball[2]].mean()


def test_a_relit_picture_is_albedo_times_the_shading_of_its_stored_light(stage, ball):
    relit = read(stage, groups="relit", relit=14)
    assert relit.key == "anna_relit" and relit.num_lights == 14
    seen = relit.linear_image()[:, ball[2]]
    error = np.abs(modelled(relit)[:, ball[2]] - seen).mean(axis=(1, 2)) / seen.mean(axis=(1, 2))
    assert np.median(error) < 0.03 and error.max() < 0.05


def test_a_white_environment_gives_the_ambient_picture_of_the_lamps_that_there_are(
    stage, tmp_path_factory
):
    """Its light is even over the front, and the picture is albedo times it."""
    maps = tmp_path_factory.mktemp("maps")
    write_picture(maps / "white.exr", "exr", np.ones((16, 32, 3), np.float32))
    relit = read(stage, groups="relit", relit=1, environments=maps)
    ahead = relit.albedo[14:18, 14:18], relit.linear_image()[0, 14:18, 14:18]
    ratio = ahead[1] / ahead[0]
    assert ratio.std() < 0.02 * ratio.mean()
    share = relit.sh[0, :, 0] / ambient_light(1.0)[0].item()
    assert np.ptp(share) < 1e-4 * share.mean()  # as white as the map


def test_relit_pictures_are_exposed_and_their_light_with_them(stage, ball):
    relit = read(stage, groups="relit")
    brightest = relit.linear_image().max(axis=3).reshape(8, -1)
    assert (np.quantile(brightest, 0.999, axis=1) > 0.99).all()
    assert ((brightest >= 1).mean(axis=1) <= 0.002).all()


def test_relighting_is_the_same_each_time_and_another_for_each_stack_and_seed(stage, write_stack):
    first, again = (read(stage, groups="relit") for _ in range(2))
    np.testing.assert_array_equal(first.image, again.image)
    assert first.light_name == again.light_name
    assert read(stage, groups="relit", seed=1).light_name != first.light_name
    write_stack(stage / "ben")
    write_table(stage / "ben" / "lights.txt")
    anna, ben = (g.read() for g in olat(stage, groups="relit", transfer="linear"))
    assert anna.light_name == first.light_name != ben.light_name


def test_no_map_is_used_twice_before_all_were_once(stage):
    names = [name.split(" turned ") for name in read(stage, groups="relit", relit=20).light_name]
    assert len({name for name, _ in names[:14]}) == 14
    assert all(0 <= int(turn) < 360 for _, turn in names)


def test_groups_say_what_they_will_be(stage, write_stack):
    (both,) = olat(stage, relit=5)
    assert (both.key, both.subject, both.lights) == ("anna", "anna", 35)
    assert [p.key for p in pickle.loads(pickle.dumps(both.read))()] == ["anna_olat", "anna_relit"]
    for kind, lights in (("olat", 30), ("relit", 5)):
        (group,) = olat(stage, groups=kind, relit=5)
        assert (group.key, group.lights) == (f"anna_{kind}", lights)
        assert group.read().key == group.key


def test_subjects_may_have_several_stacks_and_all_one_table(tmp_path, write_stack):
    for name in ("calm", "smile 2"):
        write_stack(tmp_path / "ben" / name)
    write_stack(tmp_path / "anna")
    write_table(tmp_path / "lights.txt")
    groups = list(olat(tmp_path, groups="olat", transfer="linear"))
    assert [g.key for g in groups] == ["anna_olat", "ben_calm_olat", "ben_smile-2_olat"]
    assert [g.subject for g in groups] == ["anna", "ben", "ben"]
    assert [g.read().num_lights for g in groups] == [30, 30, 30]


def test_a_table_may_be_anywhere_when_it_is_named(tmp_path, write_stack):
    write_stack(tmp_path / "root" / "anna")
    write_table(tmp_path / "dome.csv")
    stored = read(tmp_path / "root", groups="olat", lights=tmp_path / "dome.csv")
    np.testing.assert_allclose(stored.direction, LAMPS, atol=1e-6)


def test_lamps_of_known_strength_and_colour_give_the_same_labels(tmp_path, write_stack, ball):
    _, albedo, mask = ball
    names = write_stack(tmp_path / "anna", strength=STRENGTH)
    lights = [
        {"file": name, "direction": lamp.tolist(), "strength": colour.tolist()}
        for name, lamp, colour in zip(names, LAMPS, STRENGTH, strict=True)
    ]
    (tmp_path / "anna" / "lights.json").write_text(json.dumps(lights))
    stored, relit = read(tmp_path)
    np.testing.assert_allclose(stored.albedo[mask], albedo[mask], atol=3e-3)
    ratio = stored.sh[:, :, 0] / stored.sh[-1:, :1, 0]
    np.testing.assert_allclose(ratio, STRENGTH / STRENGTH[-1, 0], rtol=1e-3)
    error = np.abs(modelled(relit) - relit.linear_image())[:, mask].mean()
    assert error < 0.03 * relit.linear_image()[:, mask].mean()


def test_a_gray_stack_has_gray_albedo_and_is_relit_in_colour(tmp_path, ball):
    normal, albedo, mask = ball
    folder = tmp_path / "anna"
    folder.mkdir()
    for index, lamp in enumerate(LAMPS):
        picture = albedo[..., 1] * np.maximum(normal @ lamp, 0) * mask * EXPOSURE
        cv2.imwrite(str(folder / f"{index:02d}.png"), np.rint(picture * 65535).astype(np.uint16))
    write_table(folder / "lights.txt")
    stored, relit = read(tmp_path)
    assert stored.image.shape[3] == 1 and relit.image.shape[3] == 3
    np.testing.assert_allclose(
        stored.albedo[mask], np.repeat(albedo[mask][:, 1:2], 3, axis=1), atol=3e-3
    )
    assert np.ptp(relit.sh[:, :, 0], axis=1).max() > 0.01 * relit.sh[:, :, 0].mean()


def test_without_an_exposure_the_brightest_skin_has_albedo_0_8(stage, ball):
    stored = read(stage, groups="olat", exposure=None)
    assert np.quantile(stored.albedo[ball[2]].max(axis=1), 0.99) == pytest.approx(0.8, abs=0.02)
    error = np.abs(modelled(stored) - stored.linear_image())[:, ball[2]].mean()
    assert error < 0.1 * stored.linear_image()[:, ball[2]].mean()


def test_a_mask_is_kept_and_pictures_are_made_smaller_with_a_way_back(stage, ball):
    mask = ball[2]
    cv2.imwrite(str(stage / "anna" / "mask.png"), mask.astype(np.uint8) * 255)
    stored = read(stage, groups="olat", size=16)
    assert stored.image.shape == (30, 16, 16, 3) and stored.image.dtype == np.uint16
    assert stored.mask.mean() == pytest.approx(mask.mean(), abs=0.05)
    provenance = stored.provenance
    assert provenance.affine == ((0.5, 0, 0), (0, 0.5, 0)) and provenance.source_size == (32, 32)
    assert "32x32 made 16x16" in provenance.crop


def test_the_white_of_floats_is_written_down(tmp_path, write_stack):
    write_stack(tmp_path / "anna", "exr")
    write_table(tmp_path / "anna" / "lights.txt")
    stored = read(tmp_path, groups="olat", licence="mine", exposure=36.0)
    assert "of the pictures stored as 1" in stored.provenance.crop
    assert (stored.provenance.licence, stored.provenance.transfer) == ("mine", "linear")
    assert stored.image.dtype == np.uint16


def test_pictures_of_8_bits_stay_8_bits(tmp_path, write_stack):
    write_stack(tmp_path / "anna", "png8")
    write_table(tmp_path / "anna" / "lights.txt")
    stored, relit = read(tmp_path, transfer="srgb")
    assert stored.image.dtype == relit.image.dtype == np.uint8
    assert stored.provenance.transfer == relit.provenance.transfer == "srgb"


def test_tables_in_another_frame_are_refused_with_the_axes_that_fit(stage):
    write_table(stage / "anna" / "lights.txt", LAMPS * [1, -1, -1])
    with pytest.raises(ValueError, match=r"anna, lights\.txt: .*axes 'x,-y,-z' in place of"):
        read(stage)
    stored = read(stage, groups="olat", axes="x,-y,-z")
    np.testing.assert_allclose(stored.direction, LAMPS, atol=1e-6)


def test_lights_in_another_order_than_the_pictures_are_refused(stage):
    write_table(stage / "anna" / "lights.txt", np.random.default_rng(3).permutation(LAMPS))
    with pytest.raises(ValueError, match=r"anna, lights\.txt: "):
        read(stage)


@pytest.mark.parametrize(
    ("lamps", "message"),
    [
        (LAMPS[:3], "3 lights found; 4 or more"),
        (
            np.float32([[np.sin(a), 0, np.cos(a)] for a in np.linspace(-1, 1, 5)]),
            "lie in one plane",
        ),
    ],
)
def test_lamps_that_cannot_tell_a_surface_are_refused(tmp_path, write_stack, lamps, message):
    write_stack(tmp_path / "anna", lamps=lamps)
    write_table(tmp_path / "anna" / "lights.txt", lamps)
    with pytest.raises(ValueError, match=rf"anna, lights\.txt: .*{message}"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "lights.txt").unlink(), "no table of light directions"),
        (lambda f: (f / "lights.csv").write_text(""), "several tables"),
        (lambda f: (f / "lights.txt").write_text("0 0 1\n"), "has 1 lights for 30 pictures"),
        (lambda f: (f / "7.png").unlink(), "has 30 lights for 29 pictures"),
        (lambda f: (f / "7.png").rename(f / "ambient.png"), None),
        (lambda f: (f / "7.png").write_bytes(b""), r"7\.png: is empty"),
        (lambda f: (f / "7.png").write_bytes((f / "7.png").read_bytes()[:-50]), r"7\.png"),
        (lambda f: write_picture(f / "7.png", "png8", np.zeros((9, 9, 3), np.float32)), "9x9"),
        (lambda f: (f / "inner").mkdir(), "a folder among pictures"),
        (lambda f: cv2.imwrite(str(f / "mask.png"), np.zeros((32, 32))), r"mask\.png: is black"),
        (lambda f: cv2.imwrite(str(f / "mask.png"), np.ones((3, 3))), r"mask\.png: is 3x3"),
        (lambda f: [p.unlink() for p in f.glob("*.png")], "has no pictures"),
    ],
)
def test_what_is_wrong_with_one_stack_is_said_when_it_is_read(stage, write_stack, spoil, message):
    write_stack(stage / "ben")
    write_table(stage / "ben" / "lights.txt")
    spoil(stage / "anna")
    anna, ben = olat(stage, transfer="linear")
    assert anna.subject == "anna"
    with pytest.raises(ValueError, match=f"anna.*{message or ''}"):
        anna.read()
    assert len(ben.read()) == 2


def test_a_picture_that_the_table_does_not_name_is_a_fault(stage):
    names = "".join(f"{i}.png {x} {y} {z}\n" for i, (x, y, z) in enumerate(LAMPS))
    (stage / "anna" / "lights.txt").write_text(names)
    (stage / "anna" / "7.png").rename(stage / "anna" / "ambient.png")
    with pytest.raises(ValueError, match=r"lights\.txt: lists '7\.png', which is not among"):
        read(stage)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"axes": "x,y"}, "axes is 'x,y'"),
        ({"relit": 0}, "relit is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"size": 4}, "size is 4 px"),
        ({"exposure": 0.0}, "exposure is 0.0"),
        ({"exposure": float("nan")}, "exposure is nan"),
        ({"lights": Path("/nowhere/lights.txt")}, "no such file; a table"),
        ({"environments": Path("/nowhere")}, "no such folder"),
    ],
)
def test_options_out_of_range_are_refused(stage, options, message):
    with pytest.raises(ValueError, match=message):
        list(olat(stage, **options))


def test_a_root_that_holds_no_stacks_is_refused(tmp_path):
    with pytest.raises(ValueError, match="does not exist"):
        list(olat(tmp_path / "none"))
    with pytest.raises(ValueError, match="holds no folders"):
        list(olat(tmp_path))
