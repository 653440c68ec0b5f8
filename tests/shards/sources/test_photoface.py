import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from relief import HEIGHT, WIDTH, photograph, relief
from scipy.io import savemat

from relightx.sample import Portrait, check, decode, encode
from relightx.sh import shade
from shards.sources.photoface import EXPOSURE, photoface, read_angles
from shards.sources.yaleb import yaleb

PHOTOGRAPHS = Path(__file__).parents[4] / "shared" / "data" / "yaleb"
CAPTURE = "2008-02-23_12-21-31"
ZENITH_DEG = (38.0, 40.0, 41.0, 37.0)
AZIMUTH_DEG = (-40.0, 45.0, 140.0, 215.0)  # from the image's right, anticlockwise
STRENGTH = (1.0, 1.2, 0.9, 1.1)


def toward() -> np.ndarray:
    """The directions of the four lights in our frame."""
    zenith, azimuth = np.radians(ZENITH_DEG), np.radians(AZIMUTH_DEG)
    across = np.sin(zenith)
    return np.stack((across * np.cos(azimuth), across * np.sin(azimuth), np.cos(zenith)), axis=-1)


def light_source(zenith=ZENITH_DEG, azimuth=AZIMUTH_DEG) -> str:
    rows = "; ".join(f"{z:.4f} {a:.4f}" for z, a in zip(zenith, azimuth, strict=True))
    return f"% zenith and azimuth of the lights\nlightsource = [{rows}];\n"


def write_capture(root: Path, person: str = "1001", capture: str = CAPTURE) -> Path:
    """A capture as the release has it, with the labels that its MATLAB function makes."""
    folder = root / person / capture
    folder.mkdir(parents=True)
    normal, albedo, _ = relief()
    for number, (light, strength) in enumerate(zip(toward(), STRENGTH, strict=True)):
        pixels = np.rint(photograph(normal, albedo, light, strength) * 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"im{number}.bmp")
    (folder / "LightSource.m").write_text(light_source())
    (folder / "metadata.txt").write_text("outer left eye 10 20\n")
    write_normal(folder, normal)
    savemat(folder / "albedo.mat", {"a": albedo * 255})
    return folder


def write_normal(folder: Path, normal: np.ndarray) -> None:
    """py points down in the picture, as nothing says that it does not."""
    savemat(
        folder / "sn.mat",
        {"px": normal[..., 0], "py": -normal[..., 1], "pz": normal[..., 2]},
        do_compression=True,
    )


def read(root: Path) -> Portrait:
    """The first portrait of a root."""
    return next(photoface(root)).read()


