from pathlib import Path

import pytest

from shards.layouts.celeba_tables import (
    IDENTITY_NAMES,
    People,
    find_table,
    read_hq_pictures,
    read_identities,
    read_partition,
    read_people,
)


def table(folder: Path, name: str, content: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(content)
    return folder / name


def test_the_tables_are_read_as_released(tmp_path):
    identities = table(tmp_path, "identity_CelebA.txt", "000001.jpg 2880\n000002.jpg 2937\n")
    partition = table(tmp_path, "list_eval_partition.txt", "000001.jpg 0\n000002.jpg 2\n")
    mapping = table(
        tmp_path,
        "CelebA-HQ-to-CelebA-mapping.txt",
        "idx          orig_idx     orig_file\n0          119613     119614.jpg\n"
        "1          99094      099095.jpg\n",
    )
    assert read_identities(identities) == {"000001": "2880", "000002": "2937"}
    assert read_partition(partition) == {"000001": "train", "000002": "test"}
    assert read_hq_pictures(mapping) == {0: "119614", 1: "099095"}


@pytest.mark.parametrize(
    "content",
    [
        "image_id,partition\n000001.jpg,0\n000002.jpg,1\n",
        "image_id,partition\r\n000001.jpg,0\r\n000002.jpg,1",
        "\ufeff000001.jpg 0\n\n000002.png\t1\n\n",
    ],
)
def test_csv_headers_line_ends_and_marks_are_understood(tmp_path, content):
    file = tmp_path / "list_eval_partition.csv"
    file.write_bytes(content.encode())
    assert read_partition(file) == {"000001": "train", "000002": "val"}


def test_the_list_of_the_first_release_of_hq_is_read(tmp_path):
    content = "idx orig_idx orig_file proc_md5 final_md5\n0 119613 119614.jpg 0be7 d76e\n"
    assert read_hq_pictures(table(tmp_path, "image_list.txt", content)) == {0: "119614"}


def test_a_person_has_one_name_in_every_set(tmp_path):
    people = read_people(
        table(tmp_path, "identity_CelebA.txt", "000001.jpg 7\n119614.jpg 007\n"),
        table(tmp_path, "mapping.txt", "0 119613 119614.jpg\n1 4 000005.jpg\n"),
    )
    assert people.of_celeba("000001") == people.of_hq(0) == "celeba-person7"
    assert people.of_hq(1) == people.of_celeba("000005") == "celeba-picture000005"
    assert people.of_hq(2) == "celebahq-picture00002"
    assert People({}, {}).of_celeba("000001") == "celeba-picture000001"


@pytest.mark.parametrize(
    ("read", "content", "message"),
    [
        (read_identities, "000001.jpg 12\n000002.jpg", r"line 2: '000002.jpg' has not 2 columns"),
        (read_identities, "000001.jpg twelve\n", r"line 1: 'twelve' is no number of a person"),
        (read_identities, "000001.jpg 1\n000001.jpg 2\n", r"line 2: 000001 is given as 1 before"),
        (read_identities, "000001.jpg 1\nx.jpg 2\n", r"line 2: 'x.jpg' is no picture of CelebA"),
        (read_partition, "000001.jpg 3\n", r"line 1: '3' is not 0 \(train\)"),
        (read_hq_pictures, "a 1 000001.jpg\n0 1 000001.jpg\n", r"line 1: 'a' is no number"),
        (read_hq_pictures, "0 1 000001.jpg\n0 2 000003.jpg\n", r"line 2: 0 is given as 000001"),
    ],
)
def test_a_broken_row_is_named_by_file_and_line(tmp_path, read, content, message):
    with pytest.raises(ValueError, match=f"table.txt, {message}"):
        read(table(tmp_path, "table.txt", content))


def test_a_missing_table_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"table.txt: the table cannot be read: No such file"):
        read_identities(tmp_path / "table.txt")


@pytest.mark.parametrize("place", ["Img/img_align_celeba", "Img", "", "Anno"])
def test_a_table_is_found_in_the_folders_of_the_release(tmp_path, place):
    pictures = tmp_path / "Img/img_align_celeba"
    pictures.mkdir(parents=True)
    file = table(tmp_path / place, "identity_CelebA.txt", "")
    assert find_table(pictures, IDENTITY_NAMES) == file.absolute()


def test_no_table_is_found_where_there_is_none(tmp_path):
    (tmp_path / "a/b/c/pictures").mkdir(parents=True)
    table(tmp_path / "a", "identity_CelebA.txt", "")
    assert find_table(tmp_path / "a/b/c/pictures", IDENTITY_NAMES) is None
