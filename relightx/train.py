"""The training program: `accelerate launch -m relightx.train --config FILE [dotted options]`.

The same loop serves one process and many. Only model and optimiser are prepared by Accelerate: our
loader is rank-aware already, and a prepared schedule would step once for each process.
"""

import copy
import os
import sys
from pathlib import Path

import torch
import yaml
from accelerate import Accelerator
from accelerate.utils import GradientAccumulationPlugin, gather_object, send_to_device, set_seed

from relightx.checkpoint import Checkpoint, newest_checkpoint, save_checkpoint, save_model
from relightx.config import Config, config_to_dict, parse_config
from relightx.data import (
    TrainingBatches,
    evaluation_batches,
    open_splits,
    training_batches,
    whole_reader,
)
from relightx.data.resume import DataState
from relightx.evaluate import decompose, summarise_portraits
from relightx.index import Index, write_atomically
from relightx.losses import total_loss
from relightx.meter import Meter
from relightx.metrics import METRICS, score
from relightx.model import IntrinsicNet
from relightx.optim import MovingAverage, build_optimizer, build_schedule, go_to_step
from relightx.panels import decomposition_panel
from relightx.tracking import Tracker

BEST_METRICS = ("normal_error_deg", "relighting_si_mse", "reconstruction_si_mse")
"""The first of these that a validation split can measure decides which weights are the best."""


def train(config: Config) -> Path:
    """Train as configured; the directory of the finished model.

    Raises ValueError for a directory that is used, data that do not fit, or a checkpoint of other
    data or another model; FloatingPointError, naming step and term, when a loss is not finite.
    """
    accelerator = _accelerator(config)
    directory = Path(config.run.dir)
    checkpoint = _find_checkpoint(config, directory, accelerator)
    start = checkpoint.step if checkpoint else 0
    loader = _training_batches(config, checkpoint, accelerator)
    if checkpoint:
        _check_same_run(checkpoint, config, loader.state(start), directory)
    hashes = {path: i.sha256 for path, i in zip(config.data.train, loader.indexes, strict=True)}
    set_seed(config.run.seed)
    network = IntrinsicNet(config.model).to(accelerator.device)
    validation = _check_validation(config, network)
    _write_config(config, hashes, directory, accelerator)
    batches = iter(loader)
    optimizer = build_optimizer(network, config.optim)
    schedule = build_schedule(optimizer, config.optim, config.run.steps)
    average = MovingAverage(network, config.optim.ema_decay)
    if checkpoint:
        network.load_state_dict(checkpoint.weights)
        optimizer.load_state_dict(checkpoint.optimizer)
        average.values = send_to_device(checkpoint.average, accelerator.device)
        go_to_step(schedule, start)
    model, prepared = accelerator.prepare(network, optimizer)
    tracker = Tracker(directory, config.run.steps, start, accelerator.is_main_process)
    meter = Meter(accelerator, tracker, start)
    best = checkpoint.about["best"] if checkpoint else None

    def save(name: str, step: int, best: dict | None) -> Path:
        about = {"steps": step, "best": best, "data": hashes}
        return save_model(
            directory / name, config.model, average.values, config.data.image_size, about
        )

    def finish(step: int) -> None:
        nonlocal best
        run, is_last = config.run, step == config.run.steps
        validates = validation and run.validate_every
        validates = validates and (step % run.validate_every == 0 or is_last)
        saves = step % run.checkpoint_every == 0 or is_last
        if validates or saves:
            meter.flush()  # refuses to keep what a bad step has spoilt
        if validates:
            scored = _validate(
                config, validation, accelerator, network, average, tracker, step, best
            )
            if scored != best and accelerator.is_main_process:
                save("best", step, scored)
            best = scored
        if saves and accelerator.is_main_process:
            data = loader.state(step).as_dict()
            about = {"config": config_to_dict(config), "data": data, "best": best}
            state = Checkpoint(
                step, network.state_dict(), average.values, optimizer.state_dict(), about
            )
            save_checkpoint(directory / "checkpoints", state, run.keep_checkpoints)

    tracker.say(
        f"training in {directory}: step {start} to {config.run.steps}, {_machine(accelerator)};"
        f" {loader.plan.sentence}"
    )
    model.train()
    for step in range(start, config.run.steps):
        for _ in range(config.run.accumulation):
            batch = meter.waited(lambda: next(batches))
            batch = send_to_device(batch, accelerator.device, non_blocking=True)
            with accelerator.accumulate(model):
                pred = model(batch.image)
                total, losses = total_loss(pred, batch, config.loss)
                accelerator.backward(total)
                if accelerator.sync_gradients:
                    norm = accelerator.clip_grad_norm_(
                        model.parameters(), config.optim.grad_clip_norm
                    )
                prepared.step()
                prepared.zero_grad()
            meter.add(step + 1, total, losses, batch.image.shape[0] * batch.image.shape[1])
        schedule.step()
        average.update(network, step)
        if (step + 1) % config.run.log_every == 0 or step + 1 == config.run.steps:
            replaced = _agree_on_replaced(loader, accelerator, step + 1)
            rate = schedule.get_last_lr()[0]
            meter.log(step + 1, {"grad_norm": norm, "learning_rate": rate, **replaced})
        finish(step + 1)
    model_directory = directory / "model"
    if accelerator.is_main_process:
        save("model", config.run.steps, best)
    accelerator.wait_for_everyone()
    tracker.say(f"model written to {model_directory}")
    tracker.close()
    accelerator.end_training()
    return model_directory


