from dataclasses import replace

import pytest

from relightx.sample import without_labels
from shards.looking.listing import describe
from shards.write import write_dataset


def table_of(text):
    lines = [line.split() for line in text.partition("\n\n")[0].splitlines()]
    return {line[0]: dict(zip(lines[0][1:], line[1:], strict=False)) for line in lines[1:]}


def test_totals_of_each_split_are_listed(make_portrait, tmp_path):
    balls = [make_portrait(f"k{i}", f"p{i // 2}", lights=2 + i) for i in range(5)]
    write_dataset(balls, tmp_path / "d", lambda subject: "test" if subject == "p2" else "train")
    table = table_of(describe(tmp_path / "d"))
    assert table["train"]["portraits"] == "4" and table["train"]["subjects"] == "2"
    assert table["train"]["images"] == str(2 + 3 + 4 + 5)
    assert table["test"]["images"] == "6" and table["test"]["shards"] == "1"


def test_lights_labels_and_licences_are_listed(make_portrait, tmp_path):
    first, second = make_portrait("a"), make_portrait("b", lights=5)
    licensed = replace(second, provenance=replace(second.provenance, licence="ask first"))
    bare = without_labels(licensed, ("normal",))
    write_dataset([first, bare], tmp_path / "d", lambda subject: "train")
    text = describe(tmp_path / "d")
    lines = dict(line.split(maxsplit=1) for line in text.splitlines() if line.startswith("  "))
    assert lines["lights"] == "3 to 5"
    assert lines["pictures"] == "32x32 16-bit RGB linear"
    assert lines["albedo"] == "real"
    assert lines["normal"] == "real (1), absent (1)"
    assert lines["licence"] == "CC0 (1), ask first (1)"


def test_what_is_no_data_set_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"no index\.json"):
        describe(tmp_path)


def test_a_data_set_in_s3_is_listed_like_one_on_disk(make_portrait, tmp_path, s3):
    write_dataset([make_portrait("a"), make_portrait("b")], tmp_path / "d", lambda _: "train")
    folder = s3.new_folder()
    for file in (file for file in (tmp_path / "d").rglob("*") if file.is_file()):
        folder.write(str(file.relative_to(tmp_path / "d")), file.read_bytes())
    assert describe(folder) == describe(tmp_path / "d")
