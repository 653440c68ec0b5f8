"""What the launcher's variables ask for; what cannot be done is refused with what to change."""

import json

import pytest

from relightx.backend.launched import read_launch

TWO = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}


def test_a_process_alone():
    assert read_launch({}).kind == "single"
    assert read_launch({}).world_size == 1


def test_processes_without_more_are_ddp():
    launched = read_launch(TWO)
    assert (launched.kind, launched.rank, launched.world_size) == ("ddp", 1, 2)


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_deepspeed_is_known_by_the_stage_in_its_file(tmp_path, stage):
    file = tmp_path / "ds.json"
    file.write_text(json.dumps({"zero_optimization": {"stage": stage}}))
    launched = read_launch(
        TWO | {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_CONFIG_FILE": str(file)}
    )
    assert launched.kind == f"zero{stage}"
    assert launched.deepspeed == {"zero_optimization": {"stage": stage}}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read"),
        ("{", "cannot be read"),
        ("[]", "holds \\[\\]"),
        ("{}", "stage is None; 1, 2 or 3"),
        ('{"zero_optimization": {"stage": 0}}', "stage is 0; 1, 2 or 3"),
    ],
)
def test_a_file_that_is_none_of_deepspeed_is_refused(tmp_path, content, message):
    file = tmp_path / "ds.json"
    if content is not None:
        file.write_text(content)
    asked = {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_CONFIG_FILE": str(file)}
    with pytest.raises(ValueError, match=message):
        read_launch(TWO | asked)


def test_deepspeed_without_a_file_is_refused():
    with pytest.raises(ValueError, match="without a deepspeed_config_file"):
        read_launch(TWO | {"ACCELERATE_USE_DEEPSPEED": "true"})


def test_deepspeed_that_is_not_installed_is_refused(monkeypatch):
    monkeypatch.setattr("relightx.backend.launched.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="install the extra 'deepspeed', or use"):
        read_launch(TWO | {"ACCELERATE_USE_DEEPSPEED": "true"})


def test_fsdp2_with_its_options():
    asked = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}
    assert read_launch(TWO | asked).kind == "fsdp2"
    assert (read_launch(TWO | asked).reshard, read_launch(TWO | asked).offload) == (True, False)
    other = asked | {"FSDP_RESHARD_AFTER_FORWARD": "false", "FSDP_OFFLOAD_PARAMS": "true"}
    assert (read_launch(TWO | other).reshard, read_launch(TWO | other).offload) == (False, True)


def test_the_first_fsdp_is_refused():
    with pytest.raises(ValueError, match="fsdp_version 1 was asked for"):
        read_launch(TWO | {"ACCELERATE_USE_FSDP": "true"})
