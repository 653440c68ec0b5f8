import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest
from index_edit import change_columns, change_contents, change_shards

from relightx.index import read_index
from relightx.sample import encode, without_labels
from shards.looking.verify import verify
from shards.splits import hash_split
from shards.write import Packed, write_dataset, write_split

THIRDS = hash_split({"train": 0.4, "val": 0.3, "test": 0.3})


@pytest.fixture
def dataset(make_portrait, tmp_path):
    balls = [make_portrait(f"ball{i:02d}", f"person{i}", seed=i, size=16) for i in range(12)]
    write_dataset(balls, tmp_path / "d", THIRDS, 20_000)
    return tmp_path / "d"


def first_shard(dataset):
    return dataset / "train" / "shard-000000.tar"


def rewrite_index(split):
    """Give the index of a split the sizes and hashes that its shards now have."""

    def now(shard):
        data = (split / shard.name).read_bytes()
        return replace(shard, bytes=len(data), sha256=hashlib.sha256(data).hexdigest())

    change_shards(split, now)


def packed_with(portrait, **members):
    """A packed portrait some of whose members are replaced."""
    changed = {name.replace("_", "."): data for name, data in members.items()}
    return Packed(portrait.key, portrait.subject, portrait.num_lights, encode(portrait) | changed)


def verify_one(packed, tmp_path):
    write_split([packed], tmp_path / "one", "train")
    return verify(tmp_path / "one").faults


@pytest.mark.parametrize("workers", [1, 2])
def test_a_fresh_data_set_has_no_fault(dataset, workers):
    report = verify(dataset, workers)
    assert report.passed and report.faults == ()
    assert report.groups == 12 and report.images == 36
    assert report.splits == ("train", "val", "test")


def test_a_single_split_can_be_verified(dataset):
    assert verify(dataset / "val").passed


def test_progress_counts_portraits(dataset):
    seen = []
    verify(dataset, progress=seen.append)
    assert seen == sorted(seen) and seen[-1] == 12


@pytest.mark.parametrize("blocks", [0, 1, 2, 7, 12, 20])
def test_a_shard_cut_at_a_block_is_found(dataset, blocks):
    shard = first_shard(dataset)
    shard.write_bytes(shard.read_bytes()[: blocks * 512])
    faults = verify(dataset).faults
    assert any("bytes, the index says" in fault.message for fault in faults)
    assert {fault.shard for fault in faults} == {"train/shard-000000.tar"}


def test_a_cut_that_the_index_agrees_with_is_found_in_the_tar(dataset):
    """Cut where a member begins: plain readers see a shorter archive and no error."""
    shard = first_shard(dataset)
    last = read_index(dataset / "train").shards[0].groups[-1]
    offset, _ = last.members["normal.png"]
    shard.write_bytes(shard.read_bytes()[: offset - 512])
    rewrite_index(dataset / "train")
    faults = verify(dataset).faults
    missing = {fault.member for fault in faults if "not in the tar" in fault.message}
    assert missing == {"normal.png", "mask.png", "meta.json"}
    assert {fault.key for fault in faults} == {last.key}


@pytest.mark.parametrize("share", [0.01, 0.3, 0.6, 0.99])
def test_a_flipped_byte_anywhere_is_found(dataset, share):
    shard = first_shard(dataset)
    data = bytearray(shard.read_bytes())
    data[int(share * len(data))] ^= 1
    shard.write_bytes(data)
    faults = verify(dataset).faults
    assert any("sha256" in fault.message and "train" in fault.shard for fault in faults)


def test_a_missing_shard_is_found(dataset):
    first_shard(dataset).unlink()
    faults = verify(dataset).faults
    assert [str(fault) for fault in faults] == ["train/shard-000000.tar: the file is missing"]


def test_a_file_that_is_not_in_the_index_is_found(dataset):
    (dataset / "val" / "shard-000099.tar").write_bytes(b"")
    assert "val/shard-000099.tar: is not in the index.json" in map(str, verify(dataset).faults)


def test_a_missing_index_is_found(dataset):
    (dataset / "val" / "index.json").unlink()
    faults = verify(dataset).faults
    assert [fault.shard for fault in faults] == ["val/index.json"]


@pytest.mark.parametrize("text", ["", "[]", '{"version": 99}', '{"version": 1, "shards": [1]}'])
def test_a_broken_index_is_found(dataset, text):
    (dataset / "val" / "index.json").write_text(text)
    assert any(fault.shard == "val/index.json" for fault in verify(dataset).faults)


