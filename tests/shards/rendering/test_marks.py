"""Marks of the skin: where they are, what colour they have, and who has them."""

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("anny", reason="the extra `synthetic` is not installed")

from relightx.color import LUMINANCE
from shards.rendering.chart import Chart
from shards.rendering.heads import Person, random_person
from shards.rendering.marks import (
    Marks,
    Paint,
    Spot,
    marked,
    random_marks,
    spot_heights,
    without_marks,
)
from shards.rendering.skin import Appearance, bare_skin, random_appearance
from shards.rendering.surface import makehuman_surface

NO_PAINT = Paint(0.0, (0.0, 0.0, 0.0))
NONE = Marks((), 0.0, 0.0, NO_PAINT, NO_PAINT, NO_PAINT, 0.0)
MOLE = Spot((0.3, 6.9), (0.03, 0.03), 0.0, 0.8, 0.0, 0.004)
FINE = Chart(0.004)


def somebody(male: float, age: float, lightness: float = 65.0) -> tuple[Person, Appearance]:
    person = random_person(np.random.default_rng(1))
    person = replace(person, male=male, age=age, lightness=lightness)
    return person, random_appearance(np.random.default_rng(1), person)


@pytest.fixture(scope="module")
def surface() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Template, lips and ears of the vertices before the ears."""
    known = makehuman_surface()
    front = known.template[:, 2] > 0.75
    return known.template[front], known.weights[front, 0], known.weights[front, 1]


def painted(surface, marks: Marks, appearance: Appearance) -> tuple[np.ndarray, np.ndarray]:
    """Albedo without and with marks."""
    template, lips, ears = surface
    bare = bare_skin(template, lips, ears, appearance).astype(np.float32)
    return bare, marked(bare, template, lips, marks, appearance, FINE)


def near(template: np.ndarray, place: tuple[float, float, float], radius: float) -> np.ndarray:
    return np.linalg.norm(template - np.array(place), axis=1) < radius


def test_a_mole_is_dark_where_it_is_and_nowhere_else(surface):
    _, appearance = somebody(1.0, 40.0)
    bare, found = painted(surface, replace(NONE, spots=(MOLE,)), appearance)
    template = surface[0]
    around = np.arctan2(template[:, 0], template[:, 2] - 0.55) * 0.75
    away = np.hypot(around - MOLE.place[0], template[:, 1] - MOLE.place[1])
    assert (away < 0.02).any()
    assert (found / bare)[away < 0.02].max() < 0.75
    np.testing.assert_allclose(found[away > 0.09], bare[away > 0.09], rtol=1e-3)


def test_a_spot_stands_out_by_its_height_and_fades_with_distance():
    marks = replace(NONE, spots=(MOLE,))
    assert spot_heights(marks, FINE).max() == pytest.approx(MOLE.height, rel=0.05)
    volume = [spot_heights(marks, Chart(cell)).sum() * cell**2 for cell in (0.004, 0.05, 0.15)]
    assert volume == pytest.approx([volume[0]] * 3, rel=0.25)
    assert spot_heights(marks, Chart(0.15)).max() < 0.2 * MOLE.height


def test_a_shaved_beard_is_bluish_and_below_the_mouth(surface):
    _, appearance = somebody(1.0, 40.0)
    bare, found = painted(surface, replace(NONE, stubble=0.05, beard_shade=0.2), appearance)
    ratio = found / bare
    jaw, brow = near(surface[0], (0.0, 6.35, 1.45), 0.12), near(surface[0], (0.0, 7.75, 1.5), 0.2)
    assert ratio[jaw].mean() < 0.9
    assert ratio[jaw, 2].mean() > ratio[jaw, 0].mean() + 0.02
    np.testing.assert_allclose(ratio[brow], 1, rtol=1e-3)


def test_make_up_lies_on_lids_and_cheeks(surface):
    _, appearance = somebody(0.0, 30.0)
    for name, place in (("eye_shadow", (0.33, 7.39, 1.4)), ("blush", (0.5, 7.0, 1.2))):
        paint = {name: Paint(0.4, (0.3, 0.05, 0.05))}
        bare, found = painted(surface, replace(NONE, **paint), appearance)
        changed = np.abs(found - bare).max(axis=1)
        assert changed[near(surface[0], place, 0.1)].max() > 0.05
        assert changed[near(surface[0], (0.0, 6.3, 1.45), 0.15)].max() < 0.01
        assert changed[near(surface[0], (0.0, 7.9, 1.4), 0.15)].max() < 0.01


def drawn(male: float, age: float, count: int = 40) -> list[Marks]:
    person, appearance = somebody(male, age)
    shaved = replace(appearance, hair=replace(appearance.hair, beard=0.0))
    return [random_marks(np.random.default_rng(seed), person, shaved) for seed in range(count)]


def test_only_men_shave_only_women_paint_and_only_the_old_have_age_spots():
    man, woman, boy, girl = (
        drawn(*who) for who in ((1.0, 35.0), (0.0, 35.0), (1.0, 10.0), (0.0, 10.0))
    )
    assert any(marks.beard_shade > 0.05 for marks in man)
    assert any(marks.eye_shadow.opacity or marks.blush.opacity for marks in woman)
    for marks in (*woman, *boy, *girl):
        assert not marks.stubble and not marks.beard_shade
    for marks in (*man, *boy, *girl):
        assert not any(p.opacity for p in (marks.eye_shadow, marks.liner, marks.blush))
    young, old = ([len(marks.spots) for marks in drawn(1.0, age)] for age in (40.0, 75.0))
    assert np.mean(old) > np.mean(young) + 3 and max(old) < 60


@pytest.mark.parametrize("lightness", [28.0, 78.0])
def test_no_random_mark_is_unbelievable(surface, lightness):
    weight = np.array(LUMINANCE)
    for seed in range(12):
        person, appearance = somebody(float(seed % 2), 20.0 + 5 * seed, lightness)
        marks = random_marks(np.random.default_rng(seed), person, appearance)
        bare, found = painted(surface, marks, without_marks(appearance))
        assert found.min() > 0 and found.max() < 0.95
        ratio = (found @ weight) / (bare @ weight)
        assert 0.5 < np.median(ratio) <= 1.05 and np.quantile(ratio, 0.99) < 1.4


def test_whole_beards_are_left_to_the_hair():
    _, appearance = somebody(1.0, 40.0)
    full, short = (replace(appearance, hair=replace(appearance.hair, beard=b)) for b in (0.95, 0.3))
    assert without_marks(full).hair == full.hair and without_marks(short).hair.beard == 0


def test_freckles_are_spots_of_nose_and_cheeks():
    person, appearance = somebody(0.0, 20.0)
    freckled = replace(appearance, freckles=0.4)
    few, many = (
        random_marks(np.random.default_rng(3), person, a).spots for a in (appearance, freckled)
    )
    place = np.array([spot.place for spot in many])
    assert len(many) > len(few) + 100 and not without_marks(freckled).freckles
    assert np.median(np.abs(place[:, 1] - 7.05)) < 0.2 and max(s.radii[0] for s in many) < 0.03
