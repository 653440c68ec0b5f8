"""Checkpoints written aside, and copied to S3 and back, whole or not at all."""

import time

import fault_proxy as faults
import pytest
import torch

from relightx import saving
from relightx.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from relightx.saving import Saver, fetch_newest, sent_checkpoints


def checkpoint(step: int) -> Checkpoint:
    values = {"weight": torch.full((50, 50), float(step))}
    return Checkpoint(step, values, values, values, {"best": None})


@pytest.fixture
def folder(s3):
    return s3.new_folder(deadline_s=8.0)


def test_saving_does_not_wait_and_keeps_the_newest(tmp_path, monkeypatch):
    whole = saving.save_checkpoint

    def slow(*arguments):
        time.sleep(0.3)
        return whole(*arguments)

    monkeypatch.setattr(saving, "save_checkpoint", slow)
    saver = Saver(tmp_path, keep=2)
    start = time.monotonic()
    saver.save(checkpoint(1))
    assert time.monotonic() - start < 0.2
    saver.save(checkpoint(2))  # waits for the first
    assert time.monotonic() - start > 0.3
    saver.save(checkpoint(3))
    saver.close()
    names = [path.name for path in sorted((tmp_path / "checkpoints").iterdir())]
    assert names == ["step-00000002", "step-00000003"]


def test_a_fault_of_the_disk_is_raised_at_the_next_call(tmp_path):
    (tmp_path / "checkpoints").write_text("a file where a directory is needed")
    saver = Saver(tmp_path, keep=2)
    saver.save(checkpoint(1))
    with pytest.raises(OSError):
        saver.wait()


def test_checkpoints_come_back_from_s3(tmp_path, folder):
    saver = Saver(tmp_path / "here", 2, folder)
    for step in (1, 2, 3):
        saver.save(checkpoint(step))
    saver.close()
    names = ["step-00000002", "step-00000003"]
    assert sent_checkpoints(folder.child("checkpoints")) == names
    assert fetch_newest(folder, tmp_path / "there" / "checkpoints") == []
    path = tmp_path / "there" / "checkpoints" / "step-00000003"
    assert load_checkpoint(path).weights["weight"].unique().tolist() == [3.0]
    assert [each.name for each in path.parent.iterdir()] == ["step-00000003"]
    first = [file.stat().st_mtime_ns for file in path.iterdir()]
    assert fetch_newest(folder, path.parent) == []  # is there already
    assert [file.stat().st_mtime_ns for file in path.iterdir()] == first


def test_what_was_sent_in_part_is_no_checkpoint(tmp_path, folder):
    for step in (1, 2):
        saving.send_checkpoint(
            save_checkpoint(tmp_path, checkpoint(step), 5), folder.child("checkpoints")
        )
    folder.delete("checkpoints/step-00000002/checkpoint.json")
    assert sent_checkpoints(folder.child("checkpoints")) == ["step-00000001"]


def test_a_damaged_one_is_passed_over_for_the_one_before(tmp_path, folder):
    for step in (1, 2):
        saving.send_checkpoint(
            save_checkpoint(tmp_path, checkpoint(step), 5), folder.child("checkpoints")
        )
    folder.write("checkpoints/step-00000002/model.safetensors", b"other bytes")
    (reason,) = fetch_newest(folder, tmp_path / "back")
    assert "step-00000002/model.safetensors" in reason and "sha256" in reason
    assert [path.name for path in (tmp_path / "back").iterdir()] == ["step-00000001"]


def test_a_failed_upload_is_told_and_the_next_one_goes_up(tmp_path, s3, fault_proxy, capsys):
    folder = s3.new_folder(endpoint_url=fault_proxy.endpoint, deadline_s=1.0)
    folder.write("a", b"it answers")
    saver = Saver(tmp_path, 2, folder)
    fault_proxy.next(faults.unavailable, times=60, method="PUT", path="step-00000001")
    saver.save(checkpoint(1))
    saver.wait()
    said = capsys.readouterr().err
    assert "step 1: not uploaded" in said and "it is in" in said
    saver.save(checkpoint(2))
    saver.close()
    assert sent_checkpoints(folder.child("checkpoints")) == ["step-00000002"]
