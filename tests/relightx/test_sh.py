"""The light's mathematics against physics: sampling, integrals, rotations, published formulas."""

import math

import jaxtyping
import numpy as np
import pytest
import torch

from relightx.sh import (
    ambient_light,
    directional_light,
    dominant_direction,
    environment_directions,
    environment_light,
    from_deca,
    from_dpr,
    from_sfsnet,
    mirror,
    radiance,
    rotate,
    sh_basis,
    shade,
    to_deca,
    to_dpr,
    to_sfsnet,
)

DIRECTION, SOLID_ANGLE = (grid.flatten(0, 1) for grid in environment_directions(256, 512))


def random_directions(count: int) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(count, 3, dtype=torch.float64), dim=-1)


def random_rotation() -> torch.Tensor:
    matrix, _ = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))
    return matrix * torch.linalg.det(matrix)


def as_picture(direction: torch.Tensor) -> torch.Tensor:
    """Normals as a picture one pixel high."""
    return direction.T[:, None]


def irradiance(normal: torch.Tensor, light: torch.Tensor) -> torch.Tensor:
    """Integral of radiance (colours x directions) times cosine, for each normal."""
    cosine = (normal @ DIRECTION.T).clamp(min=0)
    return light @ (cosine * SOLID_ANGLE).T


def random_environment(bumps: int = 12) -> torch.Tensor:
    """Positive radiance (3 colours) from smooth bright patches over a dim sky, at DIRECTION."""
    centre = random_directions(bumps)
    patch = torch.exp(6 * (centre @ DIRECTION.T - 1))
    return torch.rand(3, bumps, dtype=torch.float64) @ patch + 0.1


def test_the_basis_is_orthonormal_under_random_sampling():
    basis = sh_basis(random_directions(400_000))
    gram = 4 * math.pi * basis.T @ basis / len(basis)
    torch.testing.assert_close(gram, torch.eye(9, dtype=torch.float64), atol=0.02, rtol=0)


def test_a_white_environment_shades_every_normal_to_one():
    normal = as_picture(random_directions(50))
    white = environment_light(torch.ones(3, 64, 128, dtype=torch.float64))
    one = torch.ones(3, 1, 50, dtype=torch.float64)
    torch.testing.assert_close(shade(normal, white), one, atol=1e-3, rtol=0)
    torch.testing.assert_close(shade(normal.float(), ambient_light(1.0).expand(3, 9)), one.float())


def test_shading_is_the_hemisphere_integral_of_any_second_order_light():
    normal, sh = random_directions(40), torch.randn(3, 9, dtype=torch.float64)
    expected = irradiance(normal, radiance(sh, DIRECTION)) / math.pi
    torch.testing.assert_close(shade(as_picture(normal), sh)[:, 0], expected, atol=1e-3, rtol=0)


def test_shading_is_close_to_the_hemisphere_integral_of_a_random_environment():
    normal, light = random_directions(200), random_environment()
    sh = environment_light(light.view(3, 256, 512))
    expected = irradiance(normal, light) / math.pi
    error = (shade(as_picture(normal), sh)[:, 0] - expected).abs() / expected.mean()
    # Ramamoorthi and Hanrahan: 1 % on average over lights and normals, 9 % at the worst normal.
    assert error.mean() < 0.01 and error.max() < 0.09


def test_turning_light_and_surface_together_changes_nothing():
    normal, sh, turn = random_directions(40), torch.randn(2, 3, 9).double(), random_rotation()
    torch.testing.assert_close(
        shade(as_picture(normal @ turn.T).expand(2, -1, -1, -1), rotate(sh, turn)),
        shade(as_picture(normal).expand(2, -1, -1, -1), sh),
        atol=1e-6,
        rtol=1e-6,
    )


def test_two_turns_are_the_turn_of_their_product():
    sh, one, other = torch.randn(9).double(), random_rotation(), random_rotation()
    torch.testing.assert_close(rotate(rotate(sh, one), other), rotate(sh, other @ one))


def test_a_turn_carries_the_main_direction_with_it():
    toward, turn = random_directions(5), random_rotation()
    sh = directional_light(toward)[:, None].expand(-1, 3, -1)
    torch.testing.assert_close(dominant_direction(rotate(sh, turn)), toward @ turn.T)


def test_a_matrix_that_stretches_is_refused():
    with pytest.raises(ValueError, match="not an orthogonal matrix"):
        rotate(torch.zeros(9), 2 * torch.eye(3))


