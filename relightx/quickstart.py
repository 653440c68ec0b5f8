"""From nothing to a trained model and a report: the real programs, one after the other.

Shards and training run as the commands that the report shows, in processes of their own; the
length of training is set by timing a few of its steps on this machine. report.html is written
last, so a directory without one is of a run that did not finish.
"""

import json
import math
import os
import shlex
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import yaml
from accelerate.utils import send_to_device

from relightx.backend import choose_precision
from relightx.config import Config, config_from_dict
from relightx.data.collate import collate
from relightx.data.portraits import TrainingPortraits
from relightx.data.read import ShardReader
from relightx.evaluate import Evaluation, evaluate, print_evaluation, write_evaluation
from relightx.face import crop_transform, find_face
from relightx.gallery import Gallery, heads_gallery, photo_gallery
from relightx.index import read_index, write_atomically
from relightx.light import Light
from relightx.losses import total_loss
from relightx.model import IntrinsicNet
from relightx.optim import build_optimizer
from relightx.pictures import write_decomposition
from relightx.portrait import load, read_linear
from relightx.report import Stage, Step, write_report
from relightx.runlog import LOG_NAME, read_log
from relightx.stage import duration, leaving_on_termination, run, say, stage
from shards.rendering.environments import shipped_environments
from shards.rendering.synthetic import synthetic_jobs
from shards.splits import SPLITS

PHOTO = Path(__file__).parent / "photos" / "astronaut.jpg"
NAMES = ("shards", "training", "evaluation", "pictures", "report")
LIGHTS = 8
MIN_HEADS = 20
STEPS = (60, 3000)
_LARGE_BATCH, _SMALL_BATCH = 16, 8
_ENOUGH_STEPS = 500
"""With fewer steps than this in the time given, smaller batches and more steps learn more."""
_TIMED_STEPS = 5
_FOR_STEPS = 0.85
"""Share of the minutes that steps get; validations, checkpoints and start-up need the rest."""
ACCELERATE = {
    "compute_environment": "LOCAL_MACHINE",
    "distributed_type": "NO",
    "num_machines": 1,
    "num_processes": 1,
    "machine_rank": 0,
    "use_cpu": False,
    "mixed_precision": "no",
}
"""One process on this machine, on its GPU if it has one."""
_ENVIRONMENTS = ("apartment", "bridge", "esplanade", "lobby", "warehouse")
REMARKS = (
    "The training people are rendered: smooth skin, few expressions, no glasses, no cast"
    " shadows, no gloss. The numbers hold for such heads, not for photographs.",
    "On a photograph, highlights and cast shadows therefore end up in the albedo, and relighting"
    " keeps them. Hair and background are left as they were.",
    "A light is nine numbers per colour: soft light and the direction of one lamp can be told,"
    " the hard edge of a shadow cannot.",
    "Training stopped after minutes. The curves show whether it was still improving.",
    "One run with one seed: differences of a few percent between two such runs mean nothing.",
)


def quickstart(
    out: Path,
    minutes: float = 5.0,
    heads: int = 240,
    photo: Path | None = None,
    size: int = 128,
    seed: int = 0,
) -> Path:
    """Shards, training, evaluation, pictures and report under `out`; the report's path.

    minutes: of training. heads: synthetic people. photo: a portrait instead of the one shipped.
    size: side of the heads and of the network's pictures, in pixels. seed: of everything random.
    Raises ValueError for a directory that is used and options out of range, before any work;
    StageFailed when a stage does not work, and then there is no report.
    """
    _check(out, minutes, heads, photo, size, seed)
    portrait = photo or PHOTO
    stages: list[Stage] = []
    with leaving_on_termination():
        out.mkdir(parents=True, exist_ok=True)
        stages.append(_make_shards(out, heads, size, seed))
        stages.append(_train(out, minutes, size, seed))
        evaluation, evaluated = _evaluate(out)
        stages.append(evaluated)
        galleries, drawn = _pictures(out, evaluation, portrait, is_own=photo is not None)
        stages.append(drawn)
        with _stage("report"):
            report = write_report(
                out / "training",
                out / "report.html",
                title="A portrait model, from nothing",
                lead=_lead(stages, heads, evaluation),
                evaluation=evaluation.as_dict(),
                galleries=galleries,
                stages=stages,
                remarks=REMARKS,
                steps=_next_steps(out, portrait, size),
            )
    summary = {"stages": [asdict(stage) for stage in stages]}
    write_atomically(out / "summary.json", (json.dumps(summary, indent=1) + "\n").encode())
    for line in _summary(evaluation, stages, report):
        say(line)
    return report


