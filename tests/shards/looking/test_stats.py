import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from relightx.sample import without_labels
from shards.looking.stats import MAX_LIGHTS, stats
from shards.looking.stats_chart import draw
from shards.write import write_dataset


def assign(subject):
    return "val" if subject == "p0" else "train"


@pytest.fixture
def balls(make_portrait):
    """Six portraits of three subjects under two to four lights."""
    return [
        make_portrait(f"k{i}", f"p{i // 2}", lights=2 + i % 3, size=16, seed=i) for i in range(6)
    ]


@pytest.fixture
def dataset(balls, tmp_path):
    write_dataset(balls, tmp_path / "d", assign)
    return tmp_path / "d"


def test_everything_is_counted(dataset):
    found = stats(dataset)
    assert found.name == "d" and found.portraits == found.opened == 6
    assert found.lights == {2: 2, 3: 2, 4: 2} and found.portraits_per_subject == {2: 3}
    assert {split: total.subjects for split, total in found.totals.items()} == {
        "train": 2,
        "val": 1,
    }
    assert found.kinds == {"16x16 16-bit RGB linear": 6}
    assert found.sources == {"balls 1": 6} and found.licences == {"CC0": 6}


def test_pictures_are_measured_inside_their_masks(balls, dataset):
    found = stats(dataset)
    ball = balls[2]
    luminance = ball.linear_image() @ np.array([0.2126, 0.7152, 0.0722])
    assert found.brightness[:4] == pytest.approx(luminance[:, ball.mask].mean(1), rel=1e-4)
    assert len(found.brightness) == 18
    assert found.mask == pytest.approx([ball.mask.mean()] * 6)


def test_directions_are_those_that_are_stated(balls, dataset):
    expected = np.concatenate([ball.direction for ball in balls[2:] + balls[:2]])
    np.testing.assert_allclose(stats(dataset).direction, expected, atol=1e-6)


def test_directions_that_are_not_stated_are_read_off_the_light(balls, tmp_path):
    write_dataset([replace(ball, direction=None) for ball in balls], tmp_path / "d", assign)
    found = stats(tmp_path / "d")
    assert found.labels["direction"] == {"read off the light": 6}
    expected = np.concatenate([ball.direction for ball in balls[2:] + balls[:2]])
    np.testing.assert_allclose(found.direction, expected, atol=1e-4)


def test_labels_are_counted_by_what_they_are(balls, tmp_path):
    guessed = replace(balls[0], provenance=replace(balls[0].provenance, albedo="pseudo"))
    bare = replace(
        without_labels(balls[1], ("albedo", "normal", "light")),
        mask=None,
        direction=None,
        confidence=np.full((16, 16), 0.5, np.float32),
    )
    write_dataset([guessed, bare, *balls[2:]], tmp_path / "d", assign)
    labels = stats(tmp_path / "d").labels
    assert labels["albedo"] == {"real": 4, "absent": 1, "pseudo": 1}
    assert labels["normal"] == labels["light"] == {"real": 5, "absent": 1}
    assert labels["mask"] == {"present": 5, "absent": 1}
    assert labels["confidence"] == {"absent": 5, "present": 1}
    assert labels["direction"] == {"stated": 5, "absent": 1}


def posed(balls):
    """The balls as heads of known skin, two of them without a pose."""
    skin = [np.float32([0.62, 0.42, 0.33]), np.float32([0.09, 0.045, 0.03])]
    albedo = [np.broadcast_to(skin[i % 2], ball.albedo.shape) for i, ball in enumerate(balls)]
    poses = [(10.0 * i, 5.0, -1.0 * i) if i < 4 else None for i in range(len(balls))]
    return [
        replace(ball, albedo=of, pose_deg=pose)
        for ball, of, pose in zip(balls, albedo, poses, strict=True)
    ]


def test_skin_tones_and_poses_are_those_of_the_portraits(balls, tmp_path):
    write_dataset(posed(balls), tmp_path / "d", assign)
    found = stats(tmp_path / "d")
    assert found.skin_lightness == pytest.approx([73.2, 26.4] * 3, abs=1.5)
    assert found.pose_deg == [(20, 5, -2), (30, 5, -3), (0, 5, 0), (10, 5, -1)]
    assert found.labels["pose"] == {"present": 4, "absent": 2}
    content = json.loads(json.dumps(found.as_dict()))
    assert content["skin_groups"] == {"dark": 3, "very light": 3}
    assert content["pose_deg"]["yaw"]["100%"] == 30 and content["pose_deg"]["roll"]["0%"] == -3
    told = str(found)
    assert "head's yaw, degrees    15.0 at the median" in told
    assert "skin                   dark 50%, very light 50%" in told