def test_mirroring_is_the_turn_by_the_mirror_matrix():
    sh = torch.randn(3, 9).double()
    flip = torch.diag(torch.tensor([-1.0, 1.0, 1.0])).double()
    torch.testing.assert_close(mirror(sh), rotate(sh, flip))


def test_a_mirrored_picture_is_shaded_by_the_mirrored_light():
    normal, sh = torch.nn.functional.normalize(torch.randn(3, 8, 8), dim=0), torch.randn(3, 9)
    flipped = normal.flip(-1) * torch.tensor([-1.0, 1.0, 1.0]).view(3, 1, 1)
    torch.testing.assert_close(shade(flipped, mirror(sh)), shade(normal, sh).flip(-1))


def test_a_lamp_shades_like_the_clamped_cosine():
    lamp, normal = random_directions(1), random_directions(2000)
    sh = directional_light(lamp[0]).expand(3, 9)
    shading = shade(as_picture(normal), sh)[0, 0]
    difference = shading - (normal @ lamp[0]).clamp(min=0)
    assert difference.abs().max() < 0.1
    assert difference.square().mean().sqrt() < 0.06
    assert (shade(lamp[0].view(3, 1, 1), sh) - 1.0625).abs().max() < 1e-9


def test_a_lamp_of_any_length_points_where_it_is():
    toward = random_directions(6)
    sh = directional_light(toward * 40, ambient=0.3)[:, None].expand(-1, 3, -1)
    torch.testing.assert_close(dominant_direction(sh), toward)


def test_a_lamp_nowhere_is_refused():
    with pytest.raises(ValueError, match="length zero"):
        directional_light(torch.zeros(2, 3))


def test_ambient_light_adds_the_same_shading_everywhere():
    normal, toward = as_picture(random_directions(30)).float(), torch.tensor([0.2, 0.5, 0.9])
    dark, lit = (directional_light(toward, ambient=a).expand(3, 9) for a in (0.0, 0.25))
    torch.testing.assert_close(shade(normal, lit), shade(normal, dark) + 0.25)


def test_uniform_light_has_no_main_direction():
    assert torch.equal(dominant_direction(ambient_light(1.0).expand(3, 9)), torch.zeros(3))


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (7, 13), (64, 128)])
def test_solid_angles_sum_to_the_whole_sphere(size):
    direction, solid_angle = environment_directions(*size)
    torch.testing.assert_close(solid_angle.sum().item(), 4 * math.pi)
    torch.testing.assert_close(direction.norm(dim=-1), torch.ones(size, dtype=torch.float64))


@pytest.mark.parametrize("place", [(3, 5), (16, 32), (20, 1), (31, 63), (10, 48)])
def test_one_bright_spot_of_an_environment_is_where_its_light_comes_from(place):
    environment = torch.zeros(3, 32, 64)
    environment[:, place[0], place[1]] = 1000
    expected = environment_directions(32, 64)[0][place].float()
    torch.testing.assert_close(
        dominant_direction(environment_light(environment)), expected, atol=1e-5, rtol=0
    )


@pytest.mark.parametrize(
    ("rows", "columns", "axis"),
    [
        (slice(0, 2), slice(None), (0, 1, 0)),
        (slice(30, 32), slice(None), (0, -1, 0)),
        (slice(15, 17), slice(31, 33), (0, 0, -1)),
        (slice(15, 17), slice(47, 49), (1, 0, 0)),
        (slice(15, 17), [0, 63], (0, 0, 1)),
    ],
    ids=["top is up", "bottom is down", "centre is behind", "right is right", "edges are front"],
)
def test_the_parts_of_an_environment_map_have_their_documented_place(rows, columns, axis):
    environment = torch.zeros(3, 32, 64)
    environment[:, rows, columns] = 1.0
    direction = dominant_direction(environment_light(environment))
    torch.testing.assert_close(direction, torch.tensor(axis).float(), atol=1e-5, rtol=0)


def sfsnet_shading(n: np.ndarray, light: np.ndarray) -> np.ndarray:
    """normal_harmonics.m of SfSNet, written down as published (field order of its H1..H9)."""
    x, y, z = n.T
    aa, bb, cc = np.pi, 2 * np.pi / 3, np.pi / 4
    c1 = aa / np.sqrt(4 * np.pi)
    c2 = bb * np.sqrt(3 / (4 * np.pi))
    c3 = cc * 0.5 * np.sqrt(5 / (4 * np.pi))
    c4 = cc * 3 * np.sqrt(5 / (12 * np.pi))
    c5 = cc * 3 * np.sqrt(5 / (48 * np.pi))
    one = np.ones_like(x)
    harmonics = [c1 * one, c2 * z, c2 * x, c2 * y, c3 * (2 * z * z - x * x - y * y)]
    harmonics += [c4 * x * z, c4 * y * z, c5 * (x * x - y * y), c4 * x * y]
    return light @ np.stack(harmonics)


