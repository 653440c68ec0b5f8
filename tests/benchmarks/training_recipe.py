"""Images a second of this project's training step against the public re-implementations' recipe.

    python tests/benchmarks/training_recipe.py [--images 8] [--size 128] [--rounds 5]

Both train the same network, SfSNet's, on the same noise. The recipe is what the public PyTorch
re-implementations write: float32 in rows of planes, one forward pass for each image of a pair,
shading from nine planes made one by one, Adam as torch makes it, and every loss read back for the
log at every step. Ours: the step of relightx.train: lights stacked into one pass, memory laid out
and autocast as they pay here, fused AdamW, clipping and averaging, losses read back at reports.
Rounds are interleaved; medians, and the ratio of each round's pair.
"""

import argparse
import copy
import math
import statistics
from collections.abc import Callable

import torch
from accelerate.utils import send_to_device
from torch import Tensor, nn

from relightx.backend import choose_precision, layout_for_training
from relightx.batch import Batch
from relightx.benchtrain import noise_batch, timed
from relightx.color import linear_to_srgb
from relightx.config import parse_config
from relightx.data.workers import keep_memory
from relightx.losses import LossWeights, total_loss
from relightx.model import IntrinsicNet, ModelConfig
from relightx.optim import MovingAverage, OptimConfig, build_optimizer


def ours(network: IntrinsicNet, batch: Batch) -> Callable[[], None]:
    """The project's step."""
    network.lay_out(layout_for_training())
    optimizer = build_optimizer(network, OptimConfig())
    average = MovingAverage(network.state_dict(), 0.999)
    device = batch.image.device.type
    halved = choose_precision("auto") == "bf16"
    kept: list[Tensor] = []

    def step() -> None:
        with torch.autocast(device, torch.bfloat16, enabled=halved):
            pred = network(batch.image)
        total, losses = total_loss(pred, batch, LossWeights())
        total.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        average.update(network.state_dict(), len(kept))
        kept.append(torch.stack([*losses.values(), total.detach()]))

    return step


def recipe(network: IntrinsicNet, batch: Batch) -> Callable[[], None]:
    """The step of the public re-implementations."""
    backbone = network.backbone.to(memory_format=torch.contiguous_format)
    optimizer = torch.optim.Adam(backbone.parameters(), lr=1e-3, foreach=False, fused=False)
    l1, mse = nn.L1Loss(), nn.MSELoss()
    sums = dict.fromkeys(("normal", "albedo", "sh", "recon", "total"), 0.0)

    def step() -> None:
        optimizer.zero_grad()
        total = torch.zeros((), device=batch.image.device)
        for light in range(batch.image.shape[1]):
            image = linear_to_srgb(batch.image[:, light])
            albedo, normal, sh = backbone(image)
            normal = normal / (normal.norm(dim=1, keepdim=True) + 1e-6)
            recon = albedo * planes_shading(normal, sh.reshape(-1, 3, 9))
            losses = {
                "normal": l1(normal, batch.truth.normal),
                "albedo": l1(albedo, batch.truth.albedo),
                "sh": mse(sh.reshape(-1, 3, 9), batch.truth.sh[:, light]),
                "recon": l1(recon, batch.image[:, light]),
            }
            part = losses["normal"] + losses["albedo"] + 0.1 * losses["sh"] + losses["recon"]
            total = total + part
            for name, value in losses.items():
                sums[name] += value.item()
        total.backward()
        optimizer.step()
        sums["total"] += total.item()

    return step


def planes_shading(normal: Tensor, sh: Tensor) -> Tensor:
    """Shading as they write it: a plane for each of the nine functions, then a sum a colour."""
    x, y, z = normal[:, 0], normal[:, 1], normal[:, 2]
    w0, w1, w2 = math.pi, 2 * math.pi / 3, math.pi / 4
    c = (1 / math.sqrt(4 * math.pi), math.sqrt(3 / (4 * math.pi)), math.sqrt(5 / (4 * math.pi)))
    root = math.sqrt(5 / (12 * math.pi)) * 3
    planes = [
        torch.full_like(x, w0 * c[0]),
        w1 * c[1] * z,
        w1 * c[1] * x,
        w1 * c[1] * y,
        w2 * 0.5 * c[2] * (2 * z * z - x * x - y * y),
        w2 * root * x * z,
        w2 * root * y * z,
        w2 * root * 0.5 * (x * x - y * y),
        w2 * root * x * y,
    ]
    colours = []
    for colour in range(3):
        shading = torch.zeros_like(x)
        for number, plane in enumerate(planes):
            shading = shading + plane * sh[:, colour, number, None, None]
        colours.append(shading)
    return torch.stack(colours, dim=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--images", type=int, default=8, help="of a step, two lights a portrait")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu":
        keep_memory(any_size=True)  # for both
    config = parse_config([f"--data.image_size={options.size}"])
    batch = send_to_device(noise_batch(config, options.images // 2), device)
    network = IntrinsicNet(ModelConfig("sfsnet")).to(device).train()
    steps = {"recipe": recipe(copy.deepcopy(network), batch), "relightx": ours(network, batch)}
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(options.rounds + 1):
        for name, step in steps.items():
            seconds[name].append(timed(step, device))
    print(
        f"sfsnet, {options.size} px, {options.images} images a step, {device.type},"
        f" {torch.get_num_threads()} threads, relightx in {choose_precision('auto')}"
    )
    for name, times in seconds.items():
        print(f"{name:9} {options.images / statistics.median(times[1:]):8.2f} images/s")
    ratios = [a / b for a, b in zip(seconds["recipe"][1:], seconds["relightx"][1:], strict=True)]
    print(f"ratio     {statistics.median(ratios):8.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
