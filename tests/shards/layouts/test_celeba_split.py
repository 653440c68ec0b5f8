import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from relightx.codec import encode_jpeg
from shards.layouts.celeba_split import main, official_split
from shards.sources.celeba import celeba
from shards.splits import file_split


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Five pictures of four people, one of whom is in two parts of the partition."""
    directory = tmp_path / "img_align_celeba"
    directory.mkdir()
    for number in range(1, 6):
        data = encode_jpeg(np.zeros((8, 8, 3), np.uint8), 90)
        (directory / f"{number:06d}.jpg").write_bytes(data)
    identities = "000001.jpg 1\n000002.jpg 2\n000003.jpg 3\n000004.jpg 1\n"
    (tmp_path / "identity_CelebA.txt").write_text(identities)
    partition = "".join(f"{n:06d}.jpg {part}\n" for n, part in enumerate((0, 0, 1, 2, 2), 1))
    (tmp_path / "list_eval_partition.txt").write_text(partition)
    return tmp_path


def test_people_go_where_their_pictures_are_and_to_test_before_training(root):
    assert official_split(root) == {
        "train": ["celeba-person2"],
        "val": ["celeba-person3"],
        "test": ["celeba-person1", "celeba-picture000005"],
    }


def test_the_file_splits_a_build_of_the_source(root, capsys):
    out = root / "split.json"
    assert main(["--in", str(root), "--out", str(out)]) == 0
    assert "1 subjects in train, 1 subjects in val, 2 subjects in test" in capsys.readouterr().out
    assign = file_split(out)
    splits = [assign(group.subject) for group in celeba(root)]
    assert splits == ["test", "train", "val", "test", "test"]


def test_it_is_a_program(root):
    command = [sys.executable, "-m", "shards.layouts.celeba_split", "--in", str(root)]
    out = root / "split.json"
    subprocess.run(
        [*command, "--out", str(out)], check=True, cwd=Path(__file__).parents[3], timeout=60
    )
    assert set(json.loads(out.read_text())) == {"about", "train", "val", "test"}


def test_pictures_outside_the_partition_are_refused(root, capsys):
    table = root / "list_eval_partition.txt"
    table.write_text("000001.jpg 0\n")
    with pytest.raises(ValueError, match=r"4 of 5 pictures are not in the partition, .*000002"):
        official_split(root)
    table.unlink()
    assert main(["--in", str(root), "--out", str(root / "split.json")]) == 2
    assert "list_eval_partition.txt is not beside the pictures" in capsys.readouterr().err
    assert not (root / "split.json").exists()