def dpr_shading(n: np.ndarray, light: np.ndarray) -> np.ndarray:
    """utils_SH.py and utils_normal.py of DPR: normals right, down, inward -> its SH tool's."""
    right, down, inward = n[:, 0], -n[:, 1], -n[:, 2]
    x, y, z = right, inward, -down  # cvt2shtools
    att = np.pi * np.array([1, 2.0 / 3.0, 1 / 4.0])
    first = np.sqrt(3) / 2 / np.sqrt(np.pi) * att[1]
    second = np.sqrt(15) / 2 / np.sqrt(np.pi) * att[2]
    basis = [0.5 / np.sqrt(np.pi) * att[0] * np.ones_like(x), first * y, first * z, first * x]
    basis += [second * y * x, second * y * z]
    basis += [np.sqrt(5) / 4 / np.sqrt(np.pi) * (3 * z**2 - 1) * att[2], second * x * z]
    basis += [np.sqrt(15) / 4 / np.sqrt(np.pi) * (x**2 - y**2) * att[2]]
    return light @ np.stack(basis)


def deca_shading(n: np.ndarray, light: np.ndarray) -> np.ndarray:
    """add_SHlight of DECA's renderer; light has axes (9 coefficients, 3 colours)."""
    x, y, z = n.T
    pi = np.pi
    factor = [1 / np.sqrt(4 * pi)] + [(2 * pi / 3) * np.sqrt(3 / (4 * pi))] * 3
    factor += [(pi / 4) * 3 * np.sqrt(5 / (12 * pi))] * 3
    factor += [(pi / 4) * (3 / 2) * np.sqrt(5 / (12 * pi)), (pi / 4) * 0.5 * np.sqrt(5 / (4 * pi))]
    one = np.ones_like(x)
    basis = [one, x, y, z, x * y, x * z, y * z, x**2 - y**2, 3 * z**2 - 1]
    return light.T @ (np.stack(basis) * np.array(factor)[:, None])


FOREIGN = {
    "sfsnet": (from_sfsnet, to_sfsnet, sfsnet_shading, (3, 9)),
    "dpr": (from_dpr, to_dpr, dpr_shading, (3, 9)),
    "deca": (from_deca, to_deca, deca_shading, (9, 3)),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_foreign_light_shades_here_as_its_authors_shade_it(name):
    read, _, published, shape = FOREIGN[name]
    light, normal = torch.randn(*shape, dtype=torch.float64), random_directions(60)
    expected = torch.from_numpy(published(normal.numpy(), light.numpy()))
    torch.testing.assert_close(shade(as_picture(normal), read(light))[:, 0], expected)


@pytest.mark.parametrize("name", FOREIGN)
def test_a_foreign_light_survives_the_way_here_and_back(name):
    read, write, _, shape = FOREIGN[name]
    light = torch.randn(4, *shape, dtype=torch.float64)
    torch.testing.assert_close(write(read(light)), light)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_numbers_keep_their_precision(dtype):
    sh, normal = torch.randn(2, 3, 9, dtype=dtype), torch.zeros(2, 3, 4, 4, dtype=dtype)
    results = [shade(normal, sh), rotate(sh, torch.eye(3)), mirror(sh), from_dpr(sh)]
    assert {value.dtype for value in results} == {dtype}


def test_one_picture_is_shaded_by_many_lights_as_one_by_one():
    normal, sh = torch.randn(2, 1, 3, 5, 4), torch.randn(2, 6, 3, 9)
    together = shade(normal, sh)
    assert together.shape == (2, 6, 3, 5, 4)
    torch.testing.assert_close(together[1, 4], shade(normal[1, 0], sh[1, 4]))


@pytest.mark.parametrize(
    ("normal", "sh"),
    [((2, 3, 4, 4), (2, 9, 3)), ((2, 4, 4, 3), (2, 3, 9)), ((2, 3, 4, 4), (5, 3, 9))],
    ids=["axes of light swapped", "channels last", "other number of lights"],
)
def test_a_wrong_shape_is_caught_where_it_enters(normal, sh):
    with pytest.raises(jaxtyping.TypeCheckError):
        shade(torch.zeros(normal), torch.zeros(sh))
