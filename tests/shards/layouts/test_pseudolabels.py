import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from relightx.codec import encode_png
from relightx.sample import Portrait, check, encode
from shards.layouts.pseudolabels import (
    Pseudolabels,
    labelled_keys,
    open_pseudolabels,
    with_pseudolabels,
)


def write_labels(directory: Path, portrait: Portrait, confidence: float = 1.0) -> None:
    """A portrait's labels as the folder holds them."""
    directory.mkdir(parents=True, exist_ok=True)
    for ending, data in encode(portrait).items():
        if not ending.startswith(("light", "meta")):
            (directory / f"{portrait.key}.{ending}").write_bytes(data)
    light = {"sh": portrait.sh[0].tolist(), "confidence": confidence}
    (directory / f"{portrait.key}.light.json").write_text(json.dumps(light))


def finish(directory: Path, **changes: object) -> None:
    summary = {"version": 1, "model": "net 3", "portraits": 1} | changes
    (directory / "pseudolabels.json").write_text(json.dumps(summary))


def bare(portrait: Portrait) -> Portrait:
    """The photograph alone."""
    provenance = replace(portrait.provenance, albedo="absent", normal="absent", light="absent")
    labels = dict.fromkeys(("albedo", "normal", "mask", "confidence", "sh", "direction"))
    return replace(portrait, provenance=provenance, **labels)


@pytest.fixture
def truth(make_portrait: Callable[..., Portrait]) -> Portrait:
    portrait = make_portrait(lights=1, size=16)
    ramp = np.linspace(0, 1, 256, dtype=np.float32).reshape(16, 16)
    return replace(portrait, key="celeba_000001", confidence=ramp)


@pytest.fixture
def labels(tmp_path: Path, truth: Portrait) -> Pseudolabels:
    write_labels(tmp_path / "labels", truth)
    finish(tmp_path / "labels")
    return open_pseudolabels(tmp_path / "labels")


def test_labels_come_back_as_they_were_written(labels, truth):
    found = with_pseudolabels(bare(truth), labels)
    check(found)
    np.testing.assert_array_equal(found.image, truth.image)
    np.testing.assert_array_equal(found.mask, truth.mask)
    np.testing.assert_allclose(found.albedo, truth.albedo, atol=1e-5)
    np.testing.assert_allclose(found.normal, truth.normal, atol=1e-4)
    np.testing.assert_allclose(found.confidence, truth.confidence, atol=1e-6)
    np.testing.assert_allclose(found.sh, truth.sh, rtol=1e-6)
    given = found.provenance
    assert (given.albedo, given.normal, given.light) == ("pseudo",) * 3
    assert given.crop == "none; labels by net 3"


@pytest.mark.parametrize(("stated", "expected"), [(1.0, None), (0.25, 0.25)])
def test_the_confidence_of_the_portrait_holds_where_no_picture_tells(
    labels, truth, stated, expected
):
    write_labels(labels.directory, replace(truth, confidence=None, mask=None), stated)
    for ending in ("mask", "confidence"):
        (labels.directory / f"celeba_000001.{ending}.png").unlink()
    found = with_pseudolabels(bare(truth), labels)
    assert found.mask is None
    assert found.confidence is None if expected is None else (found.confidence == expected).all()


@pytest.mark.parametrize("ending", ["albedo.png", "normal.png", "light.json"])
def test_labels_of_which_a_part_is_missing_are_refused(labels, truth, ending):
    (labels.directory / f"celeba_000001.{ending}").unlink()
    with pytest.raises(ValueError, match=f"celeba_000001.{ending}: is missing"):
        with_pseudolabels(bare(truth), labels)


@pytest.mark.parametrize("name", ["albedo", "normal", "mask", "confidence"])
def test_labels_of_another_size_are_refused(labels, truth, name):
    channels, dtype = (3, np.uint16) if name in ("albedo", "normal") else (1, np.uint8)
    file = labels.directory / f"celeba_000001.{name}.png"
    file.write_bytes(encode_png(np.zeros((8, 16, channels), dtype)))
    with pytest.raises(
        ValueError, match=rf"{name}.png: is 16x8 .*, the picture 16x16.*very pictures"
    ):
        with_pseudolabels(bare(truth), labels)


@pytest.mark.parametrize(
    ("name", "needed"),
    [("albedo", "16-bit RGB"), ("normal", "16-bit RGB"), ("mask", "8-bit gray")],
)
def test_labels_of_another_kind_are_refused(labels, truth, name, needed):
    channels, dtype = (3, np.uint16) if name == "mask" else (3, np.uint8)
    file = labels.directory / f"celeba_000001.{name}.png"
    file.write_bytes(encode_png(np.zeros((16, 16, channels), dtype)))
    with pytest.raises(ValueError, match=rf"{name}.png: is 16x16 .*; {needed} needed"):
        with_pseudolabels(bare(truth), labels)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"sh": [[1, 2]], "confidence": 1}', r"sh is \(1, 2\)"),
        ('{"sh": [[1, 2], [3]], "confidence": 1}', "cannot be read"),
        (json.dumps({"sh": [[float("nan")] * 9] * 3, "confidence": 1}), "finite"),
        (json.dumps({"sh": [[0.5] * 9] * 3, "confidence": 1.5}), "confidence is 1.5"),
        (json.dumps({"sh": [[0.5] * 9] * 3, "confidence": float("nan")}), "confidence is nan"),
        (json.dumps({"sh": [[0.5] * 9] * 3}), "cannot be read: KeyError"),
        ("[]", "is no JSON object"),
        ('{"sh": ', "cannot be read as JSON"),
        ("[" * 100_000, "cannot be read as JSON"),
        (" " * 2_000_000, "longer than 1048576 bytes"),
    ],
)
def test_a_broken_light_is_refused(labels, truth, content, message):
    (labels.directory / "celeba_000001.light.json").write_text(content)
    with pytest.raises(ValueError, match=rf"celeba_000001.light.json: .*{message}"):
        with_pseudolabels(bare(truth), labels)


def test_a_folder_that_was_not_finished_is_refused(tmp_path, truth):
    write_labels(tmp_path, truth)
    with pytest.raises(ValueError, match=r"pseudolabels.json: is missing; .* was interrupted"):
        open_pseudolabels(tmp_path)
    finish(tmp_path, version=2)
    with pytest.raises(ValueError, match="version 2, this program reads 1"):
        open_pseudolabels(tmp_path)


def test_keys_are_labelled_when_the_folder_has_any_file_of_them(labels):
    (labels.directory / "celeba_000002.albedo.png").write_bytes(b"")
    keys = ["celeba_000001", "celeba_000002", "celeba_000003"]
    assert labelled_keys(labels, keys) == {"celeba_000001", "celeba_000002"}


def test_labels_of_other_portraits_alone_are_refused(labels):
    with pytest.raises(ValueError, match=r"none of the portraits \(it has celeba_000001\)"):
        labelled_keys(labels, ["anna_smile"])
