"""The training program: `accelerate launch -m relightx.train --config FILE [dotted options]`.

The same loop serves one process and many, whatever they share (relightx.backend). Data, losses and
schedule know of ranks only what they must: our loader is rank-aware, and kept out of Accelerate,
which would split it again; the schedule steps once for each optimiser step.
"""

import socket
import sys
import time
from pathlib import Path
from typing import Any

import torch
import yaml
from accelerate import Accelerator
from accelerate.utils import send_to_device, set_seed

from relightx.backend import (
    Backend,
    Stop,
    Watch,
    choose_precision,
    program,
    refuse_differences,
)
from relightx.backend.stop import STOP_FILE
from relightx.backend.whole import load_moments, local, parts_of, whole, whole_moments
from relightx.boards import Boards, check_boards
from relightx.checkpoint import Checkpoint, newest_checkpoint, save_model
from relightx.config import Config, config_to_dict, leaves, parse_config
from relightx.data import TrainingBatches, open_splits, training_batches
from relightx.data.fault import cause_of
from relightx.data.resume import DataState
from relightx.ending import REQUEUE_FILE, STOPPED
from relightx.index import Index, write_atomically
from relightx.losses import total_loss
from relightx.meter import Meter
from relightx.model import IntrinsicNet
from relightx.optim import MovingAverage, go_to_step
from relightx.saving import Saver, fetch_newest, send_model
from relightx.storage import open_folder
from relightx.tracking import Tracker
from relightx.validation import validate

_VISIBLE_S = 20.0


class Stopped(Exception):
    """A run was asked to stop and has a checkpoint; the message says so."""


def train(config: Config) -> Path:
    """Train as configured; the directory of the finished model.

    Raises ValueError for a directory that is used, data that do not fit, a checkpoint of other
    data or another model, processes that differ; FloatingPointError, naming step and term, when a
    loss is not finite; Stopped when it was asked to stop.
    """
    run = config.run
    check_boards(run.boards)
    backend = Backend(run, config.optim, config.data.batch_size)
    refuse_differences(
        backend.accelerator,
        {**program(), **leaves(config_to_dict(config))},
        "Start all with the same program and options",
    )
    directory = Path(run.dir)
    checkpoint = _find_checkpoint(config, directory, backend)
    launched = backend.launched
    with (
        Watch(directory, launched.rank, launched.world_size, run.hang_s) as watch,
        Stop(directory, backend.is_main) as stop,
    ):
        training = _Training(config, backend, checkpoint, watch)
        try:
            return training.go(stop)
        finally:
            training.saver.close()


