"""The main job, end to end, as a person starts it, and what it refuses before any work."""

import json
import re
import shlex
import subprocess
import sys

import pytest

from relightx.cli import _parser
from relightx.config import config_from_dict, parse_config
from relightx.index import read_index
from relightx.portrait import load
from relightx.quickstart import PHOTO, quickstart, split_shares, training_values
from shards.cli import parse

NORMALS_GAIN_DEG = 8.0
"""Least gain over the untrained network. Measured with the fewest steps, 60: 42.0 to 21.6."""
RELIGHTING_SHARE = 0.85
"""Largest share of the untrained network's relighting_si_mse. Measured with 60 steps: 0.58."""


def quick(*options):
    command = [sys.executable, "-m", "relightx", "quickstart", *map(str, options)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, on_one_core):
    """A quickstart of half a minute's training on small heads, and its output."""
    out = tmp_path_factory.mktemp("runs") / "quick start"  # a space: paths are quoted where needed
    # Threads that wait for each other, on cores that other tests have too, take ten times as long.
    with on_one_core():
        done = quick("--out", out, "--minutes", 0.5, "--heads", 40, "--size", 64)
    assert done.returncode == 0, done.stdout + done.stderr
    return out, done.stdout


def test_a_quickstart_beats_the_untrained_network(finished):
    summaries = json.loads((finished[0] / "evaluation.json").read_text())["summaries"]

    def mean(contestant, metric):
        return summaries[contestant][metric]["mean"]

    gain = mean("untrained", "normal_error_deg") - mean("model", "normal_error_deg")
    assert gain >= NORMALS_GAIN_DEG
    share = mean("model", "relighting_si_mse") / mean("untrained", "relighting_si_mse")
    assert share <= RELIGHTING_SHARE
    assert {"mean_face", "copy"} <= summaries.keys()


def test_a_quickstart_trains_and_tests_on_different_people(finished):
    people = [set(read_index(finished[0] / "shards" / name).subjects) for name in split_shares(40)]
    assert sum(map(len, people)) == len(set.union(*people)) == 40


def test_a_quickstart_leaves_a_model_that_can_be_used(finished):
    result = load(finished[0] / "training").decompose(PHOTO)
    assert result.face_found
    assert result.albedo.shape == result.image.shape


def test_a_quickstarts_report_loads_nothing_and_shows_pictures(finished):
    text = (finished[0] / "report.html").read_text()
    sources = re.findall(r'(?:src|srcset)="([^"]*)"', text)
    assert len(sources) > 50
    assert all(source.startswith("data:image/webp;base64,") for source in sources)
    assert not re.search(r'(?:src|srcset|href)="(?:https?:)?//|url\(|@import|<script', text)
    assert str(finished[0] / "report.html") in "".join(finished[1].split("\n"))


def test_every_command_of_the_report_is_one_that_the_programs_take(finished):
    text = (finished[0] / "report.html").read_text()
    blocks = re.findall(r"<pre>(.*?)</pre>", text, re.DOTALL)
    lines = [line.replace("&#39;", "'") for block in blocks for line in block.splitlines()]
    taken = []
    for words in map(shlex.split, [line for line in lines if line.startswith(("relightx", "acc"))]):
        if words[0] == "relightx":
            _parser().parse_args(words[1:])
        elif words[0] == "relightx-shards":
            parse(words[1:])
        else:
            assert words[:3] == ["accelerate", "launch", "--config_file"]
            assert words[4:6] == ["-m", "relightx.train"]
            parse_config(words[6:])
        taken.append(words[0])
    assert {"relightx", "relightx-shards", "accelerate"} == set(taken)


def test_a_directory_in_use_is_left_alone(tmp_path):
    (tmp_path / "mine").write_text("mine")
    done = quick("--out", tmp_path)
    assert done.returncode == 2
    assert "choose another directory with --out" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"minutes": 0.0}, "minutes is 0"),
        ({"minutes": float("nan")}, "minutes is nan"),
        ({"heads": 3}, "heads is 3"),
        ({"size": 100}, "size is 100"),
        ({"seed": -1}, "seed -1"),
    ],
)
def test_options_out_of_range_are_refused_before_anything_is_made(options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        quickstart(tmp_path / "new", **options)
    assert not (tmp_path / "new").exists()


def test_a_file_that_is_no_photograph_is_refused_before_anything_is_made(tmp_path):
    photo = tmp_path / "photo.jpg"
    photo.write_text("no picture")
    with pytest.raises(ValueError, match=re.escape(str(photo))):
        quickstart(tmp_path / "new", photo=photo)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("heads", [20, 40, 240, 10000])
def test_the_shares_of_a_split_sum_to_one_and_test_on_some(heads):
    shares = split_shares(heads)
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["test"] * heads >= 5


@pytest.mark.parametrize("steps", [60, 61, 3000])
def test_the_training_values_are_a_configuration(steps, tmp_path):
    config = config_from_dict(training_values(tmp_path, 64, 3, 8, steps))
    assert config.run.steps == steps
    assert config.data.val == []
