import numpy as np
import pytest

from shards.layouts.numbers import read_numbers


@pytest.mark.parametrize("text", ["1 2.5 -3e-1", "1\t2.5\t-3e-1\n", "1\n2.5\r\n-3e-1\n\n"])
def test_spaces_tabs_and_line_ends_separate_numbers(tmp_path, text):
    file = tmp_path / "light.txt"
    file.write_bytes(text.encode())
    np.testing.assert_array_equal(read_numbers(file, 3), np.array([1, 2.5, -0.3], np.float32))


@pytest.mark.parametrize("word", ["nan", "inf", "-inf", "1e39", "1_", "", "0x10", "\x00", "é", "½"])
def test_what_is_no_finite_number_is_refused_by_file(tmp_path, word):
    file = tmp_path / "light.txt"
    file.write_text(f"1 2 {word}", encoding="utf-8")
    with pytest.raises(ValueError, match=r"light.txt: (holds 2|.* is not a (finite )?number)"):
        read_numbers(file, 3)


def test_bytes_that_are_no_text_are_refused(tmp_path):
    (tmp_path / "light.txt").write_bytes(b"\xff\xfe 1 2")
    with pytest.raises(ValueError, match="is not a number"):
        read_numbers(tmp_path / "light.txt", 3)


def test_a_missing_file_is_refused_by_name(tmp_path):
    with pytest.raises(ValueError, match=r"light.txt: cannot be read: No such file"):
        read_numbers(tmp_path / "light.txt", 3)


def test_no_more_of_a_long_file_is_read_than_needed_to_refuse_it(tmp_path):
    with open(tmp_path / "light.txt", "wb") as stream:
        stream.truncate(2**33)
    with pytest.raises(ValueError, match="is longer than 65536 bytes"):
        read_numbers(tmp_path / "light.txt", 3)