def choose_precision(precision: str) -> str:
    """'bf16' or 'float32': 'auto' takes bf16 where matrix units make it the faster one.

    On CPUs that means AMX: without it bf16 convolutions ran at 0.7 times the speed of float32.
    """
    if precision != "auto":
        return precision
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported() else "float32"
    return "bf16" if torch.cpu._is_amx_tile_supported() else "float32"


def _accelerator(config: Config) -> Accelerator:
    precision = choose_precision(config.run.precision)
    accelerator = Accelerator(
        # Unasked, Accelerate lets each process of a GPU-less launch believe that it is alone.
        cpu=not torch.accelerator.is_available(),
        mixed_precision="bf16" if precision == "bf16" else "no",
        step_scheduler_with_optimizer=False,
        gradient_accumulation_plugin=GradientAccumulationPlugin(
            num_steps=config.run.accumulation, sync_with_dataloader=False
        ),
    )
    expected = int(os.environ.get("WORLD_SIZE", "1"))
    if accelerator.num_processes != expected:
        raise ValueError(
            f"{expected} processes were launched, this one sees {accelerator.num_processes}: each"
            " would train alone. Use a file of configs/accelerate/"
        )
    if accelerator.device.type == "cpu":
        # The launcher exports OMP_NUM_THREADS=1, which would leave all cores but one idle.
        local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // local))
    return accelerator


def _find_checkpoint(
    config: Config, directory: Path, accelerator: Accelerator
) -> Checkpoint | None:
    """Refuse a used directory and find the checkpoint to go on from; nothing is made yet."""
    if directory.exists() and not directory.is_dir():
        raise ValueError(f"run.dir {directory} is a file; name a new directory")
    used = directory.exists() and any(directory.iterdir())
    accelerator.wait_for_everyone()
    if used and not config.run.resume:
        raise ValueError(
            f"run.dir {directory} is already used; choose another, or continue it with"
            " --run.resume true"
        )
    checkpoint, passed_over = newest_checkpoint(directory / "checkpoints")
    if accelerator.is_main_process:
        for reason in passed_over:
            print(f"relightx train: checkpoint passed over: {reason}", file=sys.stderr)
    return checkpoint


def _check_validation(config: Config, network: IntrinsicNet) -> list[Index]:
    """The splits of data.val; refuses now what would fail at the first validation, hours later."""
    indexes = open_splits(config.data.val, config.data)
    if config.data.image_size % network.size_multiple:
        raise ValueError(
            f"data.image_size is {config.data.image_size}; preset {config.model.preset} needs a"
            f" multiple of {network.size_multiple}"
        )
    return indexes


def _write_config(
    config: Config, hashes: dict[str, str], directory: Path, accelerator: Accelerator
) -> None:
    """Make the run's directory with the resolved config in it."""
    if accelerator.is_main_process:
        directory.mkdir(parents=True, exist_ok=True)
        text = yaml.safe_dump(config_to_dict(config), sort_keys=False)
        head = "".join(f"# {path}: index sha256 {value}\n" for path, value in hashes.items())
        write_atomically(directory / "config.yaml", (head + text).encode())
    accelerator.wait_for_everyone()


def _training_batches(
    config: Config, checkpoint: Checkpoint | None, accelerator: Accelerator
) -> TrainingBatches:
    return training_batches(
        config.data,
        checkpoint.step if checkpoint else 0,
        config.run.steps,
        accelerator.process_index,
        accelerator.num_processes,
        config.run.accumulation,
        first_row=checkpoint.about["data"]["row"] if checkpoint else 0,
        node_ranks=int(os.environ.get("LOCAL_WORLD_SIZE", "1")),
    )


