from dataclasses import replace
from itertools import pairwise

import cv2
import numpy as np
import pytest

from relightx.sample import encode
from shards.looking.skin_tone import BOUNDS_DEG, GROUPS, groups_of, skin_tone, tone_of

PALE, DARK = np.float32([0.62, 0.42, 0.33]), np.float32([0.09, 0.045, 0.03])


@pytest.mark.parametrize("albedo", [PALE, DARK, np.float32([0.004, 0.002, 0.001])])
def test_the_tone_is_that_of_cies_colours(albedo):
    level, _, b = cv2.cvtColor(albedo.reshape(1, 1, 3), cv2.COLOR_LRGB2Lab).ravel()
    tone = tone_of(albedo.astype(np.float64))
    assert tone.lightness == pytest.approx(level, abs=0.3)
    assert tone.ita_deg == pytest.approx(np.degrees(np.arctan((level - 50) / b)), abs=1)


def test_a_gray_albedo_has_lightness_alone():
    assert tone_of(np.ones(3)).lightness == pytest.approx(100)
    assert tone_of(np.full(3, 0.184)).lightness == pytest.approx(50, abs=0.1)
    assert tone_of(np.full(3, 0.184)).ita_deg is None
    assert tone_of(np.zeros(3)).lightness == pytest.approx(0)


def test_every_group_has_its_angles():
    ends = (-90, *BOUNDS_DEG, 90)
    middles = [(low + high) / 2 for low, high in pairwise(ends)]
    assert groups_of(middles) == dict.fromkeys(GROUPS, 1)
    assert groups_of([60.0, 80.0, -70.0]) == {"dark": 1, "very light": 2}
    assert groups_of([]) == {}


def halves(portrait, **changes):
    """Pale on the left half, dark on the right one."""
    albedo = np.empty_like(portrait.albedo)
    albedo[:, :16], albedo[:, 16:] = PALE, DARK
    return replace(portrait, albedo=albedo, **changes)


def tone(portrait):
    return skin_tone(portrait, encode(portrait))


def test_skin_is_what_the_layer_says(portrait):
    skin = np.zeros((32, 32, 1), np.float32)
    skin[:, 16:] = 0.8
    dark = tone(halves(portrait, layers={"skin": skin}))
    assert dark.lightness == pytest.approx(tone_of(DARK.astype(float)).lightness, abs=0.1)
    pale = tone(halves(portrait, layers={"skin": 1 - skin}))
    assert pale.ita_deg == pytest.approx(tone_of(PALE.astype(float)).ita_deg, abs=0.2)


def test_without_a_layer_it_is_the_middle_of_the_picture_inside_the_mask(portrait):
    albedo = np.broadcast_to(DARK, (32, 32, 3)).copy()
    albedo[10:22, 10:22] = PALE
    pale = tone_of(PALE.astype(float)).lightness
    assert tone(replace(portrait, albedo=albedo)).lightness == pytest.approx(pale, abs=0.1)
    mask = np.zeros((32, 32), bool)
    mask[:, 16:] = True
    assert tone(halves(portrait, mask=mask)).lightness < 30
    assert tone(halves(portrait, mask=~mask)).lightness > 60


def test_where_there_is_no_skin_there_is_no_tone(portrait):
    assert tone(replace(portrait, mask=np.zeros((32, 32), bool))) is None
    unlabelled = replace(portrait.provenance, albedo="absent")
    assert tone(replace(portrait, albedo=None, provenance=unlabelled)) is None
