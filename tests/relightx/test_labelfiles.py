"""Labels lie on the picture they belong to, whatever its shape and wherever it was cropped."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from relightx.codec import decode_picture
from relightx.confidence import Consensus
from relightx.data.fit import fit
from relightx.face import crop, turn_to_photograph
from relightx.labelfiles import Labels, Place, labels_at, write_labels
from relightx.sample import Portrait
from relightx.sh import shade


def answered(portrait: Portrait, size: int, confidence: float = 1.0) -> tuple[Consensus, Place]:
    """The true answer on a model's square, and where it belongs."""
    views = fit(portrait, size)
    maps = (torch.from_numpy(v.copy()).movedim(-1, 0) for v in (views.albedo, views.normal))
    certain = torch.full((size, size), confidence)
    return Consensus(*maps, torch.from_numpy(views.sh), certain), Place.of(portrait)


def everywhere(size: int = 32) -> torch.Tensor:
    return torch.ones(size, size, dtype=torch.bool)


def cut(portrait: Portrait, rows: slice, columns: slice) -> Portrait:
    return replace(
        portrait,
        image=portrait.image[:, rows, columns],
        albedo=portrait.albedo[rows, columns],
        normal=portrait.normal[rows, columns],
        mask=portrait.mask[rows, columns],
    )


def rendered(labels: Labels) -> np.ndarray:
    albedo, normal = (
        torch.from_numpy(v.astype(np.float32)).movedim(-1, 0)
        for v in (labels.albedo, labels.normal)
    )
    return (albedo * shade(normal, torch.from_numpy(labels.sh))).movedim(1, -1).numpy()


@pytest.mark.parametrize("size", [32, 64, 96])
@pytest.mark.parametrize(
    ("rows", "columns"),
    [
        (slice(0, 64), slice(0, 64)),
        (slice(8, 60), slice(0, 63)),
        (slice(3, 60), slice(15, 48)),
    ],
)
def test_the_true_answer_comes_back_to_the_pictures_own_pixels(make_portrait, size, rows, columns):
    portrait = cut(make_portrait(size=64), rows, columns)
    found, place = answered(portrait, size)
    labels = labels_at(place, found, everywhere(size))
    assert labels.albedo.shape == labels.normal.shape == portrait.albedo.shape
    smooth = portrait.mask & (portrait.normal[..., 2] > 0.6)
    assert np.abs(labels.albedo - portrait.albedo)[smooth].max() < 0.05
    assert (labels.normal * portrait.normal).sum(-1)[smooth].min() > np.cos(np.deg2rad(4))
    np.testing.assert_allclose(np.linalg.norm(labels.normal, axis=-1), 1, atol=1e-5)


def test_confidence_is_nothing_outside_the_mask_and_not_dimmed_at_its_edge(make_portrait):
    portrait = make_portrait(size=64)
    found, place = answered(portrait, 32, confidence=0.7)
    labels = labels_at(place, found, everywhere())
    assert (labels.confidence[~portrait.mask] == 0).all()
    np.testing.assert_allclose(labels.confidence[portrait.mask], 0.7, atol=1e-6)


def test_the_mean_confidence_is_taken_inside_the_mask(make_portrait):
    found, place = answered(make_portrait(size=32), 32)
    left = torch.zeros(32, 32, dtype=torch.bool)
    left[:, :16] = True
    half = found._replace(confidence=torch.where(left, 0.8, 0.1))
    assert labels_at(place, half, left).mean == pytest.approx(0.8)
    assert labels_at(place, half, ~everywhere()).mean == 0


@pytest.fixture
def cropped(make_portrait) -> tuple[Portrait, np.ndarray]:
    """A ball cut out of a larger photograph that shows it turned and larger, and the photograph."""
    angle, zoom, size = np.deg2rad(20), 0.8, 64
    turn = zoom * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    affine = np.column_stack((turn, size / 2 - turn @ (75, 60)))
    ball = make_portrait(size=size)
    provenance = replace(
        ball.provenance, affine=tuple(map(tuple, affine.tolist())), source_size=(140, 120)
    )
    return replace(ball, provenance=provenance), affine


def test_a_crop_is_undone_and_the_labels_still_explain_the_photograph(cropped):
    portrait, affine = cropped
    found, place = answered(portrait, 64)
    labels = labels_at(place, found, everywhere(64))
    assert labels.albedo.shape == (120, 140, 3) and labels.confidence.shape == (120, 140)
    np.testing.assert_allclose(np.linalg.norm(labels.normal, axis=-1), 1, atol=1e-5)
    again = np.stack([crop(one.astype(np.float32), affine, 64) for one in rendered(labels)])
    inside = portrait.mask & (portrait.normal[..., 2] > 0.5)
    assert np.abs(again - portrait.linear_image())[:, inside].max() < 0.03


def test_cropping_the_labels_again_gives_the_answer(cropped):
    portrait, affine = cropped
    found, place = answered(portrait, 64)
    labels = labels_at(place, found, everywhere(64))
    inside = portrait.mask & (portrait.normal[..., 2] > 0.5)
    normal = crop(labels.normal.astype(np.float32), affine, 64) @ turn_to_photograph(affine)
    assert (normal * portrait.normal).sum(-1)[inside].min() > np.cos(np.deg2rad(3))
    confidence = crop(np.repeat(labels.confidence[..., None], 3, axis=2), affine, 64)[..., 0]
    assert confidence[inside].min() > 0.99
    assert (labels.confidence[:20, :20] == 0).all() and (labels.normal[0, 0] == (0, 0, 1)).all()


def test_files_hold_what_they_are_given(make_portrait, tmp_path):
    portrait = make_portrait(size=32)
    found, place = answered(portrait, 32, confidence=0.4)
    write_labels(tmp_path, "anna_1", labels_at(place, found, everywhere()))
    names = ("albedo.png", "confidence.png", "light.json", "normal.png")
    assert sorted(file.name for file in tmp_path.iterdir()) == [f"anna_1.{n}" for n in names]

    def picture(name: str) -> np.ndarray:
        return decode_picture((tmp_path / f"anna_1.{name}.png").read_bytes(), (32, 32))

    albedo, normal, confidence = map(picture, ("albedo", "normal", "confidence"))
    assert albedo.dtype == normal.dtype == np.uint16 and confidence.dtype == np.uint8
    np.testing.assert_allclose(albedo / 65535, portrait.albedo, atol=1e-5)
    np.testing.assert_allclose(normal / 65535 * 2 - 1, portrait.normal, atol=2e-5)
    np.testing.assert_allclose(confidence[..., 0] / 255, 0.4 * portrait.mask, atol=2e-3)
    light = json.loads((tmp_path / "anna_1.light.json").read_text())
    np.testing.assert_allclose(light["lights"], portrait.sh, atol=1e-6)
    assert light["sh"] == light["lights"][0] and light["confidence"] == pytest.approx(0.4)


def test_one_light_needs_no_list_of_lights(make_portrait, tmp_path):
    found, place = answered(make_portrait(lights=1), 32)
    write_labels(tmp_path, "k", labels_at(place, found, everywhere()))
    assert set(json.loads((tmp_path / "k.light.json").read_text())) == {"sh", "confidence"}
