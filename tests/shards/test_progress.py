import re
import time

from shards.progress import progress_of


def test_a_file_gets_plain_lines_with_count_and_total(tmp_path):
    with (
        open(tmp_path / "log", "w") as stream,
        progress_of("built", 40, stream=stream, seconds_between_lines=0.0) as show,
    ):
        show(1)
        show(7)
    text = (tmp_path / "log").read_text()
    assert "built: 7 of 40 portraits, " in text
    assert "\r" not in text and "\x1b" not in text


def test_a_line_says_how_long_the_rest_takes_and_does_not_count_what_was_done_before(tmp_path):
    with (
        open(tmp_path / "log", "w") as stream,
        progress_of("built", 1001, "groups", already=1, stream=stream, seconds_between_lines=0.0)
        as show,
    ):  # fmt: skip
        show(1)
        time.sleep(0.1)
        show(11)
    found = re.search(
        r"11 of 1001 groups, ([\d.]+)/s, 0:00:(\d\d) left", (tmp_path / "log").read_text()
    )
    assert found and 50 < float(found[1]) <= 100
    assert 9 <= int(found[2]) <= 20


def test_a_file_is_not_flooded(tmp_path):
    with open(tmp_path / "log", "w") as stream, progress_of("built", None, stream=stream) as show:
        for done in range(1, 1000):
            show(done)
    assert (tmp_path / "log").read_text().count("\n") <= 1