def angle_deg(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return np.degrees(np.arccos(np.clip((first * second).sum(-1), -1, 1)))


def test_captures_become_groups_by_person_and_time(tmp_path):
    root = tmp_path / "PhotofaceDB"
    for person, capture in [("1002", CAPTURE), ("1001", "2008-03-01_07-57-06"), ("1001", CAPTURE)]:
        write_capture(root, person, capture)
    (root / "generateSNAndZ.m").write_text("% code of the release")
    (tmp_path / "PhotofaceQueryTool").mkdir()
    for given in (root, tmp_path):
        groups = list(photoface(given))
        assert [group.key for group in groups] == [
            "1001_2008-02-23_12-21-31",
            "1001_2008-03-01_07-57-06",
            "1002_2008-02-23_12-21-31",
        ]
        assert [group.subject for group in groups] == ["1001", "1001", "1002"]
        assert {group.lights for group in groups} == {4}
    portrait = pickle.loads(pickle.dumps(groups[0].read))()
    check(portrait)
    assert portrait.image.shape == (4, HEIGHT, WIDTH, 1)
    assert portrait.light_name == ("im0", "im1", "im2", "im3")
    labels = portrait.provenance
    assert (labels.albedo, labels.normal, labels.light) == ("real", "real", "pseudo")
    assert "px right and py down in the picture" in labels.crop
    assert "azimuth 0 right and 90 degrees up" in labels.crop
    decode(portrait.key, encode(portrait))


def test_the_labels_are_those_of_the_face_in_our_frame(tmp_path):
    write_capture(tmp_path)
    portrait = read(tmp_path)
    normal, albedo, mask = relief()
    assert angle_deg(portrait.normal, normal)[portrait.mask].max() < 0.1
    assert angle_deg(portrait.direction, toward()).max() < 0.05
    assert (portrait.mask & mask).sum() / (portrait.mask | mask).sum() > 0.85
    # Strengths of 1 to 1.2 become 1.25 in the median, and the albedo is as much less.
    scale = np.median(STRENGTH) / EXPOSURE
    np.testing.assert_allclose(
        portrait.albedo[portrait.mask][:, 0], albedo[portrait.mask] * scale, atol=0.01
    )
    assert portrait.confidence[portrait.mask].mean() > 0.95


def test_albedo_times_shading_under_the_stored_light_gives_the_image(tmp_path):
    write_capture(tmp_path)
    portrait = read(tmp_path)
    normal = torch.from_numpy(portrait.normal).permute(2, 0, 1)
    shading = shade(normal.expand(4, -1, -1, -1), torch.from_numpy(portrait.sh))
    image = portrait.albedo * shading.permute(0, 2, 3, 1).numpy()
    error = np.abs(image - portrait.linear_image())[:, portrait.mask]
    # At the horizon second-order harmonics are 3/32 of a lamp off the clamped cosine.
    assert error.max() < 3 / 32 * 1.4 * portrait.albedo.max()
    assert error.mean() < 0.02


@pytest.mark.parametrize("start", [0, 90, 233, -45])
@pytest.mark.parametrize("clockwise", [False, True])
@pytest.mark.parametrize("labels", [True, False])
def test_azimuths_may_run_either_way_from_any_quarter(tmp_path, start, clockwise, labels):
    """The set does not say; degrees from up, clockwise, are as good as from right."""
    folder = write_capture(tmp_path)
    quarter = round(start / 90) * 90
    azimuth = [(quarter - a if clockwise else a - quarter) % 360 for a in AZIMUTH_DEG]
    (folder / "LightSource.m").write_text(light_source(azimuth=azimuth))
    if not labels:
        (folder / "sn.mat").unlink()
    portrait = read(tmp_path)
    assert angle_deg(portrait.direction, toward()).max() < 0.05
    assert (portrait.normal is not None) == labels


def test_missing_labels_leave_directions_with_which_stereo_makes_them(tmp_path):
    folder = write_capture(tmp_path)
    (folder / "albedo.mat").unlink()
    portrait = read(tmp_path)
    check(portrait)
    assert portrait.normal is portrait.albedo is portrait.sh is None
    assert "no labels, as albedo.mat is missing" in portrait.provenance.crop
    image = portrait.linear_image()[..., 0].reshape(4, -1)
    scaled = np.linalg.lstsq(portrait.direction, image, rcond=None)[0]
    found = (scaled / np.linalg.norm(scaled, axis=0)).T.reshape(HEIGHT, WIDTH, 3)
    normal, _, mask = relief()
    lit_by_all = mask & ((normal @ toward().T).min(axis=-1) > 0.1)
    # The strengths of the lights, 0.9 to 1.2, are not known.
    assert angle_deg(found, normal)[lit_by_all].mean() < 5

    (folder / "LightSource.m").unlink()
    (folder / "sn.mat").unlink()
    portrait = read(tmp_path)
    check(portrait)
    assert portrait.direction is None
    assert "LightSource.m missing; no labels, as sn.mat and albedo.mat" in portrait.provenance.crop


def test_without_lightsource_the_lights_are_fitted_to_the_labels(tmp_path):
    folder = write_capture(tmp_path)
    (folder / "LightSource.m").unlink()
    portrait = read(tmp_path)
    assert angle_deg(portrait.direction, toward()).max() < 1
    assert portrait.provenance.light == "pseudo"


def test_photographs_may_be_colour_files_of_gray_or_png(tmp_path):
    folder = write_capture(tmp_path)
    whole = read(tmp_path)
    for number in range(4):
        with Image.open(folder / f"im{number}.bmp") as picture:
            picture.convert("RGB").save(folder / f"im{number}.png")
        (folder / f"im{number}.bmp").unlink()
    np.testing.assert_array_equal(read(tmp_path).image, whole.image)


def test_a_mask_is_taken_where_there_is_one(tmp_path):
    folder = write_capture(tmp_path)
    mask = np.zeros((HEIGHT, WIDTH))
    mask[15:45, 12:36] = 1
    savemat(folder / "mask.mat", {"mask": mask})
    np.testing.assert_array_equal(read(tmp_path).mask, mask > 0)
    savemat(folder / "mask.mat", {"mask": 0 * mask})
    with pytest.raises(ValueError, match=r"mask\.mat: is 0 throughout"):
        read(tmp_path)


def test_normals_without_pz_have_it_computed(tmp_path):
    folder, (normal, _, _) = write_capture(tmp_path), relief()
    savemat(folder / "sn.mat", {"px": normal[..., 0], "py": -normal[..., 1]})
    portrait = read(tmp_path)
    assert angle_deg(portrait.normal, normal)[portrait.mask].max() < 0.5


def test_pz_may_point_into_the_scene(tmp_path):
    folder, (normal, _, _) = write_capture(tmp_path), relief()
    savemat(folder / "sn.mat", {"px": normal[..., 0], "py": normal[..., 1], "pz": -normal[..., 2]})
    portrait = read(tmp_path)
    assert angle_deg(portrait.normal, normal)[portrait.mask].max() < 0.1
    assert "px right and py up" in portrait.provenance.crop


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_labels_that_are_not_finite_are_outside_the_mask_and_counted(tmp_path, value):
    folder, (normal, albedo, mask) = write_capture(tmp_path), relief()
    normal[~mask] = value
    normal[30, 20] = value
    write_normal(folder, normal)
    albedo[40, 25] = value
    savemat(folder / "albedo.mat", {"a": albedo * 255})
    portrait = read(tmp_path)
    check(portrait)
    assert not portrait.mask[30, 20]
    assert not portrait.mask[40, 25]
    assert not portrait.mask[~mask].any()
    missing = int((~mask).sum()) + 2
    assert f"{missing} pixels without finite labels outside the mask" in portrait.provenance.crop


@pytest.mark.parametrize(("name", "variable"), [("sn.mat", "py"), ("albedo.mat", "a")])
def test_a_face_with_a_large_part_not_finite_is_refused(tmp_path, name, variable):
    folder, (normal, albedo, _) = write_capture(tmp_path), relief()
    content = {"px": normal[..., 0], "py": normal[..., 1], "pz": normal[..., 2]}
    content = content if name == "sn.mat" else {"a": albedo * 255}
    content[variable] = np.where(np.arange(HEIGHT)[:, None] > 30, np.nan, content[variable])
    savemat(folder / name, content)
    with pytest.raises(
        ValueError, match=rf"{name}: {variable} is not finite on \d\d% of"
    ) as caught:
        read(tmp_path)
    assert str(folder / name) in str(caught.value)


def test_normals_of_another_kind_are_refused(tmp_path):
    folder, (normal, _, _) = write_capture(tmp_path), relief()
    write_normal(folder, (normal + 1) / 2)
    with pytest.raises(ValueError, match=r"sn\.mat: px, py and pz have a usual length of 1\.\d\d"):
        read(tmp_path)
    noise = np.random.default_rng(0).normal(size=normal.shape)
    write_normal(folder, noise / np.linalg.norm(noise, axis=-1, keepdims=True))
    with pytest.raises(ValueError, match=r"sn\.mat: px and py cannot be laid over the picture"):
        read(tmp_path)
    savemat(folder / "sn.mat", {"px": normal[..., 0].T, "py": normal[..., 1].T})
    with pytest.raises(ValueError, match=r"px has 48 x 60 values, 60 x 48 needed"):
        read(tmp_path)
    write_normal(folder, normal)
    savemat(folder / "albedo.mat", {"a": np.zeros((HEIGHT, WIDTH))})
    with pytest.raises(ValueError, match=r"albedo\.mat: a is not above 0 on the face"):
        read(tmp_path)


@pytest.mark.parametrize("labels", [True, False])
def test_lights_in_another_order_are_refused(tmp_path, labels):
    folder = write_capture(tmp_path)
    if not labels:
        (folder / "sn.mat").unlink()
    swapped = [AZIMUTH_DEG[index] for index in (0, 2, 1, 3)]
    (folder / "LightSource.m").write_text(light_source(azimuth=swapped))
    with pytest.raises(ValueError, match=r"LightSource\.m: its lights do not explain"):
        read(tmp_path)


def test_labels_of_another_face_are_refused(tmp_path):
    folder, (normal, albedo, _) = write_capture(tmp_path), relief()
    (folder / "LightSource.m").unlink()
    for number, light in enumerate(toward()):  # a face upside down
        pixels = np.rint(photograph(normal, albedo, light * (1, -1, 1), 1.0) * 255)
        Image.fromarray(pixels[::-1].astype(np.uint8)).save(folder / f"im{number}.bmp")
    write_normal(folder, np.roll(normal, 14, axis=1))
    with pytest.raises(ValueError, match=rf"{CAPTURE}: its labels do not explain|cannot be laid"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("x = [1 2; 3 4];", "its matrix has 2 rows of 2"),
        ("x = [130 0; 131 90; 132 180; 133 270];", "its zeniths are 130, 131, 132, 133 degrees"),
        ("no matrix", "sets no matrix"),
    ],
)
def test_a_lightsource_of_another_content_is_named(tmp_path, script, message):
    folder = write_capture(tmp_path)
    (folder / "LightSource.m").write_text(script)
    with pytest.raises(ValueError, match=rf"LightSource\.m: .*{message}"):
        read(tmp_path)


