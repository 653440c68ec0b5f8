from shards.progress import progress_of


def test_a_file_gets_plain_lines_with_count_and_total(tmp_path):
    with (
        open(tmp_path / "log", "w") as stream,
        progress_of("built", 40, stream, seconds_between_lines=0.0) as show,
    ):
        show(1)
        show(7)
    text = (tmp_path / "log").read_text()
    assert "built: 7 of 40 portraits, " in text
    assert "\r" not in text and "\x1b" not in text


def test_a_file_is_not_flooded(tmp_path):
    with open(tmp_path / "log", "w") as stream, progress_of("built", None, stream) as show:
        for done in range(1, 1000):
            show(done)
    assert (tmp_path / "log").read_text().count("\n") <= 1
