import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from relightx.color import linear_to_srgb
from relightx.sample import Portrait, check, decode, encode
from shards.labelling.photometric_stereo import photometric_stereo
from shards.sources.multipie import CAMERAS, FLASHES, PUBLISHED, flash_direction, multipie, view

HEIGHT, WIDTH = 24, 32
ROOM = 0.06


def ball() -> np.ndarray:
    """Normals of a shallow ball that fills the picture."""
    y, x = np.meshgrid(np.linspace(0.5, -0.5, HEIGHT), np.linspace(-0.5, 0.5, WIDTH), indexing="ij")
    return np.stack((x, y, np.sqrt(1 - x * x - y * y)), -1)


def photograph(toward: np.ndarray | None, room: float = ROOM) -> np.ndarray:
    """8-bit sRGB of a skin-coloured ball under a flash, or none, and the light of the room."""
    shading = np.full((HEIGHT, WIDTH), room)
    if toward is not None:
        shading = shading + np.maximum(ball() @ toward, 0)
    linear = shading[..., None] * (0.7, 0.5, 0.4)
    return np.rint(linear_to_srgb(linear) * 255).astype(np.uint8)


def write_recording(
    root: Path, session: str, person: str, recording: str, camera: str = "05_1"
) -> Path:
    """The twenty frames of one camera, as the set has them."""
    folder = root / f"session{session}" / "multiview" / person / recording / camera
    folder.mkdir(parents=True)
    for number in range(20):
        toward = view(camera) @ flash_direction(number) if number in FLASHES else None
        name = f"{person}_{session}_{recording}_{camera.replace('_', '')}_{number:02d}.png"
        Image.fromarray(photograph(toward)).save(folder / name)
    return folder


def read(root: Path, **options: str) -> Portrait:
    """The first portrait of a root."""
    return next(multipie(root, **options)).read()


def angle_deg(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return np.degrees(np.arccos(np.clip((first * second).sum(-1), -1, 1)))


def test_recordings_become_groups_and_a_person_is_one_subject_in_all_sessions(tmp_path):
    for session, person, recording in [
        ("02", "001", "01"),
        ("01", "002", "01"),
        ("01", "001", "02"),
        ("01", "001", "01"),
    ]:
        write_recording(tmp_path, session, person, recording)
    high = tmp_path / "session01" / "highres" / "001"
    high.mkdir(parents=True)
    (high / "001_01_01.png").write_bytes(b"another camera's picture")
    groups = list(multipie(tmp_path))
    keys = ["001_01_01_051", "001_01_02_051", "002_01_01_051", "001_02_01_051"]
    assert [group.key for group in groups] == keys
    assert [group.subject for group in groups] == ["001", "001", "002", "001"]
    assert {group.lights for group in groups} == {18}
    assert [group.key for group in multipie(tmp_path)] == keys

    portrait = pickle.loads(pickle.dumps(groups[0].read))()
    check(portrait)
    assert portrait.key == keys[0]
    assert portrait.image.shape == (18, HEIGHT, WIDTH, 3)
    assert portrait.light_name[:2] == ("flash01", "flash02")
    assert portrait.albedo is portrait.sh is portrait.mask is None
    assert decode(portrait.key, encode(portrait)).direction == pytest.approx(
        portrait.direction, abs=1e-6
    )


def test_the_release_lies_in_a_folder_data(tmp_path):
    write_recording(tmp_path / "data", "03", "123", "02")
    assert read(tmp_path).key == "123_03_02_051"


def test_the_light_of_the_room_is_subtracted_in_linear_light(tmp_path):
    write_recording(tmp_path, "01", "001", "01")
    portrait, kept = read(tmp_path), read(tmp_path, ambient="keep")
    assert "mean of frames 00 and 19 subtracted" in portrait.provenance.crop
    assert "light of the room left in" in kept.provenance.crop
    for index, flash in enumerate(FLASHES):
        alone = photograph(flash_direction(flash), room=0).astype(int)
        lit = alone[..., 0] > 60  # darker, a level of the sum is more than one of the difference
        assert np.abs(portrait.image[index].astype(int) - alone)[lit].max() <= 2
        np.testing.assert_array_equal(kept.image[index], photograph(flash_direction(flash)))


def test_one_frame_without_flash_is_enough_and_none_is_an_error(tmp_path):
    folder = write_recording(tmp_path, "01", "001", "01")
    (folder / "001_01_01_051_00.png").unlink()
    assert "mean of frames 19 subtracted" in read(tmp_path).provenance.crop
    (folder / "001_01_01_051_19.png").unlink()
    with pytest.raises(ValueError, match="05_1: frames 00 and 19, without flash, are both missing"):
        read(tmp_path)
    assert read(tmp_path, ambient="keep").num_lights == 18


@pytest.mark.parametrize("camera", ["05_1", "13_0", "04_1", "19_1"])
def test_the_stored_directions_and_images_give_the_surface_that_was_photographed(tmp_path, camera):
    write_recording(tmp_path, "01", "001", "01", camera)
    portrait = read(tmp_path, camera=camera)
    image = portrait.linear_image()[..., 0].astype(np.float32)
    surface = photometric_stereo(image, portrait.direction)
    assert angle_deg(surface.normal, ball()).mean() < 1


def test_published_directions_are_kept_and_the_arc_runs_from_the_right_of_the_image():
    for flash, published in PUBLISHED.items():
        np.testing.assert_allclose(flash_direction(flash), published, atol=1e-4)
    arc = np.stack([flash_direction(flash) for flash in range(1, 14)])
    azimuth = np.degrees(np.arctan2(arc[:, 0], arc[:, 2]))
    np.testing.assert_allclose(azimuth, np.arange(90, -91, -15), atol=6)
    assert (np.diff(azimuth) < 0).all()
    np.testing.assert_allclose(flash_direction(7), (0, 0, 1))
    upper = np.stack([flash_direction(flash) for flash in range(14, 19)])
    assert (upper[:, 1] > 0.35).all()
    assert (np.diff(upper[:, 0]) < 0).all()


def test_each_camera_sees_the_flash_beside_it_ahead():
    arc = CAMERAS[:13]
    for camera, flash in [*zip(arc, range(1, 14), strict=True), ("08_1", 14), ("19_1", 18)]:
        seen = view(camera) @ flash_direction(flash)
        assert angle_deg(seen, np.array((0, 0, 1))) < 6


@pytest.mark.parametrize("camera", CAMERAS)
def test_a_camera_is_turned_and_stays_upright(camera):
    turn = view(camera)
    np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-6)
    assert np.linalg.det(turn) == pytest.approx(1)
    up = turn @ (0, 1, 0)
    assert up[0] == pytest.approx(0)
    assert up[1] > 0.9