@pytest.mark.parametrize("radians", [False, True])
@pytest.mark.parametrize("columns", [(0, 1), (1, 0)])
@pytest.mark.parametrize("wide", [False, True])
def test_angles_are_told_by_their_values(tmp_path, radians, columns, wide):
    angles = np.stack((ZENITH_DEG, np.mod(AZIMUTH_DEG, 360)), axis=1)[:, columns]
    angles = np.radians(angles) if radians else angles
    angles = angles.T if wide else angles
    rows = ";\n".join(" ".join(f"{angle:.6f}" for angle in row) for row in angles)
    (tmp_path / "LightSource.m").write_text(f"L = [{rows}]")
    zenith, azimuth = read_angles(tmp_path / "LightSource.m")
    np.testing.assert_allclose(np.degrees(zenith), ZENITH_DEG, atol=1e-3)
    np.testing.assert_allclose(np.degrees(azimuth), np.mod(AZIMUTH_DEG, 360), atol=1e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / "im2.bmp").unlink(), r"im2\.bmp missing; a capture has im0 to"),
        (lambda folder: (folder / "im4.bmp").write_bytes(b""), r"im4\.bmp: is one too many"),
        (lambda folder: (folder / "im1.png").write_bytes(b""), r"light 1 is also in im1\.bmp"),
        (lambda folder: (folder / "im3.bmp").write_bytes(b""), r"im3\.bmp: "),
        (
            lambda folder: Image.fromarray(np.zeros((9, 8), np.uint8)).save(folder / "im1.bmp"),
            r"im1\.bmp: is 8x9 8-bit gray, im0\.bmp beside it 48x60",
        ),
        (
            lambda folder: Image.new("RGB", (WIDTH, HEIGHT), (9, 8, 7)).save(folder / "im0.bmp"),
            r"im[01]\.bmp: is",
        ),
        (lambda folder: (folder / "sn.mat").write_bytes(b"junk" * 99), r"sn\.mat: cannot be read"),
    ],
)
def test_a_fault_of_one_capture_is_named_and_does_not_hide_the_next(tmp_path, change, message):
    change(write_capture(tmp_path, "1001"))
    write_capture(tmp_path, "1002")
    wrong, right = photoface(tmp_path)
    with pytest.raises(ValueError, match=message):
        wrong.read()
    assert right.read().subject == "1002"


