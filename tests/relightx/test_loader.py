"""Batches are a function of config and step; workers, ranks and caches change only the speed."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from relightx.data import DataConfig, evaluation_batches, training_batches
from relightx.data.augment import AugmentConfig
from relightx.data.supervision import labelled_subjects
from relightx.index import read_index
from relightx.sample import without_labels
from relightx.settings.supervision import SupervisionConfig
from relightx.sh import shade
from shards.write import write_split


@pytest.fixture
def config(tiny_shards) -> DataConfig:
    return DataConfig(
        train=[str(tiny_shards / "train")], image_size=32, batch_size=4, num_workers=0
    )


def leaves(batches) -> list[torch.Tensor]:
    return [
        value for batch in batches for value in (batch.image, batch.mask, batch.valid, *batch.truth)
    ]


def assert_same(first, second) -> None:
    first, second = leaves(first), leaves(second)
    assert len(first) == len(second) > 0
    for one, other in zip(first, second, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("num_workers", [1, 3])
def test_batches_do_not_depend_on_workers(config, num_workers):
    """Kept, 12 of them are more than one reader has places for."""
    expected = list(training_batches(config, 0, 12))
    got = list(training_batches(replace(config, num_workers=num_workers), 0, 12))
    assert_same(got, expected)


@pytest.mark.parametrize("megabytes", [1, 100])
def test_batches_do_not_depend_on_the_cache(config, megabytes):
    mixing = replace(config, augment=AugmentConfig(mix=0.5))
    cached = replace(mixing, memory_cache_mb=megabytes)
    assert_same(training_batches(cached, 0, 7), training_batches(mixing, 0, 7))


@pytest.mark.parametrize(("num_ranks", "num_micro"), [(2, 1), (1, 2), (2, 2)])
def test_ranks_and_micro_batches_together_see_the_same_portraits(config, num_ranks, num_micro):
    whole = torch.cat([batch.image for batch in training_batches(config, 0, 4)])
    parts = [
        list(training_batches(config, 0, 4, rank, num_ranks, num_micro))
        for rank in range(num_ranks)
    ]
    steps = [
        batch.image
        for step in range(4)
        for rank in parts
        for batch in rank[step * num_micro : (step + 1) * num_micro]
    ]
    torch.testing.assert_close(torch.cat(steps), whole, rtol=0, atol=0)


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize(
    ("num_ranks", "num_workers"),
    [(1, 1), (1, 3), (2, 0), (2, 3), (3, 1), (3, 0), (4, 0), (4, 3), (8, 0), (8, 1)],
)
def test_a_step_is_the_same_on_any_number_of_ranks_and_workers(config, num_ranks, num_workers):
    large = replace(config, batch_size=24, streams=4, window=2)
    whole = [batch.image for batch in training_batches(large, 3, 5)]
    spread = replace(large, num_workers=num_workers)
    ranks = [list(training_batches(spread, 3, 5, rank, num_ranks)) for rank in range(num_ranks)]
    for step, image in enumerate(whole):
        together = torch.cat([rank[step].image for rank in ranks])
        torch.testing.assert_close(together, image, rtol=0, atol=0)


def test_to_start_at_a_step_gives_the_same_batches(config):
    assert_same(training_batches(config, 5, 8), list(training_batches(config, 0, 8))[5:])


@pytest.mark.parametrize("num_workers", [0, 1])
def test_mirrored_pictures_and_maps_are_laid_out_as_others(config, num_workers):
    only = AugmentConfig(exposure_stops=0.0, tint_stops=0.0, shift=0.0, zoom=0.0, roll_deg=0.0)
    mirroring = replace(config, augment=only, num_workers=num_workers)
    batches = list(training_batches(mirroring, 0, 3))
    plain = list(training_batches(replace(mirroring, augment=replace(only, mirror=False)), 0, 3))
    for one, two in zip(batches, plain, strict=True):
        assert one.image.is_contiguous() and one.truth.normal.is_contiguous()
        assert one.image.shape == two.image.shape and one.mask.shape == two.mask.shape
    flipped = [torch.equal(one.image, two.image) for one, two in zip(batches, plain, strict=True)]
    assert not all(flipped)


def test_epochs_draw_lights_and_changes_anew(config):
    first, second = (list(training_batches(config, start, start + 3)) for start in (0, 3))
    images = [
        {image.sum().item() for batch in part for image in batch.image} for part in (first, second)
    ]
    assert len(images[0]) == len(images[1]) == 12
    assert not images[0] & images[1]


def test_batches_obey_the_physics(config):
    for batch in training_batches(config, 0, 3):
        normal = batch.truth.normal[:, None]
        image = batch.truth.albedo[:, None] * shade(normal, batch.truth.sh)
        inside = batch.mask[:, None] & (normal[:, :, 2:] > 0.5)
        error = ((image - batch.image).abs() / (batch.image + 0.05))[inside.expand_as(image)]
        assert error.mean() < 0.01 and error.max() < 0.15
        assert batch.image.shape == (4, 2, 3, 32, 32)


def test_two_lights_of_a_portrait_are_two_lights(config):
    for batch in training_batches(replace(config, num_lights=4), 0, 3):
        for sh in batch.truth.sh:
            assert torch.cdist(sh.flatten(1), sh.flatten(1)).add(torch.eye(4)).min() > 0.01


def test_labels_are_kept_by_the_chosen_subjects_only(config, tiny_shards):
    digests = read_index(tiny_shards / "train").subject_digest
    share = SupervisionConfig(albedo=0.25, normal=0.5, light=0.0)
    counts = np.zeros(3, int)
    for batch in training_batches(replace(config, supervision=share), 0, 3):  # one epoch
        truth = batch.truth
        counts += [int(has.sum()) for has in (truth.has_albedo, truth.has_normal, truth.has_light)]
        assert not (truth.has_albedo & ~truth.has_normal).any()  # one ranking of the people
    assert counts.tolist() == [3, 6, 0]
    assert labelled_subjects(digests, 0.25, 0).sum() == 3


def test_a_split_may_be_used_without_its_labels(config, tiny_shards):
    """The mixture setting: rendered heads with labels, photographs as if they had none."""
    splits = [str(tiny_shards / "train"), str(tiny_shards / "val")]
    share = SupervisionConfig(albedo=0.5, unlabelled=splits[1:])
    counts = np.zeros(3, int)
    for batch in training_batches(replace(config, train=splits, supervision=share), 0, 15):
        truth = batch.truth
        counts += [int(has.sum()) for has in (truth.has_albedo, truth.has_normal, truth.has_light)]
    assert counts.tolist() == [4 * 6, 4 * 12, 4 * 12]  # 60 portraits: four epochs of 12 and 3
    with pytest.raises(ValueError, match=r"unlabelled names '/nowhere', which data.train does not"):
        replace(config, supervision=SupervisionConfig(unlabelled=["/nowhere"]))


def test_labels_that_a_portrait_has_not_are_zero_and_marked_so(make_portrait, tmp_path):
    balls = [make_portrait(f"k{number}", lights=2, seed=number) for number in range(4)]
    balls[1] = without_labels(balls[1], ("albedo", "light"))
    write_split(balls, tmp_path / "s", "train")
    config = DataConfig(train=[str(tmp_path / "s")], image_size=32, batch_size=4, num_workers=0)
    truth = next(iter(training_batches(config, 0, 1))).truth
    assert truth.has_albedo.sum() == truth.has_light.sum() == 3 and truth.has_normal.all()
    bare = int((~truth.has_albedo).nonzero())
    assert (truth.albedo[bare] == 0).all() and (truth.sh[bare] == 0).all()


def test_confidence_is_read_and_a_portrait_without_is_trusted(make_portrait, tmp_path):
    balls = [make_portrait(f"k{number}", lights=2, seed=number) for number in range(2)]
    ramp = np.tile(np.linspace(0, 1, 32, dtype=np.float32), (32, 1))
    balls[0] = replace(balls[0], confidence=ramp)
    write_split(balls, tmp_path / "s", "train")
    config = DataConfig(
        train=[str(tmp_path / "s")],
        image_size=32,
        batch_size=2,
        num_workers=0,
        augment=AugmentConfig(mirror=False, shift=0.0, zoom=0.0, roll_deg=0.0),
    )
    confidence = next(iter(training_batches(config, 0, 1))).truth.confidence
    assert confidence.shape == (2, 1, 32, 32)
    trusted, doubted = sorted(confidence, key=lambda one: -one.sum())
    assert (trusted == 1).all()
    np.testing.assert_allclose(doubted[0], ramp, atol=0.5 / 255)  # as stored, 8 bits


def test_several_splits_are_read_as_one(config, tiny_shards):
    both = replace(config, train=[f"{tiny_shards}/train", f"{tiny_shards}/test"])
    assert (
        len({image.sum().item() for b in training_batches(both, 0, 4) for image in b.image}) == 16
    )


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_truncated_shard_stops_the_run_by_name(config, tiny_shards, tmp_path, num_workers):
    shutil.copytree(tiny_shards / "train", tmp_path / "train")
    shard = sorted((tmp_path / "train").glob("*.tar"))[0]
    shard.write_bytes(shard.read_bytes()[:-1000])
    damaged = replace(config, train=[str(tmp_path / "train")], num_workers=num_workers)
    with pytest.raises(ValueError, match=rf"{shard}: .*the shard has .* bytes, its index says"):
        list(training_batches(damaged, 0, 3))


def test_too_few_lights_are_refused_before_the_first_batch(config):
    with pytest.raises(ValueError, match=r"'ball00' has 4 lights, data.num_lights asks for 5"):
        training_batches(replace(config, num_lights=5), 0, 1)


def test_no_training_split_is_refused():
    with pytest.raises(ValueError, match=r"data.train is empty"):
        training_batches(DataConfig(), 0, 1)


@pytest.mark.parametrize(
    ("name", "value"), [("batch_size", 0), ("image_size", -1), ("num_workers", -1), ("seed", -3)]
)
def test_impossible_sizes_are_refused(name, value):
    with pytest.raises(ValueError, match=rf"data.{name} is {value}"):
        DataConfig(**{name: value})


@pytest.mark.parametrize("num_ranks", [1, 2, 4, 5])
def test_evaluation_covers_each_portrait_once_on_any_number_of_ranks(tiny_shards, num_ranks):
    indexes = [read_index(tiny_shards / "val"), read_index(tiny_shards / "test")]
    ranks = [
        list(evaluation_batches(indexes, 16, None, rank, num_ranks)) for rank in range(num_ranks)
    ]
    assert len({len(rank) for rank in ranks}) == 1  # or the ranks would wait for each other
    keys = [key for rank in ranks for key, batch in rank if batch.valid.all()]
    assert sorted(keys) == [f"ball{number}" for number in range(12, 19)]


def test_evaluation_does_not_change_pictures(tiny_shards, make_portrait):
    key, batch = next(evaluation_batches([read_index(tiny_shards / "val")], 32))
    written = make_portrait(lights=4, seed=12)
    assert key == "ball12"
    np.testing.assert_array_equal(batch.image[0].movedim(1, -1).numpy(), written.linear_image())


@pytest.mark.parametrize(("most", "lamps"), [(1, [0]), (2, [0, 3]), (3, [0, 2, 3]), (9, range(4))])
def test_evaluation_takes_lights_evenly_spaced(tiny_shards, make_portrait, most, lamps):
    _, batch = next(evaluation_batches([read_index(tiny_shards / "val")], 32, most))
    sh = make_portrait(lights=4, seed=12).sh[list(lamps)]
    np.testing.assert_allclose(batch.truth.sh[0].numpy(), sh, atol=1e-6)


def test_evaluation_refuses_a_portrait_that_stands_in_two_splits(tiny_shards):
    index = read_index(tiny_shards / "val")
    with pytest.raises(ValueError, match="is in another of the splits too"):
        next(evaluation_batches([index, index], 32))


def test_a_stream_gives_batches_of_the_same_kind(config):
    """Other portraits in another order, but whole, lit as their light says, repeated by seed."""
    streaming = replace(config, reader="stream")
    batches = list(training_batches(streaming, 0, 5))
    assert [tuple(batch.image.shape) for batch in batches] == [(4, 2, 3, 32, 32)] * 5
    for batch in batches:
        normal = batch.truth.normal[:, None]
        image = batch.truth.albedo[:, None] * shade(normal, batch.truth.sh)
        inside = batch.mask[:, None] & (normal[:, :, 2:] > 0.5)
        error = ((image - batch.image).abs() / (batch.image + 0.05))[inside.expand_as(image)]
        assert error.mean() < 0.01
    assert_same(training_batches(streaming, 0, 5), batches)
    later = next(iter(training_batches(streaming, 5, 6)))
    assert not torch.equal(later.image, batches[0].image)


def test_weights_share_every_batch_out(config, tiny_shards):
    mixed = replace(
        config,
        train=[f"{tiny_shards}/train", f"{tiny_shards}/val"],
        weights=[3.0, 1.0],
        batch_size=8,
    )
    loader = training_batches(mixed, 0, 6)
    numbers = [[number for number, _ in visits] for visits in loader._batches]
    assert [sum(number >= 12 for number in visits) for visits in numbers] == [2] * 6
    assert len(list(loader)) == 6


@pytest.fixture
def damaged(config, tiny_shards, tmp_path) -> DataConfig:
    """One of the training shards lost its end."""
    shutil.copytree(tiny_shards / "train", tmp_path / "train")
    shard = sorted((tmp_path / "train").glob("*.tar"))[0]
    shard.write_bytes(shard.read_bytes()[:-1000])
    return replace(config, train=[str(tmp_path / "train")], on_fault="skip")


def test_what_cannot_be_read_is_replaced_alike_on_any_number_of_processes(damaged):
    whole = training_batches(damaged, 0, 6)
    batches = list(whole)
    assert whole.portraits == 24 and 0 < whole.skipped < 12
    assert all("the shard has" in fault for fault in whole.faults)
    assert all(batch.image.abs().sum((1, 2, 3, 4)).min() > 0 for batch in batches)
    parts = [training_batches(replace(damaged, num_workers=1), 0, 6, rank, 2) for rank in range(2)]
    images = [[batch.image for batch in part] for part in parts]
    for step, batch in enumerate(batches):
        together = torch.cat([images[0][step], images[1][step]])
        torch.testing.assert_close(together, batch.image, rtol=0, atol=0)
    assert sum(part.skipped for part in parts) == whole.skipped


def test_a_set_that_cannot_be_read_at_all_stops_even_where_skipping_is_allowed(damaged):
    for shard in Path(damaged.train[0]).glob("*.tar"):
        shard.write_bytes(b"")
    with pytest.raises(ValueError, match="8 portraits in place of one that cannot be read cannot"):
        list(training_batches(damaged, 0, 1))


@pytest.mark.parametrize("fetch", ["shards", "members", "auto"])
@pytest.mark.parametrize("num_workers", [0, 2])
def test_batches_from_s3_are_those_from_disk(config, s3, tiny_shards, tmp_path, fetch, num_workers):
    folder = s3.new_folder()
    for file in sorted((tiny_shards / "train").iterdir(), key=lambda file: file.suffix == ".json"):
        folder.write(file.name, file.read_bytes())
    far = replace(
        config,
        train=[folder.url],
        s3=s3.options(),
        fetch=fetch,
        cache_dir=str(tmp_path / "cache"),
        num_workers=num_workers,
    )
    loader = training_batches(far, 0, 6)
    assert_same(loader, training_batches(config, 0, 6))
    assert bool(list((tmp_path / "cache").rglob("*.tar"))) == (fetch != "members")
    assert "S3" in loader.plan.sentence
