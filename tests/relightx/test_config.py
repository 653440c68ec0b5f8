"""Every key has one owner, one help and one check; a wrong key or value stops the program."""

from dataclasses import asdict, fields, is_dataclass

import pytest
import yaml

from relightx.config import (
    Config,
    config_from_dict,
    config_hash,
    config_parser,
    config_to_dict,
    known_keys,
    parse_config,
)


def leaves(tree: type, prefix: str = "") -> list[str]:
    found = []
    for item in fields(tree):
        name = f"{prefix}{item.name}"
        found += leaves(item.type, f"{name}.") if is_dataclass(item.type) else [name]
    return found


def refusal(arguments: list[str], capsys) -> str:
    """The one line that a wrong request is answered with."""
    with pytest.raises(SystemExit) as stopped:
        parse_config(arguments)
    said = capsys.readouterr()
    assert stopped.value.code == 2
    assert said.out == "" and said.err.startswith("relightx train: error: ")
    return said.err


def test_without_options_the_run_is_the_defaults():
    assert parse_config([]) == Config() == config_from_dict({})


def test_later_files_win_and_options_win_over_files(tmp_path):
    (tmp_path / "a.yaml").write_text("run: {steps: 5, seed: 1}\nloss:\n  cross_relighting: 3.0\n")
    (tmp_path / "b.yaml").write_text("run:\n  steps: 6\n")
    files = ["--config", str(tmp_path / "a.yaml"), f"--config={tmp_path / 'b.yaml'}"]
    config = parse_config([*files, "--loss.cross_relighting", "4"])
    assert (config.run.steps, config.run.seed, config.loss.cross_relighting) == (6, 1, 4.0)
    assert config.optim == Config().optim


def test_the_resolved_config_written_as_yaml_gives_the_same_run(tmp_path):
    options = ["--optim.learning_rate=2e-3", "--data.train=[a, b/c]", "--data.augment.mix=0.5"]
    config = parse_config([*options, "--model.preset=unet", "--data.supervision.albedo=0.05"])
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config_to_dict(config)))
    assert parse_config(["--config", str(tmp_path / "config.yaml")]) == config
    assert config_from_dict(config_to_dict(config)) == config
    assert config_hash(config) == config_hash(config_from_dict(config_to_dict(config)))
    assert config_hash(config) != config_hash(Config())


@pytest.mark.parametrize("rate", ["2e-3", "2.0e-3", "0.002"])
def test_numbers_may_be_written_with_an_exponent(tmp_path, rate):
    (tmp_path / "a.yaml").write_text(f"optim:\n  learning_rate: {rate}\n")
    assert parse_config(["--config", str(tmp_path / "a.yaml")]).optim.learning_rate == 0.002


def test_every_key_stands_in_the_help_with_a_sentence():
    text = " ".join(config_parser("relightx train").format_help().split())
    options = text[text.index("options:") :]
    assert leaves(Config)
    for name in leaves(Config):
        after = options.split(f"--{name} ", 1)[1]
        placeholder, sentence = after.split(" ", 1)
        assert placeholder
        assert not sentence.startswith("("), f"{name} has no help"
        assert "(type: " in sentence


def test_keys_known_are_those_of_the_tree():
    assert set(leaves(Config)) < set(known_keys())
    assert {"run", "data.augment", "data.augment.mix"} < set(known_keys())


@pytest.mark.parametrize(
    ("option", "nearest"),
    [
        ("--loss.albedo_consistancy=1", "loss.albedo_consistency"),
        ("--loss.cross_relightin=1", "loss.cross_relighting"),
        ("--data.batchsize=1", "data.batch_size"),
        ("--optim.lr_rate=1", None),
        ("--batch_size=3", None),
        ("--data.augment.rol_deg=3", "data.augment.roll_deg"),
    ],
)
def test_an_unknown_option_is_refused_with_the_nearest(option, nearest, capsys):
    said = refusal([option], capsys)
    assert f"unknown option {option.split('=')[0]}" in said
    if nearest:
        assert f"did you mean '{nearest}'?" in said


def test_an_unknown_key_of_a_file_is_refused_with_file_and_nearest(tmp_path, capsys):
    file = tmp_path / "a.yaml"
    file.write_text("run:\n  steps: 3\nloss:\n  albedo_consistancy: 0.3\n")
    said = refusal(["--config", str(file)], capsys)
    assert f"{file}: unknown key 'loss.albedo_consistancy'" in said
    assert "did you mean 'loss.albedo_consistency'?" in said


def test_an_unknown_key_of_a_trial_is_refused_with_the_nearest():
    with pytest.raises(ValueError, match=r"unknown key 'optim.learningrate'; did you mean"):
        config_from_dict({"optim": {"learningrate": 1e-3}})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "sections such as run: and data: needed"),
        ("- 1\n", "sections such as run: and data: needed"),
        ("run: [\n", "not readable as YAML"),
        ("run:\n", "section 'run' is empty"),
        ("run: 5\n", "section 'run' is 5; keys below it are needed"),
        ("data:\n  augment:\n", "section 'data.augment' is empty"),
    ],
)
def test_a_file_that_is_no_config_is_refused_by_name(tmp_path, content, message, capsys):
    file = tmp_path / "a.yaml"
    file.write_text(content)
    assert message in refusal(["--config", str(file)], capsys)


def test_a_config_that_is_not_there_or_no_text_is_refused(tmp_path, capsys):
    assert "no such config file" in refusal(["--config", str(tmp_path / "x.yaml")], capsys)
    (tmp_path / "x.png").write_bytes(b"\x89PNG\r\n\xff\xfe")
    assert "x.png: not readable as YAML" in refusal(["--config", str(tmp_path / "x.png")], capsys)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--run.steps=0", "run.steps is 0; 1 or more needed"),
        ("--run.steps=many", "run.steps"),
        ("--run.precision=fp16", "run.precision"),
        ("--run.validate_every=-1", "run.validate_every must be 0 or more"),
        ("--model.preset=resnet", "model.preset"),
        ("--model.width=12", "model.width is 12"),
        ("--loss.cross_relighting=-1", "loss weights must be 0 or more"),
        ("--optim.learning_rate=0", "optim.learning_rate is 0"),
        ("--optim.ema_decay=1", "optim.ema_decay is 1"),
        ("--data.augment.zoom=1", "data.augment.zoom must be below 1"),
        ("--data.supervision.light=1.5", "data.supervision.light is 1.5"),
        ("--data.train=7", "data.train"),
        ("surplus", "surplus"),
    ],
)
def test_a_value_out_of_range_is_refused_by_its_key(option, message, capsys):
    assert message in refusal([option], capsys)


def test_the_same_ranges_hold_for_a_trial():
    with pytest.raises(ValueError, match=r"optim.ema_decay is 1"):
        config_from_dict({"optim": {"ema_decay": 1.0}})


def test_a_config_is_plain_values_outside():
    assert yaml.safe_load(yaml.safe_dump(asdict(Config()))) == config_to_dict(Config())