def test_where_lights_are_is_said_in_degrees(balls, tmp_path):
    root = np.sqrt(0.5)
    toward = np.float32([[root, 0, root], [0, root, root], [-root, 0, -root]])
    write_dataset([replace(balls[1], direction=toward)], tmp_path / "d", assign)
    found = stats(tmp_path / "d")
    assert found.light_angles["right"] == pytest.approx([45, 0, -135], abs=1e-3)
    assert found.light_angles["above"] == pytest.approx([0, 45, 0], abs=1e-3)
    assert found.as_dict()["light_deg"]["right"]["50%"] == pytest.approx(0, abs=1e-3)
    assert "lights' degrees above  0 at the median, 0 to" in str(found)


@pytest.mark.parametrize("samples", [1, 2, 5])
def test_some_portraits_stand_for_all_and_it_is_said(dataset, samples):
    found = stats(dataset, samples)
    assert found.opened == samples and found.portraits == 6
    assert f"{samples} of 6 portraits were opened, spread over the set" in str(found)
    assert sum(found.lights.values()) == 6


def test_some_lights_stand_for_many_and_it_is_said(make_portrait, tmp_path):
    many = make_portrait(lights=MAX_LIGHTS + 9, size=8)
    write_dataset([many], tmp_path / "d", assign)
    found = stats(tmp_path / "d")
    assert len(found.brightness) == MAX_LIGHTS and found.lights == {MAX_LIGHTS + 9: 1}
    assert f"up to {MAX_LIGHTS} lights of each" in str(found)


def test_numbers_are_plain_values_for_json(dataset):
    content = json.loads(json.dumps(stats(dataset).as_dict()))
    assert content["portraits"] == 6 and content["labels"]["mask"] == {"present": 6}
    assert content["brightness"]["0%"] <= content["brightness"]["50%"] <= 1
    assert len(content["direction"]) == 18


def test_workers_change_nothing(dataset):
    assert stats(dataset, workers=2) == stats(dataset)


def test_a_data_set_in_s3_has_the_same_numbers(dataset, s3):
    folder = s3.new_folder()
    for file in (file for file in dataset.rglob("*") if file.is_file()):
        folder.write(str(file.relative_to(dataset)), file.read_bytes())
    assert replace(stats(folder), name="d") == stats(dataset)


def test_the_picture_shows_lights_in_front_and_behind(balls, tmp_path):
    turned = replace(balls[0], direction=balls[0].direction * np.float32([1, 1, -1]))
    pictures = []
    for name, first in (("front", balls[0]), ("back", turned)):
        write_dataset([first, *balls[1:]], tmp_path / name, assign)
        file = draw(replace(stats(tmp_path / name), name="d"), tmp_path / f"{name}.png")
        with Image.open(file) as picture:
            pictures.append(np.asarray(picture.convert("RGB")).astype(int))
    front, back = ((p[..., 2] - p[..., 0] > 60).sum() for p in pictures)  # blue rings
    assert back > front and pictures[0].shape == pictures[1].shape


def test_the_picture_grows_by_skin_and_poses(balls, tmp_path):
    sizes = []
    bare = [without_labels(ball, ("albedo",)) for ball in balls]
    for name, portraits in (("bare", bare), ("heads", posed(balls))):
        write_dataset(portraits, tmp_path / name, assign)
        with Image.open(draw(stats(tmp_path / name), tmp_path / f"{name}.png")) as picture:
            pixels = np.asarray(picture.convert("RGB")).astype(int)
        sizes.append(pixels.shape[0])
    orange = (pixels[sizes[0] :, :, 0] - pixels[sizes[0] :, :, 2] > 100).any(axis=0)
    panels = np.array_split(orange, 5)
    assert sizes[1] > sizes[0] and all(panel.any() for panel in panels)


def test_the_picture_copes_with_a_set_without_labels(balls, tmp_path):
    bare = [
        replace(without_labels(b, ("albedo", "normal", "light")), mask=None, direction=None)
        for b in balls
    ]
    write_dataset(bare, tmp_path / "d", assign)
    assert draw(stats(tmp_path / "d"), tmp_path / "deep" / "a.png").stat().st_size > 10_000


def test_what_cannot_be_counted_is_refused(dataset, tmp_path):
    with pytest.raises(ValueError, match="at least 1"):
        stats(dataset, samples=0)
    with pytest.raises(ValueError, match=r"no index\.json"):
        stats(tmp_path)
    with pytest.raises(ValueError, match=r"a\.jpg: the picture is a PNG"):
        draw(stats(dataset), tmp_path / "a.jpg")
