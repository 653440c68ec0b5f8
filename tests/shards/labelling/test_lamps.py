import numpy as np
import pytest
from relief import photograph, relief

from shards.labelling.lamps import check_agreement, fit_lamp, fit_strength, goodness
from shards.labelling.photometric_stereo import Surface

TOWARD = np.array((0.5, 0.3, 0.81), np.float32) / np.linalg.norm((0.5, 0.3, 0.81))


def lit_head(strength: float = 1.1) -> tuple[np.ndarray, Surface, np.ndarray]:
    normal, albedo, mask = relief()
    image = photograph(normal, albedo, TOWARD, strength).astype(np.float32)
    surface = Surface(
        normal.astype(np.float32), albedo.astype(np.float32), np.ones(mask.shape, np.float32)
    )
    return image, surface, mask


def with_shadow_and_highlight(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """A fifth of the face in cast shadow and a bright spot."""
    image, columns = image.copy(), np.nonzero(mask)[1]
    image[:, int(np.percentile(columns, 80)) :] *= 0.1
    image[20:24, 20:24] = 1.0
    return image


def test_a_lamp_is_found_exactly():
    image, surface, mask = lit_head()
    lamp = fit_lamp(image, surface, mask)
    np.testing.assert_allclose(lamp, 1.1 * TOWARD, atol=1e-4)
    assert fit_strength(image, surface, TOWARD, mask) == pytest.approx(1.1, abs=1e-4)


def test_cast_shadow_and_highlight_hardly_move_a_lamp():
    image, surface, mask = lit_head()
    image = with_shadow_and_highlight(image, mask)
    lamp = fit_lamp(image, surface, mask)
    cosine = lamp @ TOWARD / np.linalg.norm(lamp)
    assert cosine > np.cos(np.radians(2))
    assert np.linalg.norm(lamp) == pytest.approx(1.1, rel=0.02)
    assert fit_strength(image, surface, TOWARD, mask) == pytest.approx(1.1, rel=0.02)


def test_a_lamp_that_does_not_reach_the_face_is_not_found():
    image, surface, mask = lit_head()
    assert fit_strength(image, surface, -TOWARD, mask) is None
    assert fit_lamp(np.zeros_like(image), surface, mask) is None
    assert fit_lamp(image, surface, np.zeros_like(mask)) is None
    assert fit_lamp(np.ones_like(image), surface, mask) is None


def test_goodness_is_one_on_what_is_explained_and_low_in_cast_shadow():
    image, surface, mask = lit_head()
    lamp = (1.1 * TOWARD)[None]
    assert goodness(image[None], surface, lamp)[mask].min() > 0.999
    shadowed = goodness(with_shadow_and_highlight(image, mask)[None], surface, lamp)
    column = int(np.percentile(np.nonzero(mask)[1], 80))
    lit = mask & (image > 0.2)
    assert shadowed[:, column:][lit[:, column:]].max() < 0.5
    off = goodness(image[None] + 0.1 * surface.albedo, surface, lamp)
    assert off[mask] == pytest.approx(0.5, abs=1e-3)


def test_lamps_in_another_order_do_not_agree_with_the_pictures():
    _, surface, mask = lit_head()
    lamp = np.array([(x, y, 2) for x in (-1, 1) for y in (-1, 1)], np.float32)
    lamp /= np.linalg.norm(lamp, axis=1, keepdims=True)
    image = np.stack([photograph(surface.normal, surface.albedo, toward, 1.0) for toward in lamp])
    image = image.astype(np.float32)
    check_agreement(image, surface, mask, lamp)
    with pytest.raises(ValueError, match=r"correlation of 0\.\d\d, 0\.8 needed"):
        check_agreement(image, surface, mask, lamp[[0, 2, 1, 3]])
    with pytest.raises(ValueError, match="correlation of nan"):
        check_agreement(np.ones_like(image), surface, mask, lamp)
