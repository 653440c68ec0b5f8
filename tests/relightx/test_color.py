"""sRGB and linear light: the standard's values, both ways, in both libraries."""

import numpy as np
import pytest
import torch

from relightx.color import LUMINANCE, from_integer, linear_to_srgb, srgb_to_linear, to_srgb8

GRID = np.linspace(0, 1, 10_001)


@pytest.mark.parametrize(
    ("encoded", "linear"),
    [(0.0, 0.0), (0.04045, 0.0031308), (0.5, 0.2140411), (0.735357, 0.5), (1.0, 1.0)],
)
def test_known_values_of_the_standard(encoded, linear):
    assert srgb_to_linear(np.array([encoded])) == pytest.approx(linear, abs=1e-6)
    assert linear_to_srgb(np.array([linear])) == pytest.approx(encoded, abs=1e-5)


def test_there_and_back_is_the_same():
    np.testing.assert_allclose(linear_to_srgb(srgb_to_linear(GRID)), GRID, atol=1e-6)
    np.testing.assert_allclose(srgb_to_linear(linear_to_srgb(GRID)), GRID, atol=1e-6)


@pytest.mark.parametrize("curve", [srgb_to_linear, linear_to_srgb])
def test_more_light_is_always_a_larger_number(curve):
    values = curve(GRID)
    assert (np.diff(values) > 0).all() and values[0] == 0 and values[-1] == pytest.approx(1)


@pytest.mark.parametrize("curve", [srgb_to_linear, linear_to_srgb])
def test_both_libraries_give_the_same_numbers_and_keep_their_kind(curve):
    grid = GRID.astype(np.float32)
    values, tensor = curve(grid), curve(torch.from_numpy(grid))
    assert values.dtype == np.float32 and tensor.dtype == torch.float32
    np.testing.assert_allclose(values, tensor.numpy(), atol=1e-6)


@pytest.mark.parametrize("curve", [srgb_to_linear, linear_to_srgb])
def test_values_outside_the_range_are_clipped(curve):
    np.testing.assert_allclose(curve(np.array([-0.5, 1.7])), [0.0, 1.0], atol=1e-12)


@pytest.mark.parametrize("curve", [srgb_to_linear, linear_to_srgb])
def test_gradients_are_finite_down_to_black(curve):
    values = torch.linspace(0, 1, 101, requires_grad=True)
    curve(values).sum().backward()
    assert values.grad.isfinite().all() and (values.grad[1:-1] > 0).all()


@pytest.mark.parametrize(("dtype", "top"), [(np.uint8, 255), (np.uint16, 65535)])
def test_stored_integers_are_read_by_the_formula(dtype, top):
    stored = np.arange(top + 1).astype(dtype)
    linear = from_integer(stored, "srgb")
    assert linear.dtype == np.float32
    np.testing.assert_allclose(linear, srgb_to_linear(stored / top), atol=1e-7)
    np.testing.assert_allclose(from_integer(stored, "linear"), stored / top, atol=1e-7)


@pytest.mark.parametrize("transfer", ["srgb", "linear"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_stored_integers_become_the_nearest_floats_in_any_shape_and_layout(dtype, transfer):
    top = np.iinfo(dtype).max
    values = np.arange(top + 1) / top
    nearest = (srgb_to_linear(values) if transfer == "srgb" else values).astype(np.float32)
    every = np.arange(top + 1).astype(dtype)
    square = every.reshape(-1, 16, 4)
    for stored in (every, square, square[::-1, :, ::2], square.T, every[:0]):
        found = from_integer(stored, transfer)
        assert found.shape == stored.shape
        np.testing.assert_array_equal(found, nearest[stored])


def test_eight_bits_survive_the_way_to_linear_and_back():
    stored = np.arange(256, dtype=np.uint8).reshape(16, 16)
    np.testing.assert_array_equal(to_srgb8(from_integer(stored, "srgb")), stored)


@pytest.mark.parametrize("dtype", [np.float32, np.int16, bool])
def test_pixels_that_are_not_stored_integers_are_refused(dtype):
    with pytest.raises(ValueError, match="uint8 or uint16 needed"):
        from_integer(np.zeros((2, 2), dtype), "srgb")


def test_an_unknown_transfer_function_is_refused_by_name():
    with pytest.raises(ValueError, match=r"'gamma2\.2' is unknown"):
        from_integer(np.zeros((2, 2), np.uint8), "gamma2.2")


def test_white_has_luminance_one():
    assert sum(LUMINANCE) == pytest.approx(1)
