"""Lights read from the text of a meta.json are those that parsing all of it gives."""

import json
from dataclasses import replace

import pytest

from relightx.metatext import light_record, split_meta
from relightx.sample import decode, encode

HOSTILE = (
    "lamp",
    '"}, {"direction": null, "name": "other',
    '}], "provenance": {',
    '}], "pose_deg": [',
    "\\",
    'end of text\\"',
    "Lämpchen é 灯 \n",
    '"direction"',
    '"sh"',
)


@pytest.fixture(params=[None, (20.0, -5.5, 0.25)], ids=["no pose", "pose"])
def written(make_portrait, request) -> bytes:
    """The meta.json of a portrait whose lights have names that look like its text."""
    portrait = make_portrait(lights=len(HOSTILE))
    named = replace(portrait, light_name=HOSTILE, pose_deg=request.param)
    return encode(named)["meta.json"]


def parsed_apart(data: bytes) -> dict:
    rest, lights = split_meta(data)
    return {**rest, "lights": [light_record(light) for light in lights]}


def test_what_is_cut_is_what_was_written(written):
    assert parsed_apart(written) == json.loads(written)
    assert all(isinstance(light, bytes) for light in split_meta(written)[1])


def test_names_that_look_like_text_come_back(make_portrait):
    portrait = replace(make_portrait(lights=len(HOSTILE)), light_name=HOSTILE)
    chosen = [5, 1, 3]
    decoded = decode(portrait.key, encode(portrait), chosen)
    assert decoded.light_name == tuple(HOSTILE[index] for index in chosen)


def test_lights_without_light_labels_are_cut_too(make_portrait):
    portrait = make_portrait(lights=3)
    bare = replace(
        portrait, sh=None, direction=None, provenance=replace(portrait.provenance, light="absent")
    )
    data = encode(bare)["meta.json"]
    assert parsed_apart(data) == json.loads(data)
    decoded = decode(bare.key, encode(bare), [1])
    assert decoded.sh is None and decoded.direction is None


@pytest.mark.parametrize(
    "change",
    [
        lambda meta: json.dumps(meta),
        lambda meta: json.dumps(meta, indent=1),
        lambda meta: json.dumps(meta, separators=(",", ":"), sort_keys=True),
        lambda meta: json.dumps(meta, sort_keys=True, ensure_ascii=False),
        lambda meta: json.dumps({**meta, "more": [{"direction": 1}]}, sort_keys=True),
        lambda meta: json.dumps({**meta, "lights": []}, sort_keys=True),
        lambda meta: json.dumps(
            {
                **meta,
                "lights": [{**light, "of": [{}, {"direction": 2}]} for light in meta["lights"]],
            },
            sort_keys=True,
        ),
    ],
    ids=["unsorted", "indented", "tight", "unicode", "more", "no lights", "nested"],
)
def test_text_of_another_writer_gives_the_same(written, change):
    data = change(dict(reversed(json.loads(written).items()))).encode()
    assert parsed_apart(data) == json.loads(data)


@pytest.mark.parametrize("cut", range(0, 2000, 97))
def test_text_cut_short_is_refused(written, cut):
    with pytest.raises((ValueError, KeyError, TypeError)):
        parsed_apart(written[:cut])


def test_a_wanted_light_that_is_damaged_is_refused_with_its_portrait(portrait):
    members = encode(portrait)
    members["meta.json"] = members["meta.json"].replace(b'"sh": [[', b'"sh": [x', 1)
    assert decode(portrait.key, members, [1]).num_lights == 1
    with pytest.raises(ValueError, match=r"portrait 'ball': meta.json cannot be used"):
        decode(portrait.key, members, [0])