def test_a_root_without_people_and_a_person_without_captures(tmp_path):
    with pytest.raises(ValueError, match="nowhere: does not exist; a folder with one numbered"):
        next(photoface(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match="no numbered folders in it"):
        next(photoface(tmp_path))
    (tmp_path / "1001").mkdir()
    with pytest.raises(ValueError, match="1001: has no captures"):
        read(tmp_path)


@pytest.mark.skipif(
    not PHOTOGRAPHS.is_dir(), reason="the Extended Yale B photographs are not beside the checkout"
)
def test_four_lights_of_a_real_face_are_told_without_labels_and_with(tmp_path):
    """Real shadows, highlights and skin: of Yale B, in this set's layout and odd axes."""
    (tmp_path / "yale").mkdir()
    (tmp_path / "yale" / "yaleB24").symlink_to(PHOTOGRAPHS / "yaleB24")
    face = next(iter(yaleb(tmp_path / "yale"))).read()
    names = ("A-035E-20", "A-035E+40", "A+035E+40", "A+035E-20")
    lights = [face.light_name.index(name) for name in names]
    direction = face.direction[lights]
    folder = tmp_path / "1001" / CAPTURE
    folder.mkdir(parents=True)
    for number, pixels in enumerate(face.image[lights][..., 0]):
        Image.fromarray(pixels).save(folder / f"im{number}.bmp")
    zenith = np.degrees(np.arccos(direction[:, 2]))
    azimuth = np.degrees(np.arctan2(direction[:, 0], direction[:, 1])) % 360  # from up, clockwise
    (folder / "LightSource.m").write_text(light_source(zenith, azimuth))
    bare = read(tmp_path)
    assert angle_deg(bare.direction, direction).max() < 0.05

    savemat(
        folder / "sn.mat",
        {"px": -face.normal[..., 1], "py": face.normal[..., 0], "pz": face.normal[..., 2]},
    )
    savemat(folder / "albedo.mat", {"a": face.albedo[..., 0] * 200})
    portrait = read(tmp_path)
    assert "px down and py right" in portrait.provenance.crop
    assert angle_deg(portrait.normal, face.normal)[portrait.mask].max() < 0.1
    assert 0.85 < portrait.mask.mean() <= 1
    assert 0.5 < portrait.confidence[portrait.mask].mean() < 0.9  # cast shadows beside the nose
    (folder / "LightSource.m").unlink()
    assert angle_deg(read(tmp_path).direction, direction).max() < 6
