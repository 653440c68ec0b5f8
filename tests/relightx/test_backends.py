"""Every preset trains as DDP does, in two real processes, and goes on where another one stopped."""

import shutil
from pathlib import Path

import pytest
from processes import trained

from relightx.checkpoint import load_checkpoint
from relightx.runlog import read_log

pytestmark = pytest.mark.usefixtures("one_core")
SHARDED = ("zero1", "zero2", "zero3", "zero3_offload", "fsdp2")
TOLERANCE = 1e-3
"""Of a loss, relative: sums of gradients are taken in another order."""


@pytest.fixture(scope="module")
def ddp_run(tiny_options, tmp_path_factory, on_one_core) -> Path:
    directory = tmp_path_factory.mktemp("ddp") / "run"
    with on_one_core():
        assert "2 process(es) on cpu, ddp, float32" in trained("ddp_cpu", tiny_options(directory))
    return directory


def assert_same_curve(found: Path, expected: Path, tolerance: float = TOLERANCE) -> None:
    one, two = (read_log(path / "metrics.jsonl") for path in (found, expected))
    assert [record["step"] for record in one] == [record["step"] for record in two]
    for record, wanted in zip(one, two, strict=True):
        for name, value in wanted.items():
            if name.startswith(("loss/", "val/")) or name in ("grad_norm", "learning_rate"):
                assert record[name] == pytest.approx(value, rel=tolerance), (record["step"], name)


@pytest.mark.parametrize("preset", SHARDED)
def test_a_preset_follows_the_curve_of_ddp_and_ddp_goes_on_with_its_checkpoint(
    preset, ddp_run, tiny_options, tmp_path
):
    """Losses, norms, rates and validation; then weights, averages and moments go back."""
    directory = tmp_path / preset
    kind = preset.removesuffix("_offload")
    said = trained(preset, tiny_options(directory))
    assert f"2 process(es) on cpu, {kind}, float32" in said
    assert_same_curve(directory, ddp_run)
    newest = [
        load_checkpoint(path / "checkpoints" / "step-00000012") for path in (directory, ddp_run)
    ]
    for part in ("weights", "average", "optimizer"):
        found, wanted = (getattr(checkpoint, part) for checkpoint in newest)
        assert found.keys() == wanted.keys()
        for name, value in wanted.items():
            assert found[name].shape == value.shape
            scale = value.float().abs().max().clamp(min=1e-8)
            assert ((found[name] - value).float().abs().max() / scale) < 0.02, (part, name)
    assert newest[0].about["backend"] == kind
    shutil.rmtree(directory / "checkpoints" / "step-00000016")
    said = trained("single", [*tiny_options(directory), "--run.resume=true"])
    assert "step 12 to 16, 1 process(es)" in said
    assert_same_curve(directory, ddp_run)


@pytest.mark.parametrize("preset", ["zero2", "zero3", "fsdp2"])
def test_a_preset_goes_on_with_a_checkpoint_of_ddp(preset, ddp_run, tiny_options, tmp_path):
    directory = Path(shutil.copytree(ddp_run, tmp_path / "run"))
    shutil.rmtree(directory / "checkpoints" / "step-00000016")
    said = trained(preset, [*tiny_options(directory), "--run.resume=true"])
    assert "step 12 to 16" in said
    assert_same_curve(directory, ddp_run)
