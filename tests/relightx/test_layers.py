"""Layers of a portrait: stored beside its labels, found by name, passed over by all readers."""

import json
from dataclasses import replace

import numpy as np
import pytest

from relightx.layers import PARTS, decode_layer
from relightx.sample import decode, encode


@pytest.fixture
def layered(portrait):
    rng = np.random.default_rng(0)
    size = portrait.image.shape[1:3]
    layers = {
        "depth": rng.uniform(0, 20, (*size, 1)).astype(np.float32),
        "light000.specular": rng.uniform(0, 0.03, (*size, 3)).astype(np.float32),
        "eye": np.zeros((*size, 1), np.float32),
        "parts": rng.integers(0, len(PARTS), (*size, 1)).astype(np.uint8),
    }
    return replace(portrait, layers=layers)


def test_a_layer_comes_back_to_sixteen_bits_of_its_range(layered):
    members = encode(layered)
    for name, values in layered.layers.items():
        found = decode_layer(members, name)
        assert found.shape == values.shape and found.dtype == values.dtype
        np.testing.assert_allclose(found, values, atol=max(values.max(), 1e-3) / 65535)


def test_classes_come_back_as_the_numbers_they_are_with_their_names(layered):
    members = encode(layered)
    np.testing.assert_array_equal(decode_layer(members, "parts"), layered.layers["parts"])
    meta = json.loads(members["meta.json"])
    assert meta["vocabulary"] == {"parts": list(PARTS)} and PARTS[0] == "background"
    assert "parts" not in meta["scales"]
    alone = encode(replace(layered, layers={"parts": layered.layers["parts"]}))
    assert "scales" not in json.loads(alone["meta.json"])
    assert decode(layered.key, members).num_lights == layered.num_lights


def test_classes_without_a_name_are_refused(layered):
    parts = layered.layers["parts"]
    for layer, values in {
        "parts": np.full_like(parts, len(PARTS)),
        "depth": parts,
    }.items():
        with pytest.raises(ValueError, match=f"layer '{layer}' has classes up to"):
            encode(replace(layered, layers={layer: values}))
    with pytest.raises(ValueError, match="in 3 channels"):
        encode(replace(layered, layers={"parts": parts.repeat(3, axis=2)}))


def test_readers_of_portraits_pass_over_layers(layered):
    members = encode(layered)
    plain = encode(replace(layered, layers={}))
    assert set(members) - set(plain) == {f"{name}.png" for name in layered.layers}
    stored = decode(layered.key, members)
    assert not stored.layers
    np.testing.assert_array_equal(stored.albedo, decode(layered.key, plain).albedo)
    np.testing.assert_array_equal(stored.image, layered.image)


def test_what_is_no_layer_is_refused(layered):
    members = encode(layered)
    with pytest.raises(ValueError, match=r"no layer 'height'; the portrait has \['depth', 'eye'"):
        decode_layer(members, "height")
    dark = {"depth": layered.layers["depth"] - 30}
    with pytest.raises(ValueError, match="a layer has values from -29"):
        encode(replace(layered, layers=dark))
    misnamed = replace(layered, layers={"Depth": layered.layers["depth"]})
    with pytest.raises(ValueError, match=r"layer 'Depth' has shape \(32, 32, 1\), or a bad name"):
        encode(misnamed)