def _agree_on_replaced(
    loader: TrainingBatches, accelerator: Accelerator, step: int
) -> dict[str, int]:
    """The portraits of all processes that could not be read and were replaced, for the log.

    Raises ValueError, in every process at the same step, when they are too many: more than
    data.max_skipped of an epoch, or of what was read if that is more.
    """
    if loader.config.on_fault == "stop":
        return {}
    while loader.faults:
        print(f"relightx train: step {step}: replaced: {loader.faults.popleft()}", file=sys.stderr)
    counts = torch.tensor([loader.skipped, loader.portraits], device=accelerator.device)
    replaced, read = accelerator.reduce(counts, "sum").tolist()
    epoch = sum(index.num_groups for index in loader.indexes)
    if replaced > loader.config.max_skipped * max(read, epoch):
        raise ValueError(
            f"step {step}: {replaced} of {read} portraits could not be read and were replaced, more"
            f" than data.max_skipped {loader.config.max_skipped} allows; the reasons stand above"
        )
    return {"replaced": replaced}


def _check_same_run(
    checkpoint: Checkpoint, config: Config, data: DataState, directory: Path
) -> None:
    about, asked = checkpoint.about, config_to_dict(config)["model"]
    if about["config"]["model"] != asked:
        raise ValueError(
            f"{directory}: its checkpoint is of the model {about['config']['model']}, the config"
            f" asks for {asked}"
        )
    changes = DataState(**about["data"]).changes(data)
    if changes and not config.run.allow_changed_data:
        raise ValueError(
            f"{directory}: its checkpoint cannot go on with the same data: {'; '.join(changes)}."
            " Restore that, start a new run, or say --run.allow_changed_data true"
        )
    if checkpoint.step > config.run.steps:
        raise ValueError(
            f"{directory}: its checkpoint is at step {checkpoint.step}, run.steps is"
            f" {config.run.steps}"
        )


@torch.no_grad()
def _validate(
    config: Config,
    indexes: list[Index],
    accelerator: Accelerator,
    network: IntrinsicNet,
    average: MovingAverage,
    tracker: Tracker,
    step: int,
    best: dict | None,
) -> dict | None:
    """Score the averaged weights, each process its share; the best score so far is returned."""
    model = copy.deepcopy(network).eval()
    model.load_state_dict(average.values)
    scores, first = {}, None
    for key, batch in evaluation_batches(
        indexes,
        config.data.image_size,
        config.run.validate_lights,
        accelerator.process_index,
        accelerator.num_processes,
        reader=whole_reader(indexes, config.data),
    ):
        pred = decompose(model, batch, accelerator.device)
        if not all(bool(value.isfinite().all()) for value in pred):
            raise FloatingPointError(
                f"step {step}: the averaged weights answer portrait {key!r} with values that are"
                " not finite; nothing was saved from this step on. Lower optim.learning_rate"
            )
        first = first or (pred, batch)
        if batch.valid.all():
            scores[key] = {name: value.item() for name, value in score(pred, batch).items()}
    everyone = {key: row for part in gather_object([scores]) for key, row in part.items()}
    held = sum(index.num_groups for index in indexes)
    if len(everyone) != held:
        raise RuntimeError(f"{len(everyone)} portraits were validated, data.val has {held}")
    means = {name: s.mean for name, s in summarise_portraits(everyone).items() if s.count}
    name = next(name for name in BEST_METRICS if name in means)
    comparable = best is not None and best["metric"] == name
    is_best = not comparable or METRICS[name].improves(means[name], best["value"])
    note = "  ".join(f"{n} {means[n]:.4g}" for n in BEST_METRICS if n in means)
    tracker.log(
        step, {f"val/{n}": v for n, v in means.items()}, f"val {note}{'  best' if is_best else ''}"
    )
    tracker.picture(step, "val/decomposition", decomposition_panel(*first))
    return {"metric": name, "value": means[name], "step": step} if is_best else best


def _machine(accelerator: Accelerator) -> str:
    return (
        f"{accelerator.num_processes} process(es) on {accelerator.device.type},"
        f" {'bf16' if accelerator.mixed_precision == 'bf16' else 'float32'}"
    )


def main(arguments: list[str] | None = None, prog: str = "relightx train") -> int:
    """Exit status 0; 2 for a wrong request, with a message; 1 for a loss that is not finite."""
    config = parse_config(sys.argv[1:] if arguments is None else arguments, prog)
    try:
        train(config)
    except FloatingPointError as error:
        print(f"{prog}: error: {error}", file=sys.stderr)
        return 1
    except (ValueError, OSError) as error:
        # Torch hands on the error of a reader process as its whole traceback.
        text = str(error).rsplit("\nValueError: ", 1)[-1].strip()
        print(f"{prog}: error: {text}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
