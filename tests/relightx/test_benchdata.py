"""What relightx bench-data says is what was measured, and bad requests end in a line."""

import pytest

from relightx.benchdata import main, measure
from relightx.data import DataConfig, training_batches


@pytest.fixture
def options(tiny_shards) -> list[str]:
    values = {"train": f"[{tiny_shards}/train]", "image_size": 32, "batch_size": 4}
    return [f"--data.{name}={value}" for name, value in (values | {"num_workers": 0}).items()]


def test_rates_are_those_of_the_batches(tiny_shards):
    config = DataConfig(
        train=[f"{tiny_shards}/train"], image_size=32, batch_size=4, num_workers=0, num_lights=3
    )
    rate = measure(training_batches(config, 0, 12), warm_up=2)
    assert rate.batches == 12 and rate.skipped == 0
    assert rate.images_per_s == pytest.approx(3 * rate.groups_per_s)
    assert rate.groups_per_s > 10 and 0 < rate.first_batch_s < 10


def test_the_command_prints_a_table_and_how_shards_are_read(options, capsys):
    assert main([*options, "--batches=3", "--warm-up=1"]) == 0
    said = capsys.readouterr()
    assert "3 batches of 4 portraits, 2 lights" in said.out and "images a second" in said.out
    assert "shards are read where they lie" in said.err


def test_it_reads_a_bucket(options, s3, tiny_shards, tmp_path, capsys):
    folder = s3.new_folder()
    for file in sorted((tiny_shards / "train").iterdir(), reverse=True):
        folder.write(file.name, file.read_bytes())
    far = [f"--data.train=[{folder.url}]", f"--data.s3.endpoint_url={s3.endpoint}"]
    request = [*options, *far, f"--data.cache_dir={tmp_path}", "--batches=2", "--warm-up=0"]
    assert main(request) == 0
    assert "come whole into" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["--batches=0"], "--batches must be 1 or more"),
        (["--data.train=[]"], "data.train is empty"),
        (["--data.train=[nowhere]"], "nowhere: no index.json found"),
    ],
)
def test_a_wrong_request_ends_in_one_line(options, wrong, message, capsys):
    assert main([*options, *wrong]) == 2
    said = capsys.readouterr().err
    assert said.startswith("relightx bench-data: error: ") and message in said
    assert len(said.splitlines()) == 1


def test_a_misspelt_option_is_refused_with_the_real_one(options, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([*options, "--data.windw=3"])
    assert stopped.value.code == 2 and "data.window" in capsys.readouterr().err