def test_a_damaged_table_is_found(dataset):
    table = dataset / "val" / "groups.safetensors"
    data = table.read_bytes()
    table.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    (fault,) = verify(dataset).faults
    assert fault.shard == "val/groups.safetensors" and "its sha256 is" in fault.message
    table.write_bytes(data[:-1])
    (fault,) = verify(dataset).faults
    assert "groups.safetensors: has" in fault.message
    table.unlink()
    (fault,) = verify(dataset).faults
    assert "groups.safetensors: is missing" in fault.message


def test_a_table_with_a_row_that_cannot_be_is_found(dataset):
    def change(columns):
        columns["subject"][-1] = 99

    change_columns(dataset / "val", change)
    (fault,) = verify(dataset).faults
    assert fault.shard == "val/groups.safetensors" and "subject 99 of" in fault.message


def test_a_wrong_offset_is_found(dataset):
    def change(columns):
        columns["offset"][0] += 512

    change_columns(dataset / "train", change)
    faults = verify(dataset).faults
    assert any(fault.member == "light001.png" for fault in faults)


def test_a_light_that_the_index_lacks_is_found(dataset):
    def change(content):
        (layout,) = content["layouts"]
        layout[layout.index("light002.png")] = "light003.png"

    change_contents(dataset / "train", change)
    faults = verify(dataset).faults
    assert any(
        fault.member == "light002.png" and "has 3 lights" in fault.message for fault in faults
    )


def test_a_subject_in_two_splits_is_found(make_portrait, tmp_path):
    write_split([make_portrait("a", "anna")], tmp_path / "d" / "train", "train")
    write_split([make_portrait("b", "anna")], tmp_path / "d" / "val", "val")
    faults = verify(tmp_path / "d").faults
    assert [fault.shard for fault in faults] == ["val/index.json"]
    assert "'anna' is in train too" in faults[0].message


def test_a_key_in_two_splits_is_found(make_portrait, tmp_path):
    write_split([make_portrait("a", "anna")], tmp_path / "d" / "train", "train")
    write_split([make_portrait("a", "ben")], tmp_path / "d" / "val", "val")
    faults = verify(tmp_path / "d").faults
    assert [(fault.shard, fault.key) for fault in faults] == [("val/shard-000000.tar", "a")]


def test_normals_that_are_not_unit_length_are_found(portrait, make_portrait, tmp_path):
    flat = make_portrait().albedo  # values that are no directions
    other = encode(replace(portrait, albedo=flat))["albedo.png"]
    faults = verify_one(packed_with(portrait, normal_png=other), tmp_path)
    assert [fault.member for fault in faults] == ["normal.png"]
    assert faults[0].key == portrait.key


def test_albedo_of_eight_bits_is_found(portrait, tmp_path):
    gray = encode(portrait)["mask.png"]
    faults = verify_one(packed_with(portrait, albedo_png=gray), tmp_path)
    assert faults and all(fault.key == portrait.key for fault in faults)