class _Training:
    """One run from a checkpoint, or from its beginning."""

    def __init__(
        self, config: Config, backend: Backend, checkpoint: Checkpoint | None, watch: Watch
    ) -> None:
        self.config, self.backend, self.watch = config, backend, watch
        self.accelerator = backend.accelerator
        self.directory = Path(config.run.dir)
        self.start = checkpoint.step if checkpoint else 0
        self.loader = _training_batches(config, checkpoint, backend)
        if checkpoint:
            _check_same_run(checkpoint, config, self.loader.state(self.start), self.directory)
        indexes = zip(config.data.train, self.loader.indexes, strict=True)
        self.hashes = {path: index.sha256 for path, index in indexes}
        set_seed(config.run.seed)
        network = IntrinsicNet(config.model)
        self.validation = _check_validation(config, network)
        _write_config(config, self.hashes, self.directory, backend)
        self.batches = iter(self.loader)
        if checkpoint:
            network.load_state_dict(checkpoint.weights)
        backend.prepare(network, config.run.steps)
        self.network = network
        self.average = MovingAverage(local(network), config.optim.ema_decay)
        if checkpoint:
            load_moments(network, backend.optimizer, checkpoint.optimizer, self.start)
            self.average.values = parts_of(network, checkpoint.average)
            go_to_step(backend.schedule, self.start)
        self.best = checkpoint.about["best"] if checkpoint else None
        self.tracker = Tracker(
            self.directory, config.run.steps, self.start, backend.is_main, self._boards()
        )
        self.meter = Meter(self.accelerator, self.tracker, self.start)
        upload = open_folder(config.run.upload, config.data.s3) if config.run.upload else None
        self.saver = Saver(self.directory, config.run.keep_checkpoints, upload)

    def go(self, stop: Stop) -> Path:
        """All steps that are left; the directory of the finished model."""
        run = self.config.run
        self.tracker.say(
            f"training in {self.directory}: step {self.start} to {run.steps}, {self._machine()};"
            f" {self.loader.plan.sentence}"
        )
        self.backend.model.train()
        for step in range(self.start, run.steps):
            norm = self._step(step)
            if (step + 1) % run.log_every == 0 or step + 1 == run.steps:
                self._report(step + 1, norm)
            self._finish(step + 1)
            if stop.asked() and step + 1 < run.steps:
                self._stop(step + 1, stop.cause)
        return self._end()

    def _step(self, step: int) -> Any:
        """One optimiser step; the gradients' norm."""
        backend, norm = self.backend, None
        for _ in range(self.config.run.accumulation):
            self.watch.at(step + 1, "data")
            batch = self.meter.waited(lambda: next(self.batches))
            batch = send_to_device(batch, self.accelerator.device, non_blocking=True)
            with backend.micro_batch():
                self.watch.at(step + 1, "forward")
                pred = backend.forward(batch.image)
                total, losses = total_loss(pred, batch, self.config.loss)
                self.watch.at(step + 1, "backward")
                backend.backward(total)
                norm = backend.step()
            self.meter.add(step + 1, total, losses, batch.image.shape[0] * batch.image.shape[1])
        self.average.update(local(self.network), step)
        return norm

    def _report(self, step: int, norm: Any) -> None:
        self.watch.at(step, "report")
        faults = _agree_on_faults(self.loader, self.accelerator, step)
        rate = self.backend.schedule.get_last_lr()[0]
        self.meter.log(step, {"grad_norm": norm, "learning_rate": rate, **faults})

    def _finish(self, step: int) -> None:
        """Validate and save, where it is time for that."""
        run, is_last = self.config.run, step == self.config.run.steps
        validates = bool(self.validation) and bool(run.validate_every)
        validates = validates and (step % run.validate_every == 0 or is_last)
        saves = step % run.checkpoint_every == 0 or is_last
        if validates or saves:
            self.watch.at(step, "report")
            self.meter.flush()  # refuses to keep what a bad step has spoilt
        if validates:
            self._validate(step)
        if saves:
            self._save(step)

    def _validate(self, step: int) -> None:
        average = whole(self.network, self.average.values)
        best = validate(
            self.config,
            self.validation,
            self.accelerator,
            average,
            self.tracker,
            step,
            self.best,
            lambda key: self.watch.at(step, f"validation of {key}"),
        )
        if best != self.best and self.backend.is_main:
            self._write_model("best", step, best, average)
        self.best = best

    def _save(self, step: int) -> None:
        """Begin to write a checkpoint; what is cut up over processes is put together by all."""
        self.watch.at(step, "save")
        start = time.perf_counter()
        state = Checkpoint(
            step,
            whole(self.network, local(self.network)),
            whole(self.network, self.average.values),
            whole_moments(self.network, self.backend.optimizer),
            {
                "config": config_to_dict(self.config),
                "data": self.loader.state(step).as_dict(),
                "best": self.best,
                "backend": self.backend.kind,
                "processes": self.backend.launched.world_size,
            },
        )
        if self.backend.is_main:
            self.saver.save(state)
        self.meter.saved(time.perf_counter() - start)

    def _stop(self, step: int, cause: str) -> None:
        """Save, have it on disk, and end in every process."""
        run = self.config.run
        if step % run.checkpoint_every:
            self.meter.flush()
            self._save(step)
        if self.backend.is_main:
            self.saver.wait()
            (self.directory / REQUEUE_FILE).touch()
        self.accelerator.wait_for_everyone()
        self.tracker.close()
        self.accelerator.end_training()
        raise Stopped(
            f"stopped at step {step} of {run.steps}, asked by {cause or 'another process'}; its"
            " checkpoint is written: go on with --run.resume true"
        )

    def _end(self) -> Path:
        """Write the finished model."""
        average = whole(self.network, self.average.values)
        directory = self.directory / "model"
        if self.backend.is_main:
            self._write_model("model", self.config.run.steps, self.best, average)
            self.saver.wait()
            if self.saver.upload is not None:
                send_model(directory, open_folder(self.config.run.upload, self.config.data.s3))
        self.watch.at(self.config.run.steps, "save")
        self.accelerator.wait_for_everyone()
        self.tracker.say(f"model written to {directory}")
        self.tracker.close()
        self.accelerator.end_training()
        return directory

    def _write_model(self, name: str, step: int, best: dict | None, average: dict) -> None:
        about = {"steps": step, "best": best, "data": self.hashes}
        size = self.config.data.image_size
        save_model(self.directory / name, self.config.model, average, size, about)

    def _boards(self) -> Boards | None:
        if not self.backend.is_main:
            return None
        run, settings = self.config.run, leaves(config_to_dict(self.config))
        return Boards(run.boards, run.project, self.directory, self.start, settings)

    def _machine(self) -> str:
        launched = self.backend.launched
        precision = choose_precision(self.config.run.precision)
        return (
            f"{launched.world_size} process(es) on {self.accelerator.device.type}, {launched.kind},"
            f" {precision}"
        )


