import numpy as np
import pytest
from mesh_scene import ball

from shards.rendering.render import (
    Camera,
    average_samples,
    project,
    rasterise,
    vertex_normals,
    view_directions,
)
from shards.rendering.subdivision import Subdivision

SIZE = 96
CAMERA = Camera(distance=6.0, scale=30.0, centre=(SIZE / 2, SIZE / 2))


def hits() -> tuple[np.ndarray, np.ndarray]:
    """Where the rays through the pixel centres meet the unit sphere, from the quadratic formula."""
    toward = -view_directions(CAMERA, SIZE)
    origin = np.array([0, 0, CAMERA.distance])
    along = toward @ origin
    root = along**2 - (origin @ origin - 1)
    point = origin + (-along - np.sqrt(np.maximum(root, 0)))[..., None] * toward
    return point, root


def test_a_sphere_has_analytic_normals_and_silhouette():
    vertices, triangles = ball()
    seen = rasterise(project(vertices, CAMERA), triangles, SIZE, SIZE)
    normal = seen.interpolate(vertex_normals(vertices, triangles), triangles)
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    point, root = hits()
    covered = np.zeros(SIZE * SIZE, bool)
    covered[seen.pixel] = True
    clear = np.abs(root.ravel()) > 0.05
    assert (covered == (root.ravel() > 0))[clear].all()
    expected = point.reshape(-1, 3)[seen.pixel]
    inner = root.ravel()[seen.pixel] > 0.05
    cosine = (normal * expected).sum(axis=1)[inner]
    assert np.degrees(np.arccos(np.clip(cosine, -1, 1))).max() < 1.0


def test_right_is_plus_x_and_up_is_plus_y():
    vertices, triangles = ball()
    seen = rasterise(project(vertices, CAMERA), triangles, SIZE, SIZE)
    place = seen.interpolate(vertices, triangles)
    row, column = np.divmod(seen.pixel, SIZE)
    assert (place[column > SIZE / 2 + 1, 0] > 0).all()
    assert (place[row < SIZE / 2 - 1, 1] > 0).all()
    assert (place[:, 2] > 0).all()


def test_the_nearer_triangle_hides_the_farther_in_any_order():
    square = np.array([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]], float)
    vertices = np.concatenate((square, square * 0.5 + [0, 0, 1]))
    pair = np.array([[0, 1, 2], [0, 2, 3]])
    for triangles in (np.concatenate((pair, pair + 4)), np.concatenate((pair + 4, pair))):
        seen = rasterise(project(vertices, CAMERA), triangles, SIZE, SIZE)
        depth = np.full(SIZE * SIZE, np.nan)
        depth[seen.pixel] = seen.interpolate(vertices, triangles)[:, 2]
        picture = depth.reshape(SIZE, SIZE)
        assert picture[SIZE // 2, SIZE // 2] == pytest.approx(1)
        assert picture[SIZE // 2, SIZE // 2 + 25] == pytest.approx(0, abs=1e-6)


def test_interpolation_is_perspective_correct():
    # A plane that recedes: what is seen at a pixel lies on the ray through it.
    vertices = np.array([[-1, -1, 1], [1, -1, -3], [1, 1, -3], [-1, 1, 1]], float)
    triangles = np.array([[0, 1, 2], [0, 2, 3]])
    seen = rasterise(project(vertices, CAMERA), triangles, SIZE, SIZE)
    place = seen.interpolate(vertices, triangles)
    ray = np.array([0, 0, CAMERA.distance]) - place
    ray /= np.linalg.norm(ray, axis=1, keepdims=True)
    view = view_directions(CAMERA, SIZE).reshape(-1, 3)[seen.pixel]
    assert len(seen.pixel) > 500
    np.testing.assert_allclose(ray, view, atol=1e-5)


def test_back_faces_and_what_is_outside_the_picture_are_not_drawn():
    vertices = np.array([[-9, -9, 0], [9, -9, 0], [0, 9, 0]], float)
    turned = rasterise(project(vertices, CAMERA), np.array([[0, 2, 1]]), SIZE, SIZE)
    whole = rasterise(project(vertices, CAMERA), np.array([[0, 1, 2]]), SIZE, SIZE)
    assert len(turned.pixel) == 0
    assert len(np.unique(whole.pixel)) == len(whole.pixel) == SIZE * SIZE


def test_neighbouring_triangles_leave_no_gap():
    rng = np.random.default_rng(0)
    steps = np.linspace(-1, 1, 40)
    x, y = np.meshgrid(steps, steps)
    inner = (np.abs(x) < 0.99) & (np.abs(y) < 0.99)
    jitter = rng.uniform(-0.02, 0.02, (2, *x.shape)) * inner
    vertices = np.stack((x + jitter[0], y + jitter[1], np.zeros_like(x)), -1).reshape(-1, 3)
    first = (np.arange(39)[:, None] * 40 + np.arange(39)).ravel()
    quads = np.stack((first, first + 1, first + 41, first + 40), axis=1)
    triangles = quads[:, [[0, 1, 2], [0, 2, 3]]].reshape(-1, 3)
    for dtype in (np.float32, np.float64):
        seen = rasterise(project(vertices.astype(dtype), CAMERA), triangles, SIZE, SIZE)
        row, column = np.divmod(seen.pixel, SIZE)
        assert len(seen.pixel) == (np.ptp(row) + 1) * (np.ptp(column) + 1) >= 3500


def test_a_vertex_behind_the_camera_is_refused():
    with pytest.raises(ValueError, match="positive depth"):
        project(np.array([[0, 0, 7.0]]), CAMERA)


def test_samples_are_averaged_over_what_they_cover():
    pixel = np.array([0, 1, 4, 10])  # three samples of the first pixel, one of the last
    values = np.array([[1.0], [2.0], [6.0], [5.0]])
    mean, mask = average_samples(values, pixel, size=2, samples=2)
    assert mask.tolist() == [[True, False], [False, False]]
    assert mean[0, 0, 0] == pytest.approx(3)
    assert mean[1, 1, 0] == pytest.approx(5)


def test_subdivision_keeps_flat_grids_flat_and_sums_to_one():
    quads = np.array([[0, 1, 4, 3], [1, 2, 5, 4], [3, 4, 7, 6], [4, 5, 8, 7]])
    grid = np.array([[x, y, 0.0] for y in range(3) for x in range(3)])
    refine = Subdivision(quads, 9)
    refined = refine(grid)
    assert len(refine.quads) == 16 and refine.quads.max() + 1 == len(refined) == 25
    np.testing.assert_allclose(refine(np.ones((9, 1))), 1, atol=1e-6)
    np.testing.assert_allclose(refined[4], [1, 1, 0], atol=1e-6)
    edge = refined[np.roll(refine.quads, -1, axis=1)] - refined[refine.quads]
    turn = np.cross(edge[:, 0], edge[:, 1])
    assert (turn[:, 2] > 0).all()