def training_values(out: Path, size: int, seed: int, batch_size: int, steps: int) -> dict[str, Any]:
    """The values of the training run's configuration that differ from the defaults."""
    splits = {name: out / "shards" / name for name in ("train", "val")}
    has_val = (splits["val"] / "index.json").is_file()
    return {
        "run": {
            "dir": str(out / "training"),
            "steps": steps,
            "seed": seed,
            "log_every": max(1, steps // 60),
            "validate_every": math.ceil(steps / 6),
            "validate_lights": 4,
            "checkpoint_every": math.ceil(steps / 3),
        },
        "data": {
            "train": [str(splits["train"])],
            "val": [str(splits["val"])] if has_val else [],
            "image_size": size,
            "batch_size": batch_size,
            "num_workers": 0,  # the heads fit in memory, and two cores have none to spare
            "memory_cache_mb": 4096,
            "seed": seed,
        },
        "model": {"preset": "unet", "width": 32},
        "optim": {
            "learning_rate": 2e-3,
            "warmup_steps": min(100, steps // 10),
            "ema_decay": 0.995,
        },
    }


def seconds_per_step(config: Config) -> tuple[float, float]:
    """Time of an optimiser step on this machine, and of reading a portrait for the first time."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    indexes = [read_index(path) for path in config.data.train]
    portraits = TrainingPortraits(indexes, ShardReader(indexes), config.data)
    count = min(config.data.batch_size, len(portraits.reader))
    visits = [(index % count, 0) for index in range(config.data.batch_size)]
    start = time.perf_counter()
    collate([portraits[visit] for visit in visits])
    reading = (time.perf_counter() - start) / count
    network = IntrinsicNet(config.model).to(device)
    optimizer = build_optimizer(network, config.optim)
    halved = choose_precision(config.run.precision) == "bf16"
    times = []
    for _ in range(2 + _TIMED_STEPS):  # the first two prepare memory and kernels
        start = time.perf_counter()
        batch = send_to_device(collate([portraits[visit] for visit in visits]), device)
        with torch.autocast(device.type, torch.bfloat16, enabled=halved):
            pred = network(batch.image)
        total, _ = total_loss(pred, batch, config.loss)
        total.backward()
        optimizer.step()
        optimizer.zero_grad()
        total.item()
        times.append(time.perf_counter() - start)
    return statistics.median(times[2:]), reading


def choose_steps(out: Path, minutes: float, size: int, seed: int) -> tuple[int, int]:
    """Batch size and number of steps that fill the minutes on this machine, within STEPS."""
    heads = read_index(out / "shards" / "train").num_groups
    for batch_size in (_LARGE_BATCH, _SMALL_BATCH):
        config = config_from_dict(training_values(out, size, seed, batch_size, STEPS[0]))
        step_s, reading_s = seconds_per_step(config)
        steps = int((_FOR_STEPS * 60 * minutes - heads * reading_s) / step_s)
        if steps >= _ENOUGH_STEPS:
            break
    return batch_size, min(max(steps, STEPS[0]), STEPS[1])


def _check(out: Path, minutes: float, heads: int, photo: Path | None, size: int, seed: int) -> None:
    """Refuse what could not work, before anything is made."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(
            f"{out}: already there and not empty, perhaps from an earlier quickstart; remove it or"
            " choose another directory with --out"
        )
    if not 0 < minutes <= 24 * 60:
        raise ValueError(f"minutes is {minutes}; above 0 and at most a day needed")
    if heads < MIN_HEADS:
        raise ValueError(f"heads is {heads}; at least {MIN_HEADS} needed, some to test on")
    if size % 16 or not 32 <= size <= 512:
        raise ValueError(f"size is {size}; a multiple of 16 from 32 to 512 needed")
    synthetic_jobs(heads=heads, lights=LIGHTS, size=size, seed=seed)
    if photo is not None:
        face = find_face(read_linear(photo))
        if face is not None:
            crop_transform(face, size)


def split_shares(heads: int) -> dict[str, float]:
    """Shares of the heads to train, validate and test on; a small number tests on more of them."""
    val = round(min(max(4 / heads, 0.05), 0.1), 2)
    test = round(min(max(8 / heads, 0.1), 0.25), 2)
    return {"train": round(1 - val - test, 2), "val": val, "test": test}


def _make_shards(out: Path, heads: int, size: int, seed: int) -> Stage:
    with _stage("shards") as clock:
        shares = ",".join(f"{name}={share}" for name, share in split_shares(heads).items())
        options = ["build", "synthetic", "--heads", heads, "--lights", LIGHTS, "--size", size]
        options += ["--seed", seed, "--workers", min(8, len(os.sched_getaffinity(0)))]
        options += ["--split", shares, "--out", out / "shards"]
        command = ["relightx-shards", *map(str, options)]
        run([sys.executable, "-m", "shards.cli", *command[1:]])
        counts = [
            f"{len(read_index(path.parent).groups)} to {path.parent.name}" for path in _splits(out)
        ]
    text = f"{heads} people under {LIGHTS} lights, {size} pixels: {', '.join(counts)}"
    return Stage("shards", text, clock(), shlex.join(command))


def _train(out: Path, minutes: float, size: int, seed: int) -> Stage:
    with _stage("training") as clock:
        batch_size, steps = choose_steps(out, minutes, size, seed)
        told = f"{steps} steps of {batch_size} people under 2 lights"
        say(f"{told}, after timing some: about {minutes:g} min")
        head = "# The training run of relightx quickstart; what is not said here is the default.\n"
        values = training_values(out, size, seed, batch_size, steps)
        written = head + yaml.safe_dump(values, sort_keys=False)
        write_atomically(out / "train.yaml", written.encode())
        # Without a file of its own, accelerate takes the user's, which may be for a cluster.
        write_atomically(out / "accelerate.yaml", yaml.safe_dump(ACCELERATE).encode())
        command = _training_command(out)
        run([sys.executable, "-m", "accelerate.commands.launch", *command[2:]])
        records = read_log(out / "training" / LOG_NAME)
        speeds = [record["images_per_s"] for record in records if "images_per_s" in record]
    text = f"{told} in {_precision()}, {statistics.median(speeds):.0f} pictures a second"
    return Stage("training", text, clock(), shlex.join(command))


def _training_command(out: Path) -> list[str]:
    launch = ["accelerate", "launch", "--config_file", str(out / "accelerate.yaml")]
    return [*launch, "-m", "relightx.train", "--config", str(out / "train.yaml")]


def _precision() -> str:
    return choose_precision("auto")


def _evaluate(out: Path) -> tuple[Evaluation, Stage]:
    model, shards, written = out / "training", out / "shards", out / "evaluation.json"
    with _stage("evaluation") as clock:
        evaluation = evaluate(
            model, shards / "test", baseline_data=shards / "train", untrained=True
        )
        write_evaluation(evaluation, written)
        print_evaluation(evaluation)
    command = ["relightx", "evaluate", "--model", model, "--data", shards / "test"]
    command += ["--baselines", shards / "train", "--untrained", "--out", written]
    text = f"{evaluation.portraits} unseen people, every light to every other, four contestants"
    return evaluation, Stage("evaluation", text, clock(), shlex.join(map(str, command)))


def _pictures(
    out: Path, evaluation: Evaluation, photo: Path, is_own: bool
) -> tuple[list[Gallery], Stage]:
    with _stage("pictures") as clock:
        model = load(out / "training")
        result = model.decompose(photo)
        write_decomposition(result, out / "photograph")
        environments = shipped_environments()
        lights = {name: Light(environments[name]) for name in _ENVIRONMENTS}
        name = f"{photo.name}." if is_own else "Eileen Collins, NASA; public domain."
        scores = evaluation.per_portrait["model"]
        galleries = [
            photo_gallery(result, name, lights),
            heads_gallery(model, out / "shards" / "test", scores),
        ]
    command = ["relightx", "decompose", "--model", out / "training", photo]
    command += ["--out", out / "photograph"]
    text = "a photograph and four unseen heads, taken apart and relit"
    return galleries, Stage("pictures", text, clock(), shlex.join(map(str, command)))


def _next_steps(out: Path, photo: Path, size: int) -> list[Step]:
    """What can be done with what is there now; every command exists and takes these options."""
    model, longer = out / "training", out.with_name(f"{out.name}-longer")
    train = shlex.join(_training_command(out))
    use = f"--model {shlex.quote(str(model))} {shlex.quote(str(photo))}"
    return [
        Step(
            "Relight a photograph of yours",
            "Put your own file in place of the last word before --light. A light is a direction, a"
            " JSON file of coefficients, an .hdr or .exr environment map, or another photograph.",
            f"relightx relight {use} --light direction:60,20 --out relit.png",
        ),
        Step(
            "Take it apart",
            "Albedo, normals, shading, mask and light as files.",
            f"relightx decompose {use} --out parts",
        ),
        Step(
            "Train longer, on more heads",
            "The most certain way to better numbers: ten times the people and of the steps.",
            f"relightx-shards build synthetic --heads 2400 --size {size} --workers 2"
            " --out data/heads\n"
            f"{train} --run.dir {shlex.quote(str(longer))} --run.steps 10000"
            " --data.train '[data/heads/train]' --data.val '[data/heads/val]'\n"
            f"relightx evaluate --model {shlex.quote(str(longer))} --data data/heads/test"
            " --baselines data/heads/train",
        ),
        Step(
            "Train on photographs of yours",
            "A folder for each person, in it the same pose under different lights. Labels are"
            " optional: without them the model learns from the lights alone."
            " relightx-shards build folder --help shows the layout.",
            "relightx-shards build folder --in my-photographs --out data/mine\n"
            f"{train} --run.dir runs/mine --data.train '[data/mine/train]'"
            " --data.val '[data/mine/val]'",
        ),
        Step(
            "Watch a run",
            "Losses, metrics and pictures while it trains.",
            f"tensorboard --logdir {shlex.quote(str(model / 'tensorboard'))}",
        ),
    ]


def _lead(stages: list[Stage], heads: int, evaluation: Evaluation) -> str:
    times = {stage.name: stage.seconds for stage in stages}
    return (
        f"{heads} heads were rendered, a small network was trained on them for"
        f" {duration(times['training'])}, measured on {evaluation.portraits} people that it had"
        f" never seen, and tried on a photograph. Everything took {duration(sum(times.values()))}."
    )


def _summary(evaluation: Evaluation, stages: list[Stage], report: Path) -> list[str]:
    def line(label: str, metric: str, unit: str) -> str:
        found = {
            name: summary[metric].mean
            for name, summary in evaluation.summaries.items()
            if metric in summary and summary[metric].count
        }
        others = ", ".join(
            f"{n.replace('_', ' ')} {v:.3g}" for n, v in found.items() if n != "model"
        )
        return f"{label:<12}{found['model']:.3g}{unit} ({others})"

    times = ", ".join(f"{stage.name} {duration(stage.seconds)}" for stage in stages)
    return [
        f"\non {evaluation.portraits} unseen people, lower is better:",
        line("normals", "normal_error_deg", " degrees off"),
        line("albedo", "albedo_si_mae", " mean error"),
        line("relighting", "relighting_si_mse", " square error"),
        f"{'time':<12}{times}",
        f"{'report':<12}{report}",
    ]


def _splits(out: Path) -> list[Path]:
    files = [out / "shards" / name / "index.json" for name in SPLITS]
    return [file for file in files if file.is_file()]


def _stage(name: str) -> AbstractContextManager[Callable[[], float]]:
    return stage(name, NAMES.index(name) + 1, len(NAMES))
