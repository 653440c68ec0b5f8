import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relightx.pose import pose_of, turn_of

AHEAD, CROWN = np.array([0, 0, 1.0]), np.array([0, 1.0, 0])


def test_each_angle_turns_the_head_as_it_is_said():
    assert pose_of(np.eye(3)) == (0, 0, 0)
    np.testing.assert_allclose(turn_of((30.0, 0.0, 0.0)) @ AHEAD, (0.5, 0, np.sqrt(0.75)))  # right
    np.testing.assert_allclose(turn_of((0.0, 30.0, 0.0)) @ AHEAD, (0, 0.5, np.sqrt(0.75)))  # up
    np.testing.assert_allclose(turn_of((0.0, 0.0, 30.0)) @ CROWN, (-0.5, np.sqrt(0.75), 0))  # left
    yaw, pitch = np.radians((25, -10))
    expected = np.sin(yaw) * np.cos(pitch), np.sin(pitch), np.cos(yaw) * np.cos(pitch)
    np.testing.assert_allclose(turn_of((25.0, -10.0, 40.0)) @ AHEAD, expected)


@given(st.floats(-179, 179), st.floats(-89, 89), st.floats(-179, 179))
def test_a_pose_is_read_off_its_rotation(yaw, pitch, roll):
    turn = turn_of((yaw, pitch, roll))
    np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(turn) == pytest.approx(1)
    assert pose_of(turn) == pytest.approx((yaw, pitch, roll), abs=1e-6)