def test_a_picture_that_does_not_decode_is_found(portrait, tmp_path):
    data = bytearray(encode(portrait)["light001.png"])
    data[len(data) // 2] ^= 255
    faults = verify_one(packed_with(portrait, light001_png=bytes(data)), tmp_path)
    assert [fault.key for fault in faults] == [portrait.key]
    assert "light001.png" in faults[0].message


def test_an_empty_mask_is_found(portrait, tmp_path):
    black = replace(portrait, mask=np.zeros_like(portrait.mask))
    faults = verify_one(packed_with(black), tmp_path)
    assert [fault.member for fault in faults] == ["mask.png"]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_light_that_is_not_finite_is_found(portrait, tmp_path, value):
    meta = json.loads(encode(portrait)["meta.json"])
    meta["lights"][1]["sh"][0][4] = value
    faults = verify_one(packed_with(portrait, meta_json=json.dumps(meta).encode()), tmp_path)
    assert len(faults) == 1 and "sh has values that are not finite" in faults[0].message


@pytest.mark.parametrize("meta", [b"", b"[]", b'{"version": 1}', b'{"version": 2}'])
def test_broken_meta_data_is_a_fault_and_not_a_crash(portrait, tmp_path, meta):
    faults = verify_one(packed_with(portrait, meta_json=meta), tmp_path)
    assert [fault.key for fault in faults] == [portrait.key]


def test_every_fault_is_counted_and_the_first_are_listed(dataset):
    for shard in dataset.rglob("*.tar"):
        shard.unlink()
    report = verify(dataset, max_faults=2)
    assert len(report.faults) == 2 < report.num_faults


def test_a_directory_of_something_else_is_refused(tmp_path):
    (tmp_path / "photo.jpg").write_bytes(b"")
    with pytest.raises(ValueError, match=r"no index\.json"):
        verify(tmp_path)
    with pytest.raises(ValueError, match="does not exist"):
        verify(tmp_path / "none")


def test_a_report_of_the_build_may_lie_beside_the_splits(dataset):
    (dataset / "build-report.json").write_text("{}")
    assert verify(dataset).passed


def test_an_unfinished_build_is_a_warning(dataset):
    (dataset / ".build").mkdir()
    (dataset / ".build" / "plan.json").write_text("{}")
    report = verify(dataset)
    assert report.passed and "a build is under way here" in report.warnings[0].message


@pytest.mark.parametrize("value", [0, 65535])
def test_an_image_without_anything_to_see_is_a_warning(portrait, tmp_path, value):
    image = portrait.image.copy()
    image[1] = value
    report = verify_one_whole(
        [replace(without_labels(portrait, ("light",)), image=image)], tmp_path
    )
    assert report.passed and report.num_warnings == 1
    (warning,) = report.warnings
    assert (warning.key, warning.member) == (portrait.key, "light001.png")
    assert ("is black" if value == 0 else "is saturated on 100%") in warning.message


def test_the_same_picture_in_two_portraits_is_a_warning(make_portrait, tmp_path):
    first, second = make_portrait("a", "anna"), make_portrait("b", "ben", seed=1)
    image = np.concatenate([second.image[:2], first.image[2:]])
    second = without_labels(replace(second, image=image), ("light",))
    write_dataset([first, second], tmp_path / "d", {"anna": "train", "ben": "val"}.__getitem__)
    report = verify(tmp_path / "d")
    assert report.passed and [str(warning) for warning in report.warnings] == [
        "val, portrait b: 1 image is also in portrait a of subject 'anna' in train"
    ]


def test_a_picture_twice_in_one_portrait_is_a_warning(portrait, tmp_path):
    image = portrait.image[[0, 0, 2]]
    report = verify_one_whole(
        [without_labels(replace(portrait, image=image), ("light",))], tmp_path
    )
    assert [warning.message for warning in report.warnings] == ["1 image is there twice"]


def test_subjects_that_differ_in_spelling_alone_are_a_warning(make_portrait, tmp_path):
    balls = [make_portrait("a", "Anna"), make_portrait("b", "anna_", seed=1)]
    write_dataset(balls, tmp_path / "d", {"Anna": "train", "anna_": "val"}.__getitem__)
    report = verify(tmp_path / "d")
    assert report.passed and report.num_warnings == 1
    assert "'Anna' in train, 'anna_' in val" in report.warnings[0].message


def test_labels_that_are_misread_fail_and_are_named(make_portrait, tmp_path):
    balls = [make_portrait(f"ball{i}", f"p{i}", seed=i, size=16) for i in range(4)]
    turned = [replace(ball, normal=ball.normal * np.float32([1, -1, 1])) for ball in balls]
    report = verify_one_whole(turned, tmp_path)
    assert [fault.shard for fault in report.faults] == ["balls 1"]
    assert "if the normals had y down" in report.faults[0].message


def test_the_report_tells_how_well_labels_agree(dataset):
    report = verify(dataset)
    (agreement,) = report.agreements
    assert agreement.portraits == 12 and agreement.median < 1e-3
    assert "at the median of 12 portraits" in str(report)
    assert json.loads(json.dumps(report.as_dict()))["passed"] is True


def test_a_data_set_in_s3_is_verified_like_one_on_disk(dataset, s3):
    folder = upload(dataset, s3.new_folder())
    assert verify(folder, workers=2) == verify(dataset)


def test_faults_in_s3_are_found(dataset, s3):
    folder = upload(dataset, s3.new_folder())
    data = bytearray(folder.read("train/shard-000000.tar"))
    data[len(data) // 2] ^= 1
    folder.write("train/shard-000000.tar", bytes(data))
    shard = read_index(dataset / "val").shards[0].name
    folder.delete(f"val/{shard}")
    faults = verify(folder).faults
    assert any("sha256" in fault.message for fault in faults if fault.shard[:5] == "train")
    assert f"val/{shard}: the file is missing" in map(str, faults)


def test_a_place_in_s3_that_holds_no_data_set_is_refused(s3):
    with pytest.raises(ValueError, match=r"s3://.*no index\.json"):
        verify(s3.new_folder())


def verify_one_whole(portraits, tmp_path):
    write_split(portraits, tmp_path / "one", "train")
    return verify(tmp_path / "one")


def upload(dataset, folder):
    """A copy of a data set in another folder."""
    for file in sorted(file for file in dataset.rglob("*") if file.is_file()):
        folder.write(str(file.relative_to(dataset)), file.read_bytes())
    return folder