def _find_checkpoint(config: Config, directory: Path, backend: Backend) -> Checkpoint | None:
    """Refuse a used directory and find the checkpoint to go on from; nothing is made yet."""
    if directory.exists() and not directory.is_dir():
        raise ValueError(f"run.dir {directory} is a file; name a new directory")
    used = directory.exists() and any(directory.iterdir())
    backend.accelerator.wait_for_everyone()
    if used and not config.run.resume:
        raise ValueError(
            f"run.dir {directory} is already used; choose another, or continue it with"
            " --run.resume true"
        )
    passed_over = []
    if config.run.upload and config.run.resume and backend.accelerator.is_local_main_process:
        folder = open_folder(config.run.upload, config.data.s3)
        passed_over = fetch_newest(folder, directory / "checkpoints")
    backend.accelerator.wait_for_everyone()
    checkpoint, broken = newest_checkpoint(directory / "checkpoints")
    if backend.is_main:
        for reason in (*passed_over, *broken):
            print(f"relightx train: checkpoint passed over: {reason}", file=sys.stderr)
    refuse_differences(
        backend.accelerator,
        {"the step of the newest checkpoint": checkpoint.step if checkpoint else None},
        f"run.dir {directory} must lie on a disk that all nodes share, or run.upload must be given",
    )
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
    config: Config, hashes: dict[str, str], directory: Path, backend: Backend
) -> None:
    """Make the run's directory with the resolved config in it, and see that all processes see it.

    Raises ValueError in one that does not.
    """
    if backend.is_main:
        directory.mkdir(parents=True, exist_ok=True)
        text = yaml.safe_dump(config_to_dict(config), sort_keys=False)
        head = "".join(f"# {path}: index sha256 {value}\n" for path, value in hashes.items())
        write_atomically(directory / "config.yaml", (head + text).encode())
        for name in (STOP_FILE, REQUEUE_FILE):  # of the run that was stopped
            (directory / name).unlink(missing_ok=True)
    backend.accelerator.wait_for_everyone()
    until = time.monotonic() + _VISIBLE_S  # a network disk may be late
    while not (directory / "config.yaml").exists():
        if time.monotonic() > until:
            raise ValueError(
                f"rank {backend.launched.rank} on {socket.gethostname()} does not see"
                f" {directory.absolute()}, which rank 0 has made: run.dir must lie on a disk that"
                " all nodes share"
            )
        time.sleep(0.1)


def _training_batches(
    config: Config, checkpoint: Checkpoint | None, backend: Backend
) -> TrainingBatches:
    launched = backend.launched
    return training_batches(
        config.data,
        checkpoint.step if checkpoint else 0,
        config.run.steps,
        launched.rank,
        launched.world_size,
        config.run.accumulation,
        first_row=checkpoint.about["data"]["row"] if checkpoint else 0,
        node_ranks=launched.local_size,
    )


def _agree_on_faults(
    loader: TrainingBatches, accelerator: Accelerator, step: int
) -> dict[str, int]:
    """What S3 had to be asked again by all processes so far, and the portraits that could not be
    read and were replaced, for the log.

    Raises ValueError, in every process at the same step, when they are too many: more than
    data.max_skipped of an epoch, or of what was read if that is more.
    """
    while loader.faults:
        print(f"relightx train: step {step}: replaced: {loader.faults.popleft()}", file=sys.stderr)
    own = [loader.retries, loader.skipped, loader.portraits]
    counts = torch.tensor(own, device=accelerator.device)
    retries, replaced, read = accelerator.reduce(counts, "sum").tolist()
    if loader.config.on_fault == "stop":
        return {"retries": retries}
    epoch = sum(index.num_groups for index in loader.indexes)
    if replaced > loader.config.max_skipped * max(read, epoch):
        raise ValueError(
            f"step {step}: {replaced} of {read} portraits could not be read and were replaced, more"
            f" than data.max_skipped {loader.config.max_skipped} allows; the reasons stand above"
        )
    return {"retries": retries, "replaced": replaced}


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


def main(arguments: list[str] | None = None, prog: str = "relightx train") -> int:
    """Exit status 0; 1 for a loss that is not finite; 2 for a wrong request, with a message; 3 for
    a run that was asked to stop and can be resumed."""
    config = parse_config(sys.argv[1:] if arguments is None else arguments, prog)
    try:
        train(config)
    except Stopped as stopped:
        print(f"{prog}: {stopped}", file=sys.stderr)
        return STOPPED
    except FloatingPointError as error:
        print(f"{prog}: error: {error}", file=sys.stderr)
        return 1
    except (ValueError, OSError) as error:
        print(f"{prog}: error: {cause_of(error)}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
