"""Labels that are wrong in the known ways are told from right ones, on sets that are exact."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from relightx.color import linear_to_srgb, srgb_to_linear
from relightx.sh import from_sfsnet, rotate, shade, to_deca, to_dpr, to_sfsnet
from shards.looking.agreement import MISREADINGS, Agreements, agreement


def converted(portrait, convert):
    return replace(portrait, sh=np.ascontiguousarray(convert(torch.from_numpy(portrait.sh))))


def mirrored(portrait, axis):
    sign = np.ones(3, np.float32)
    sign[axis] = -1
    return replace(portrait, normal=portrait.normal * sign)


def encoded(portrait, curve):
    image = np.rint(curve(portrait.image / 65535) * 65535).astype(np.uint16)
    return replace(portrait, image=image)


MISTAKES = {
    "the normals had x to the left": lambda p: mirrored(p, 0),
    "the normals had y down": lambda p: mirrored(p, 1),
    "the normals had z away from the camera": lambda p: mirrored(p, 2),
    "the light were in SfSNet's order (relightx.sh.from_sfsnet)": lambda p: converted(p, to_sfsnet),
    "the light were in DPR's order (relightx.sh.from_dpr)": lambda p: converted(p, to_dpr),
    "the light were in DECA's order (relightx.sh.from_deca)": lambda p: converted(
        p, lambda sh: to_deca(sh).reshape(-1, 3, 9)
    ),
    "the light were pi times as strong": lambda p: converted(p, lambda sh: sh / np.pi),
    "the light were pi times weaker": lambda p: converted(p, lambda sh: sh * np.pi),
    "each light were that of the next image": lambda p: converted(p, lambda sh: sh.roll(-1, 0)),
    "each light were that of the image before": lambda p: converted(p, lambda sh: sh.roll(1, 0)),
    "the light's colours were in the order blue, green, red": lambda p: converted(
        p, lambda sh: sh.flip(-2)
    ),
    "the albedo's colours were in the order blue, green, red": lambda p: replace(
        p, albedo=np.ascontiguousarray(p.albedo[..., ::-1])
    ),
    "the albedo were stored as sRGB": lambda p: replace(p, albedo=linear_to_srgb(p.albedo)),
    "the images were stored as sRGB": lambda p: encoded(p, linear_to_srgb),
    "the images were stored as linear light": lambda p: encoded(p, srgb_to_linear),
}


@pytest.fixture
def balls(make_portrait):
    """Exact balls under coloured lights."""
    colours = np.array([1.0, 0.75, 0.5], np.float32)[:, None]
    made = [make_portrait(f"ball{i}", f"p{i}", lights=4, size=24, seed=i) for i in range(8)]
    return [
        replace(
            ball,
            sh=ball.sh * colours,
            image=np.rint(ball.image * colours[:, 0]).astype(np.uint16),
        )
        for ball in made
    ]


def agreements_of(portraits):
    agreements = Agreements()
    for portrait, other in zip(portraits, [None, *portraits[:-1]], strict=True):
        agreements.add(portrait.key, agreement(portrait, other))
    return agreements


def test_true_labels_leave_nothing(balls):
    agreements = agreements_of(balls)
    assert list(agreements.faults()) == list(agreements.warnings()) == []
    (summary,) = agreements.summaries()
    assert summary.portraits == 8 and summary.median < 1e-4 and len(summary.worst) == 5


def test_every_misreading_is_tested():
    assert list(MISTAKES) == list(MISREADINGS)


@pytest.mark.parametrize("name", MISREADINGS)
def test_labels_that_are_misread_are_named(balls, name):
    (fault,) = agreements_of([MISTAKES[name](ball) for ball in balls]).faults()
    assert name in fault[2] and fault[:2] == ("balls 1", "")


def test_labels_of_other_subjects_are_found(balls):
    moved = [
        replace(ball, albedo=other.albedo, sh=other.sh, direction=None)
        for ball, other in zip(balls, balls[3:] + balls[:3], strict=True)
    ]
    (fault,) = agreements_of(moved).faults()
    assert "no better than those of another subject" in fault[2]


def test_lights_that_belong_to_other_images_are_found(balls):
    order = [2, 3, 1, 0]
    moved = [replace(ball, sh=ball.sh[order], direction=None) for ball in balls]
    (fault,) = agreements_of(moved).faults()
    assert "its lights in another order" in fault[2]


def test_one_portrait_with_wrong_labels_among_right_ones_is_found(balls):
    wrong = replace(balls[5], albedo=balls[2].albedo, sh=balls[2].sh, direction=None)
    faults = list(agreements_of([*balls[:5], wrong, *balls[6:]]).faults())
    assert [key for _, key, _ in faults] == ["ball5"]


def test_an_estimate_that_fails_in_one_portrait_is_a_warning(balls):
    guessed = [
        replace(ball, provenance=replace(ball.provenance, albedo="pseudo")) for ball in balls
    ]
    guessed[5] = replace(guessed[5], albedo=balls[2].albedo, sh=balls[2].sh, direction=None)
    agreements = agreements_of(guessed)
    assert list(agreements.faults()) == []
    assert [key for _, key, _ in agreements.warnings()] == ["ball5"]


def test_noise_of_other_light_that_explains_nothing_is_found(balls):
    generator = torch.Generator().manual_seed(1)
    noise = [replace(b, sh=torch.randn(4, 3, 9, generator=generator).numpy() * 3) for b in balls]
    assert [key for _, key, _ in agreements_of(noise).faults()] == [""]


def test_shadows_and_highlights_pass(balls):
    """Half of the pixels dark under one light of four, some bright: not the labels' fault."""
    shaded = []
    for ball in balls:
        image = ball.image.copy()
        image[0, 12:] = 0
        image[:, 8:10, 8:10] = 65535
        shaded.append(replace(ball, image=image))
    agreements = agreements_of(shaded)
    assert list(agreements.faults()) == []


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_mirrored_directions_are_named(balls, axis):
    sign = np.ones(3, np.float32)
    sign[axis] = -1
    turned = [replace(ball, direction=ball.direction * sign) for ball in balls]
    faults = [message for _, _, message in agreements_of(turned).faults()]
    assert len(faults) == 1 and f"{'xyz'[axis]} of the directions turned" in faults[0]


