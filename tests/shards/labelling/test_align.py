from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import relightx
from relightx.color import from_integer, linear_to_srgb
from relightx.face import MIN_FACE_PX, crop, find_face, uncrop
from relightx.picture import read_picture
from relightx.pose import pose_of, turn_of
from relightx.sample import Portrait, Provenance, decode, encode
from relightx.sh import rotate, shade
from shards.labelling.align import aligned, to_source
from shards.rendering.synthetic import synthetic_one

SIZE = 256
PHOTOGRAPH = Path(relightx.__file__).parent / "photos" / "astronaut.jpg"


@pytest.fixture(scope="module")
def photograph() -> np.ndarray:
    return from_integer(read_picture(PHOTOGRAPH), "srgb")


@pytest.fixture(scope="module")
def face(photograph):
    return find_face(photograph)


def stored(linear: np.ndarray, transfer: str = "srgb", dtype: type = np.uint8) -> np.ndarray:
    encoded = linear_to_srgb(linear) if transfer == "srgb" else np.clip(linear, 0, 1)
    return np.rint(encoded * np.iinfo(dtype).max).astype(dtype)


def portrait_of(*images: np.ndarray, dtype: type = np.uint8, **provenance) -> Portrait:
    """A group of these linear pictures, without labels."""
    where = Provenance("test", "public domain", "none", **({"transfer": "srgb"} | provenance))
    return Portrait(
        key="astronaut",
        subject="collins",
        image=np.stack([stored(image, where.transfer, dtype) for image in images]),
        light_name=tuple(f"light{index}" for index in range(len(images))),
        provenance=where,
    )


def relit(photograph: np.ndarray) -> list[np.ndarray]:
    """The photograph under four smooth fields of light."""
    along = np.linspace(0, 1, len(photograph), dtype=np.float32)[:, None]
    fields = (0.15 + 0.85 * along.T, 1 - 0.85 * along.T, 0.2 + 0.8 * along, np.float32([[0.5]]))
    return [photograph * field[..., None] for field in fields]