def test_a_camera_at_the_persons_left_has_the_frontal_flash_on_its_left():
    assert (view("11_0") @ flash_direction(7))[0] == pytest.approx(-1)
    assert (view("24_0") @ flash_direction(7))[0] == pytest.approx(1)


def test_all_cameras_are_groups_of_their_own(tmp_path):
    for camera in ("05_1", "13_0"):
        write_recording(tmp_path, "01", "001", "01", camera)
    groups = {group.key: group for group in multipie(tmp_path, camera="all")}
    assert len(groups) == 15
    assert groups["001_01_01_130"].read().provenance.source == "CMU Multi-PIE, camera 13_0"
    with pytest.raises(ValueError, match="24_0: does not exist; the recording lacks this camera"):
        groups["001_01_01_240"].read()


def test_missing_flashes_are_named_and_one_flash_is_too_few(tmp_path):
    folder = write_recording(tmp_path, "01", "001", "01")
    for number in (3, 7):
        (folder / f"001_01_01_051_{number:02d}.png").unlink()
    portrait = read(tmp_path)
    assert portrait.num_lights == 16
    assert "flashes missing: 03, 07" in portrait.provenance.crop
    assert portrait.direction[2] == pytest.approx(flash_direction(4))
    for number in (*range(1, 3), *range(5, 19)):
        (folder / f"001_01_01_051_{number:02d}.png").unlink(missing_ok=True)
    with pytest.raises(ValueError, match="05_1: 1 of the 18 flashes found"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("002_01_01_051_06.png", "not a frame of this recording"),
        ("001_01_01_051_20.png", "not a frame of this recording"),
        ("001_01_01_051_06 (1).png", "not a frame of this recording"),
        ("001_01_01_051_06.PNG", "frame 06 is also in"),
    ],
)
def test_a_picture_that_does_not_belong_there_is_named(tmp_path, name, message):
    folder = write_recording(tmp_path, "01", "001", "01")
    write_recording(tmp_path, "01", "002", "01")
    (folder / name).write_bytes((folder / "001_01_01_051_05.png").read_bytes())
    (folder / "._001_01_01_051_05.png").write_bytes(b"left by a desktop")
    wrong, right = multipie(tmp_path)
    with pytest.raises(ValueError, match=message) as caught:
        wrong.read()
    assert "001_01_01_051_06" in str(caught.value) or str(folder / name) in str(caught.value)
    assert right.read().num_lights == 18


def test_a_frame_that_is_broken_or_of_another_size_is_named(tmp_path):
    folder = write_recording(tmp_path, "01", "001", "01")
    file = folder / "001_01_01_051_11.png"
    whole = file.read_bytes()
    for content in (b"", whole[:200], b"<html>not found</html>"):
        file.write_bytes(content)
        with pytest.raises(ValueError, match=r"001_01_01_051_11\.png"):
            read(tmp_path)
    Image.fromarray(np.zeros((10, 12, 3), np.uint8)).save(file)
    with pytest.raises(ValueError, match=r"_11\.png: is 12x10 8-bit colour, .* 32x24 8-bit colour"):
        read(tmp_path)


def test_folders_that_are_no_persons_or_recordings_are_reported(tmp_path):
    write_recording(tmp_path, "01", "001", "01")
    multiview = tmp_path / "session01" / "multiview"
    (multiview / "001" / "01 copy").mkdir()
    (multiview / "notes").mkdir()
    (multiview / "readme.txt").write_text("about")
    good, copy, notes = multipie(tmp_path)
    assert good.read().key == "001_01_01_051"
    assert [copy.key, notes.key] == ["session01_001_01-copy", "session01_notes"]
    with pytest.raises(ValueError, match="01 copy: is no recording"):
        copy.read()
    with pytest.raises(ValueError, match="notes: is no person"):
        notes.read()


def test_a_root_without_sessions_or_recordings_is_refused(tmp_path):
    with pytest.raises(ValueError, match="nowhere: does not exist; the folder that holds session0"):
        next(multipie(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match="no sessions among its folders"):
        next(multipie(tmp_path))
    (tmp_path / "session01" / "highres").mkdir(parents=True)
    with pytest.raises(ValueError, match="its sessions hold no recordings"):
        next(multipie(tmp_path))
