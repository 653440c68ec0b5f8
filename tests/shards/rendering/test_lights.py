import json

import cv2
import numpy as np
import pytest
import torch

from relightx.color import LUMINANCE
from relightx.sh import environment_light, shade
from shards.rendering.environments import read_environments, shipped_environments
from shards.rendering.lights import EXPOSURE, exposed, random_light, rotation


def face(seed: int, reflectance: float) -> tuple[np.ndarray, np.ndarray]:
    """Even albedo on normals spread over the hemisphere toward the camera."""
    rng = np.random.default_rng(seed)
    normal = rng.normal(size=(4000, 3))
    normal[:, 2] = np.abs(normal[:, 2])
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    return np.full((4000, 3), reflectance), normal


def test_there_are_fourteen_environments_of_mean_luminance_one():
    environments = shipped_environments()
    assert len(environments) == 14
    for sh in environments.values():
        mean_radiance = sh[:, 0] / np.sqrt(4 * np.pi)
        assert mean_radiance @ np.array(LUMINANCE) == pytest.approx(1, abs=1e-3)


def test_environments_name_their_source_and_licence():
    from shards.rendering import environments

    content = json.loads(environments._SHIPPED.read_text(encoding="utf-8"))
    assert "Poly Haven" in content["source"]
    assert content["licence"].startswith("CC0 1.0")


@pytest.mark.parametrize("reflectance", [0.03, 0.1, 0.3, 0.6])
def test_faces_of_any_reflectance_are_well_exposed(reflectance):
    albedo, normal = face(0, reflectance)
    rng = np.random.default_rng(1)
    environments = shipped_environments()
    sh = np.stack([random_light(rng, environments).sh for _ in range(100)])
    scaled, image = exposed(rng, sh, albedo, normal)
    mean = (image @ np.array(LUMINANCE)).mean(axis=1)
    assert (mean <= EXPOSURE[1] * 1.001).all()
    assert np.mean(mean >= EXPOSURE[0] * 0.999) > 0.8
    assert (image > 1).mean() <= 0.01
    assert scaled.shape == sh.shape


def test_exposure_scales_each_light_and_nothing_else():
    albedo, normal = face(2, 0.3)
    rng = np.random.default_rng(3)
    sh = np.stack([random_light(rng, shipped_environments()).sh for _ in range(10)])
    scaled, image = exposed(rng, sh, albedo, normal)
    gain = scaled / sh
    assert np.ptp(gain.reshape(10, -1), axis=1).max() < 1e-3
    column = torch.from_numpy(normal.T[:, :, None].astype(np.float32))
    shading = shade(column[None], torch.from_numpy(scaled))[..., 0].numpy().transpose(0, 2, 1)
    np.testing.assert_allclose(image, albedo * np.maximum(shading, 0), atol=2e-5)


def test_light_never_turns_much_below_zero_and_varies():
    rng = np.random.default_rng(4)
    lights = [random_light(rng, shipped_environments()) for _ in range(200)]
    normal = torch.nn.functional.normalize(torch.randn(500, 3), dim=-1).T[:, :, None]
    sh = torch.from_numpy(np.stack([light.sh for light in lights]))
    shading = shade(normal[None], sh)[..., 0]
    relative = shading / shading.mean(dim=-1, keepdim=True)
    assert (relative < 0).float().mean() < 0.02
    names = {light.name.split()[0] for light in lights}
    assert names == {"environment", "lamps"}
    spread = torch.stack([s.amax() / s.mean() for s in shading])
    assert spread.min() < 1.6 and spread.max() > 2.2


def test_without_environments_there_are_lamps():
    rng = np.random.default_rng(5)
    assert all(random_light(rng, {}).name.startswith("lamps") for _ in range(20))


def test_a_rotation_is_orthogonal_and_yaw_turns_the_face_to_the_right():
    turn = rotation(0.3, 0.2, 0.1)
    np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(turn) == pytest.approx(1)
    assert (rotation(0.3, 0.0, 0.0) @ [0, 0, 1])[0] > 0
    assert (rotation(0.0, -0.3, 0.0) @ [0, 0, 1])[1] > 0


@pytest.mark.parametrize("ending", [".hdr", ".exr"])
def test_a_folder_of_maps_is_read(tmp_path, ending):
    rng = np.random.default_rng(6)
    radiance = rng.uniform(0.5, 1.5, (16, 32, 3)).astype(np.float32)
    radiance[:, :6] *= 8
    import os

    os.environ.setdefault("OPENCV_IO_ENABLE_OPENEXR", "1")
    assert cv2.imwrite(str(tmp_path / f"room{ending}"), radiance[..., ::-1])
    environments = read_environments(tmp_path)
    expected = environment_light(torch.from_numpy(radiance.transpose(2, 0, 1).copy())).numpy()
    found = environments["room"]
    scale = expected[:, 0].sum() / found[:, 0].sum()
    np.testing.assert_allclose(found * scale, expected, rtol=0.03, atol=0.05)


def test_a_folder_without_maps_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"no .hdr or .exr"):
        read_environments(tmp_path)
    with pytest.raises(ValueError, match="no such folder"):
        read_environments(tmp_path / "absent")


def test_a_map_that_is_broken_or_not_floating_point_is_refused_by_name(tmp_path):
    (tmp_path / "broken.hdr").write_bytes(b"#?RADIANCE\nnot a map")
    with pytest.raises(ValueError, match=r"broken\.hdr"):
        read_environments(tmp_path)


def test_a_map_of_another_shape_is_refused(tmp_path):
    cv2.imwrite(str(tmp_path / "square.hdr"), np.ones((8, 8, 3), np.float32))
    with pytest.raises(ValueError, match="2:1"):
        read_environments(tmp_path)


def test_a_dark_map_is_refused(tmp_path):
    cv2.imwrite(str(tmp_path / "night.hdr"), np.zeros((8, 16, 3), np.float32))
    with pytest.raises(ValueError, match="light is needed"):
        read_environments(tmp_path)