def moved(image: np.ndarray, affine: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """A picture under an affine map in pixels whose first centre is at (0.5, 0.5)."""
    shifted = np.column_stack((affine[:, :2], affine @ (0.5, 0.5, 1) - 0.5))
    border = cv2.BORDER_REPLICATE
    return cv2.warpAffine(image, shifted, shape[::-1], flags=cv2.INTER_LINEAR, borderMode=border)


def in_crop(portrait: Portrait, points: np.ndarray) -> np.ndarray:
    affine = np.array(portrait.provenance.affine)
    return points @ affine[:, :2].T + affine[:, 2]


def test_all_lights_move_by_the_one_transform_of_the_provenance(photograph):
    images = relit(photograph)
    done = aligned(portrait_of(*images), SIZE)
    assert done.image.shape == (4, SIZE, SIZE, 3) and done.image.dtype == np.uint8
    affine = np.array(done.provenance.affine)
    for light, image in zip(done.image, images, strict=True):
        expected = stored(crop(from_integer(stored(image), "srgb"), affine, SIZE))
        assert np.abs(light.astype(int) - expected).max() <= 1


def test_one_light_more_does_not_move_the_crop(photograph, face):
    images = relit(photograph)
    before = in_crop(aligned(portrait_of(*images), SIZE), face.landmarks)
    noise = np.random.default_rng(0).uniform(0, 0.02, photograph.shape).astype(np.float32)
    for more in (images[0] * 0.01, np.zeros_like(noise), noise):
        after = in_crop(aligned(portrait_of(*images, more), SIZE), face.landmarks)
        assert np.abs(after - before).max() < 1


def test_the_order_of_the_lights_does_not_matter(photograph, face):
    images = relit(photograph)
    one, other = (aligned(portrait_of(*part), SIZE) for part in (images, images[::-1]))
    assert np.abs(in_crop(one, face.landmarks) - in_crop(other, face.landmarks)).max() < 0.5


@pytest.mark.parametrize(
    ("degrees", "zoom", "shift"),
    [
        (0, 1, (90, 40)),
        (20, 1, (0, 0)),
        (-35, 1.2, (30, -20)),
        (60, 0.7, (0, 50)),
    ],
)
def test_a_turned_scaled_and_shifted_photograph_gives_the_same_crop(
    photograph, face, degrees, zoom, shift
):
    map_ = cv2.getRotationMatrix2D((225, 125), degrees, zoom)
    map_[:, 2] += np.array([150, 250]) + shift
    canvas = [moved(image, map_, (700, 800)) for image in relit(photograph)]
    points = face.landmarks @ map_[:, :2].T + map_[:, 2]
    upright = in_crop(aligned(portrait_of(*relit(photograph)), SIZE), face.landmarks)
    distance = np.linalg.norm(
        in_crop(aligned(portrait_of(*canvas), SIZE), points) - upright, axis=1
    )
    assert distance.mean() < 2 and distance.max() < 3


def test_points_and_maps_go_back_to_the_source(photograph):
    rows, columns = (np.mgrid[:512, :512] + np.float32(0.5)) / np.float32(512)
    place = np.stack((columns, rows, rows), axis=-1).astype(np.float32)
    portrait = portrait_of(photograph, albedo="pseudo")
    done = aligned(replace(portrait, albedo=place), SIZE)
    points = np.array([(60.5, 60.5), (128, 100), (200.25, 233.75)])
    np.testing.assert_allclose(in_crop(done, to_source(done.provenance, points)), points)
    width, height = done.provenance.source_size
    affine = np.array(done.provenance.affine)
    back = uncrop(done.albedo, affine, (height, width))
    inside = uncrop(done.mask.astype(np.float32), affine, (height, width)) > 0.999
    assert inside.sum() > 5_000
    assert np.abs(back - place)[inside].max() * 512 < 0.1  # pixels


def test_a_crop_of_the_source_itself_is_undone_too(photograph, face):
    earlier = np.array([[1.5, 0, -120.0], [0, 1.5, -30.0]])
    image = moved(photograph, earlier, (400, 450))
    affine = tuple(tuple(row) for row in earlier.tolist())
    known = portrait_of(image, affine=affine, source_size=(512, 512))
    done = aligned(replace(known, provenance=replace(known.provenance, crop="cut by hand")), SIZE)
    assert done.provenance.source_size == (512, 512)
    assert done.provenance.crop.startswith("cut by hand; then aligned to 256x256")
    eyes = to_source(done.provenance, in_crop(done, face.landmarks[:2]))
    np.testing.assert_allclose(eyes, face.landmarks[:2], atol=1e-6)
    direct = in_crop(aligned(portrait_of(photograph), SIZE), face.landmarks)
    assert np.abs(in_crop(done, face.landmarks) - direct).max() < 2


def test_a_portrait_that_was_not_moved_is_its_own_source():
    points = np.array([(3.5, 4.0)])
    np.testing.assert_array_equal(
        to_source(Provenance("test", "CC0", "none", "srgb"), points), points
    )


def test_the_provenance_tells_rule_detector_and_face(photograph):
    done = aligned(portrait_of(*relit(photograph)), SIZE, min_face_px=50)
    told = done.provenance.crop
    for words in ("256x256", "eyes are level", "side is 4.0 face units", "MediaPipe BlazeFace"):
        assert words in told
    assert "only face" in told and "all lights together" in told
    assert "108 pixels from forehead to chin, 50 needed" in told
    assert decode(done.key, encode(done)).provenance == done.provenance


def test_a_face_below_the_minimum_is_refused_by_name(photograph):
    small = moved(photograph, np.array([[0.3, 0, 0], [0, 0.3, 0.0]]), (160, 160))
    with pytest.raises(ValueError, match=rf"'astronaut'.* 3\d pixels high; at least {MIN_FACE_PX}"):
        aligned(portrait_of(small), SIZE)
    assert aligned(portrait_of(small), 64, min_face_px=20).image.shape == (1, 64, 64, 3)
    with pytest.raises(ValueError, match="at least 150 are needed"):
        aligned(portrait_of(photograph), SIZE, min_face_px=150)


@pytest.mark.parametrize("scene", ["noise", "landscape", "black"])
def test_a_group_without_a_face_is_refused_by_name(scene):
    sky = np.linspace(0.9, 0.1, 200, dtype=np.float32)[:, None, None] * np.float32([0.5, 0.7, 1])
    pictures = {
        "noise": np.random.default_rng(0).uniform(size=(200, 300, 3)).astype(np.float32),
        "landscape": np.repeat(sky, 300, axis=1),
        "black": np.zeros((200, 300, 3), np.float32),
    }
    with pytest.raises(ValueError, match=r"'astronaut': no face .* 300x200 .* 2 lights"):
        aligned(portrait_of(pictures[scene], pictures[scene] * 0.5), SIZE)


def test_the_larger_of_two_faces_is_taken_and_their_number_told(photograph, face):
    canvas = np.zeros((512, 768, 3), np.float32)
    canvas[:, 256:] = photograph
    canvas[:256, :256] = cv2.resize(photograph, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    done = aligned(portrait_of(canvas), SIZE)
    assert "The largest of 2 faces" in done.provenance.crop
    alone = in_crop(aligned(portrait_of(photograph), SIZE), face.landmarks)
    assert np.abs(in_crop(done, np.add(face.landmarks, (256, 0))) - alone).max() < 2


def test_a_face_that_only_one_light_shows_is_found(photograph):
    noise = np.random.default_rng(0).uniform(size=photograph.shape).astype(np.float32)
    done = aligned(portrait_of(noise, noise[::-1], 0.05 * photograph), SIZE)
    assert "light 'light2' alone" in done.provenance.crop


@pytest.mark.parametrize("level", [0.03, 0.3])
def test_exposure_does_not_move_the_crop(photograph, face, level):
    dark = aligned(portrait_of(level * photograph, dtype=np.uint16), SIZE)
    bright = aligned(portrait_of(photograph, dtype=np.uint16), SIZE)
    assert np.abs(in_crop(dark, face.landmarks) - in_crop(bright, face.landmarks)).max() < 0.5


@pytest.mark.parametrize("transfer", ["srgb", "linear"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3])
def test_images_keep_type_transfer_and_channels(photograph, transfer, dtype, channels):
    given = photograph[..., :channels]
    done = aligned(portrait_of(given, transfer=transfer, dtype=dtype), 64, mask="skin")
    assert done.image.dtype == dtype and done.image.shape == (1, 64, 64, channels)
    assert done.provenance.transfer == transfer
    affine = np.array(done.provenance.affine)
    expected = crop(np.repeat(given, 3 // channels, axis=2), affine, 64)
    tolerance = 0.006 if dtype == np.uint8 else 1e-4
    assert np.abs(done.linear_image()[0] - expected).max() < tolerance


def turned_head(degrees: float, head: int = 2) -> tuple[Portrait, Portrait]:
    """A rendered head, and the same in a larger picture, shifted and turned, exactly lit there."""
    upright = synthetic_one(head, lights=3, size=256)
    map_ = cv2.getRotationMatrix2D((128, 128), degrees, 1)
    map_[:, 2] += (90, 60)
    shape = (400, 440)
    cos, sin = map_[0, 0], map_[0, 1]  # OpenCV turns counterclockwise, like +x toward +y
    turn = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]], np.float32)
    normal = moved(upright.normal, map_, shape) @ turn.T
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    albedo = moved(upright.albedo, map_, shape)
    seen = np.ones((256, 256), np.float32) * upright.mask
    # Without a border of ones, which repeating the last row of the shoulders would make.
    inside = np.pad(np.ones((252, 252), np.float32), 2)
    mask = moved(np.minimum(seen, inside), map_, shape) > 0.999
    sh = rotate(torch.from_numpy(upright.sh), torch.from_numpy(turn))
    shading = shade(torch.from_numpy(normal.transpose(2, 0, 1).copy()), sh).clamp(min=0)
    image = albedo * shading.permute(0, 2, 3, 1).numpy() * mask[..., None]
    scale = np.float32(0.8 / image.max())  # nothing is clipped, so that the labels stay exact
    image = np.rint(image * scale * 65535).astype(np.uint16)
    return upright, replace(
        upright,
        image=image,
        albedo=albedo,
        normal=normal,
        mask=mask,
        confidence=np.where(mask, np.float32(1), np.float32(0.5)),
        sh=sh.numpy() * scale,
        direction=upright.direction @ turn.T,
        pose_deg=pose_of(turn.astype(float) @ turn_of(upright.pose_deg)),
        provenance=replace(upright.provenance, transfer="linear"),
    )


def relight(portrait: Portrait) -> np.ndarray:
    """The images that the labels say."""
    normal = torch.from_numpy(portrait.normal.transpose(2, 0, 1).astype(np.float32))
    shading = shade(normal, torch.from_numpy(portrait.sh)).clamp(min=0)
    return portrait.albedo * shading.permute(0, 2, 3, 1).numpy()


@pytest.mark.parametrize("degrees", [0, 25, -50])
@pytest.mark.parametrize("size", [128, 256])
def test_labels_still_explain_the_images(degrees, size):
    _, head = turned_head(degrees)
    done = aligned(head, size)
    assert done.mask.mean() > 0.1
    before = np.abs(relight(head) - head.linear_image())[:, head.mask]
    after = np.abs(relight(done) - done.linear_image())[:, done.mask]
    assert before.max() < 1e-4
    assert after.mean() < 1e-3 and np.percentile(after, 99) < 0.01
    np.testing.assert_allclose(np.linalg.norm(done.normal, axis=-1), 1, atol=1e-5)


def test_directions_come_into_the_crops_frame():
    """A head gives the same crop, light and normals wherever and however turned it is."""
    upright, head = turned_head(40)
    one, other = aligned(upright, SIZE), aligned(head, SIZE)
    scale = np.linalg.norm(head.sh) / np.linalg.norm(upright.sh)
    assert np.abs(other.sh / scale - one.sh).max() < 0.03 * np.abs(one.sh).max()
    assert np.einsum("lk,lk->l", one.direction, other.direction).min() > np.cos(np.radians(1.5))
    both = one.mask & other.mask
    # Smoothed, because the two crops may lie a pixel apart and hair is not flat.
    smooth = [cv2.GaussianBlur(portrait.normal, (0, 0), 4) for portrait in (one, other)]
    smooth = [normal / np.linalg.norm(normal, axis=-1, keepdims=True) for normal in smooth]
    cosine = (smooth[0] * smooth[1]).sum(axis=-1)[both]
    assert np.degrees(np.arccos(np.clip(cosine, -1, 1))).mean() < 2
    # Had only the pixels been turned, they would still be apart.
    assert np.einsum("lk,lk->l", upright.direction, head.direction).min() < np.cos(np.radians(20))


def test_a_pose_comes_into_the_crops_frame():
    """Eyes are level in a crop, so what is left of the roll does not depend on the photograph."""
    upright, head = turned_head(40)
    one, other = aligned(upright, SIZE).pose_deg, aligned(head, SIZE).pose_deg
    assert abs(head.pose_deg[2] - upright.pose_deg[2]) > 30
    assert one == pytest.approx(other, abs=1.5) and abs(one[2]) < 8
    assert aligned(replace(head, pose_deg=None), SIZE).pose_deg is None


def test_beyond_the_border_there_is_no_mask_and_no_confidence(photograph, face):
    left, top = face.box[:2].astype(int) - (15, 40)
    cut = np.ascontiguousarray(photograph[top:, left:])
    portrait = replace(portrait_of(cut), confidence=np.ones(cut.shape[:2], np.float32))
    for kind in ("face", "skin", "keep"):
        done = aligned(portrait, SIZE, mask=kind)
        rows, columns = np.mgrid[:SIZE, :SIZE] + 0.5
        at = to_source(done.provenance, np.column_stack((columns.ravel(), rows.ravel())))
        beyond = (at < 0).any(axis=1).reshape(SIZE, SIZE)
        assert beyond.sum() > 5000
        assert not done.mask[beyond].any() and not done.confidence[beyond].any()
        affine = np.array(done.provenance.affine)
        padded = np.pad(cut, ((200, 200), (200, 200), (0, 0)), mode="edge")
        affine[:, 2] -= affine[:, :2] @ (200, 200)
        repeated = stored(crop(padded, affine, SIZE))
        assert np.abs(done.image[0].astype(int) - repeated).max() <= 2
        within = (at > 2).all(axis=1).reshape(SIZE, SIZE)
        assert done.confidence[within].min() > 0.999


def test_masks_lie_within_one_another_and_within_the_portraits_own(photograph):
    own = np.zeros(photograph.shape[:2], bool)
    own[:130] = True
    portrait = replace(portrait_of(photograph), mask=own)
    skin, oval, kept = (
        aligned(portrait, SIZE, mask=kind).mask for kind in ("skin", "face", "keep")
    )
    assert (skin <= oval).all() and (oval <= kept).all()
    assert 0 < skin.sum() < oval.sum() < kept.sum()
    free = aligned(portrait_of(photograph), SIZE).mask
    row = in_crop(aligned(portrait, SIZE), np.array([(225.0, 130.0)]))[0, 1]
    assert (free & ~oval)[: int(row) - 8].sum() == 0 and oval[int(row) + 8 :].sum() == 0


def test_a_portrait_without_mask_that_is_wholly_seen_keeps_none(photograph):
    canvas = moved(photograph, np.array([[1, 0, 200.0], [0, 1, 200]]), (800, 900))
    assert aligned(portrait_of(canvas), SIZE, mask="keep").mask is None
    assert aligned(portrait_of(canvas), SIZE, mask="face").mask is not None


def test_an_own_mask_beside_the_face_is_refused(photograph):
    mask = np.zeros(photograph.shape[:2], bool)
    mask[400:, 400:] = True
    with pytest.raises(ValueError, match="'astronaut': its own mask leaves nothing of the face"):
        aligned(replace(portrait_of(photograph), mask=mask), SIZE)


def test_a_faulty_portrait_is_refused_as_everywhere(photograph):
    wrong = replace(portrait_of(photograph), key="a key")
    with pytest.raises(ValueError, match="a key may only have"):
        aligned(wrong, SIZE)
    with pytest.raises(ValueError, match="a crop of 0 pixels"):
        aligned(portrait_of(photograph), 0)


def test_the_same_portrait_gives_the_same_bytes(photograph):
    portrait = portrait_of(*relit(photograph))
    one, other = (encode(aligned(portrait, SIZE, mask="skin")) for _ in range(2))
    assert one == other