def test_directions_of_other_lights_are_found(balls):
    turn = torch.tensor([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]])
    turned = [converted(ball, lambda sh: rotate(sh, turn)) for ball in balls]
    pictures = [
        replace(
            ball,
            image=np.rint(
                np.clip(ball.albedo * _shading(ball), 0, 1) * ball.mask[..., None] * 65535
            ).astype(np.uint16),
        )
        for ball in turned
    ]
    faults = [message for _, _, message in agreements_of(pictures).faults()]
    assert faults and all("light directions and light labels differ" in text for text in faults)


def test_a_uniform_light_has_no_direction_to_compare(balls):
    flat = [replace(ball, sh=ball.sh * (np.arange(9) == 0).astype(np.float32)) for ball in balls]
    assert np.isnan(agreement(flat[0]).cosine)


def test_portraits_without_labels_or_light_have_nothing_to_compare(balls):
    bare = replace(balls[0], albedo=None, direction=None)
    assert agreement(bare) is None
    black = replace(balls[0], image=np.zeros_like(balls[0].image), direction=None)
    assert agreement(black) is None


def test_labels_of_another_size_are_not_compared(balls, make_portrait):
    assert np.isnan(agreement(balls[0], make_portrait(size=16)).foreign[0])


def test_sources_are_judged_apart(balls):
    """Real photographs beside exact ones are no outliers."""
    rough = []
    for ball in balls:
        image = np.rint(ball.image * 0.75).astype(np.uint16)
        provenance = replace(ball.provenance, source="photographs")
        rough.append(replace(ball, key=f"r{ball.key}", image=image, provenance=provenance))
    agreements = agreements_of([*balls, *rough])
    assert list(agreements.faults()) == []
    exact, other = agreements.summaries()
    assert exact.median < 1e-4 and other.median == pytest.approx(1 / 3, abs=0.01)


def test_gray_images_are_compared_too(balls):
    gray = replace(
        balls[0],
        image=np.ascontiguousarray(balls[0].image[..., :1]),
        albedo=np.repeat(balls[0].albedo[..., :1], 3, -1),
        sh=np.repeat(balls[0].sh[:, :1], 3, 1),
    )
    assert agreement(gray).residual < 1e-4


def test_the_residual_is_that_of_shade(balls):
    ball = replace(balls[0], sh=from_sfsnet(torch.from_numpy(balls[0].sh)).numpy())
    difference = np.abs(np.clip(ball.albedo * _shading(ball), 0, 1) - ball.linear_image())
    bright = ball.linear_image().mean((0, 3))[ball.mask]
    expected = np.median(difference.mean((0, 3))[ball.mask]) / np.median(bright)
    assert agreement(ball).residual == pytest.approx(expected, rel=1e-5)


def _shading(portrait):
    normal = torch.from_numpy(portrait.normal).permute(2, 0, 1)
    return shade(normal, torch.from_numpy(portrait.sh)).permute(0, 2, 3, 1).numpy()
