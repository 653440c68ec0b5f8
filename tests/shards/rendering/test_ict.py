"""Heads of the ICT face model: read as published, and dressed by MakeHuman's template places."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from explained import rendered

pytest.importorskip("anny", reason="the extra `synthetic` is not installed")

from relightx.color import linear_to_srgb
from relightx.sample import encode
from shards.cli import main
from shards.rendering import ict
from shards.rendering.heads import random_person
from shards.rendering.skin import EYE_CENTRE
from shards.rendering.surface import makehuman_surface
from shards.rendering.synthetic import synthetic_jobs, synthetic_one

ARRAYS = Path(__file__).parents[4] / "shared/data/ict_facekit/ict_face_model_light.npz"
with_model = pytest.mark.skipif(not ARRAYS.is_file(), reason="needs the ICT face model")
NUM_VERTICES, NUM_IDENTITIES = 26719, 100


@pytest.fixture(scope="module")
def surface():
    return ict.ict_surface(ARRAYS)


@pytest.fixture(scope="module")
def portraits():
    return [synthetic_one(head, lights=2, size=96, seed=2, shapes=ARRAYS) for head in range(4)]


@with_model
def test_template_places_agree_with_those_of_makehuman(surface):
    """Within some millimetres: lips, nose, chin and ears, which colour and gloss are painted by."""
    known = makehuman_surface()

    def outline(kind, column):
        part = kind.template[(kind.weights[:, column] > 0.5) & (kind.template[:, 0] > 0)]
        return np.concatenate((part.min(axis=0)[1:], part.max(axis=0)))

    lips = outline(surface, 0) - outline(known, 0)
    assert np.abs(lips[[1, 3]]).max() < 0.05 and np.abs(lips).max() < 0.08
    assert np.abs(outline(surface, 1) - outline(known, 1)).max() < 0.1

    def tip(kind):
        front = np.flatnonzero(np.abs(kind.template[: len(kind.template) // 2, 0]) < 0.05)
        return kind.template[front[np.argmax(kind.template[front, 2])]]

    assert np.abs(tip(surface) - tip(known))[1:].max() < 0.05
    for chosen in ("chin", "hairline"):
        places = (kind.template[getattr(kind, chosen)] for kind in (surface, known))
        assert np.linalg.norm(np.subtract(*places)) < 0.08


@with_model
def test_eyes_come_last_and_are_balls_in_their_places(surface):
    eyes = np.unique(surface.triangles[surface.first_eye :])
    left = surface.template[eyes][surface.template[eyes, 0] > 0]
    distance = np.linalg.norm(left - EYE_CENTRE, axis=1)
    assert distance.max() - distance.min() < 1e-3
    others = np.unique(surface.triangles[: surface.first_eye])
    assert not set(others) & set(eyes)
    assert len(np.unique(surface.triangles)) == len(surface.template)


@with_model
def test_labels_explain_the_image(portraits):
    for portrait in portraits:
        expected = linear_to_srgb(rendered(portrait)) * 255
        assert np.abs(portrait.image - expected).max() <= 0.51
        assert "MIT (ICT-FaceKit)" in portrait.provenance.licence


@with_model
def test_a_head_is_the_same_in_any_run_and_differs_by_shape_alone(portraits):
    again = synthetic_one(3, lights=2, size=96, seed=2, shapes=ARRAYS)
    assert encode(again) == encode(portraits[3])
    other = synthetic_one(3, lights=2, size=96, seed=2)
    assert other.light_name == again.light_name
    both = other.mask & again.mask
    assert 0.7 < both.sum() / other.mask.sum() <= 1
    colours = [np.median(portrait.albedo[both], axis=0) for portrait in (other, again)]
    np.testing.assert_allclose(*colours, rtol=0.15)  # as dark, whoever it is
    angle = np.degrees(np.arccos(np.clip((other.normal * again.normal).sum(-1)[both], -1, 1)))
    assert 8 < angle.mean() < 45


@with_model
def test_identities_spread_as_the_scans_did(surface):
    """5 to 6 mm over the whole model; more where there is no eye or tooth."""
    rng, people = np.random.default_rng(0), []
    person = random_person(rng)
    for _ in range(40):
        weights = {k: v for k, v in ict.random_features(rng).items() if k.startswith("identity")}
        people.append(surface.vertices_of(replace(person, features=weights)))
    spread = np.sqrt(np.var(people, axis=0).sum(axis=1).mean())
    assert 0.05 < spread < 0.08


@with_model
def test_the_published_folder_gives_the_same_model(tmp_path):
    arrays = np.load(ARRAYS)
    neutral = arrays["neutral"].astype(np.float64)
    faces = ["f " + " ".join(f"{c + 1}/{c + 1}/{c + 1}" for c in quad) for quad in arrays["faces"]]

    def write(name: str, vertices: np.ndarray, *lines: str) -> None:
        rows = [f"v {x:.5f} {y:.5f} {z:.5f}" for x, y, z in vertices.tolist()]
        (tmp_path / f"{name}.obj").write_text("\n".join([*rows, "vn 0 0 1", *lines]))

    write("generic_neutral_mesh", neutral, *faces)
    kept, stem = {}, "browInnerUp_L"  # the same file again and again: writing takes time
    for number in (0, 99):
        kept[f"identity{number:03d}"] = arrays["identity_modes"][number]
    kept[stem] = arrays["expression_modes"][list(arrays["expression_names"]).index(stem)]
    for name, offsets in kept.items():
        write(name, neutral + offsets)
    others = [f"identity{number:03d}" for number in range(1, 99)]
    for name in {*others, *map(str, arrays["expression_names"])} - set(kept):
        (tmp_path / f"{name}.obj").hardlink_to(tmp_path / f"{stem}.obj")
    published, packed = ict.read_model(tmp_path), ict.read_model(ARRAYS)
    np.testing.assert_allclose(published.neutral, packed.neutral, atol=1e-5)
    np.testing.assert_array_equal(published.quads, packed.quads)
    for name in kept:
        rows = (model.modes[model.names.index(name)] for model in (published, packed))
        np.testing.assert_allclose(*rows, atol=1e-5)
    (tmp_path / "identity050.obj").unlink()
    with pytest.raises(ValueError, match=r"not the ICT face model.*identity050\.obj.*FaceXModel"):
        ict.read_model(tmp_path)


def fake(path: Path, **changed) -> Path:
    arrays = {
        "neutral": np.zeros((NUM_VERTICES, 3), np.float32),
        "faces": np.zeros((26384, 4), np.int32),
        "identity_modes": np.zeros((NUM_IDENTITIES, NUM_VERTICES, 3), np.float16),
        "expression_modes": np.zeros((1, NUM_VERTICES, 3), np.float16),
        "expression_names": np.array(["jawOpen"]),
    } | changed
    np.savez_compressed(path, **{name: values for name, values in arrays.items() if len(values)})
    return path


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({}, "no expression browDown_L"),
        ({"neutral": np.zeros((8, 3))}, "8 vertices and 100 identities"),
        ({"faces": np.zeros(0)}, "not the ICT face model.*faces"),
        ({"expression_names": np.array([{}])}, "not the ICT face model.*pickle"),
    ],
)
def test_what_is_not_the_model_is_refused_before_any_head(tmp_path, changed, said):
    file = fake(tmp_path / "model.npz", **changed)
    with pytest.raises(ValueError, match=said):
        synthetic_jobs(heads=2, shapes=file)


def test_the_command_says_what_is_no_model(tmp_path, capsys):
    (tmp_path / "model.npz").write_bytes(b"no arrays")
    out, place = ["--out", str(tmp_path / "out")], ["--shapes", str(tmp_path / "model.npz")]
    assert main(["build", "synthetic", "--heads", "1", *place, *out]) == 2
    assert "not the ICT face model" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
