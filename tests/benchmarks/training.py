"""Images a second of a training step, forward, losses, backward and optimiser, without reading.

    python tests/benchmarks/training.py [--preset sfsnet] [--size 128] [--images 8] [--steps 5]

Prints float32 and bf16 autocast side by side, measured in turn in one run, and the rate in
GFLOP/s (counted by torch for forward and backward) beside that of a large matrix product.
"""

import argparse
import statistics

import torch
from accelerate.utils import send_to_device
from torch.utils.flop_counter import FlopCounterMode

from relightx.backend import choose_precision
from relightx.benchtrain import matrix_flops, noise_batch, timed
from relightx.config import parse_config
from relightx.losses import LossWeights, total_loss
from relightx.model import IntrinsicNet, ModelConfig
from relightx.optim import OptimConfig, build_optimizer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--preset", choices=["sfsnet", "unet"], default="sfsnet")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--images", type=int, default=8, help="of a step, two lights a portrait")
    parser.add_argument("--steps", type=int, default=5, help="counted steps of each precision")
    parser.add_argument("--matrix", type=int, default=2048, help="rows of the product beside it")
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = IntrinsicNet(ModelConfig(options.preset)).to(device)
    optimizer = build_optimizer(network, OptimConfig())
    config = parse_config([f"--data.image_size={options.size}"])
    batch = send_to_device(noise_batch(config, options.images // 2), device)

    def step(precision: str) -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            pred = network(batch.image)
        total, _ = total_loss(pred, batch, LossWeights())
        total.backward()
        optimizer.step()
        optimizer.zero_grad()

    with FlopCounterMode(display=False) as counter:
        step("float32")
    flops = counter.get_total_flops()
    seconds = {"float32": [], "bf16": []}
    for _ in range(options.steps + 1):  # in turn, so that a drifting machine hurts both alike
        for precision, times in seconds.items():
            times.append(timed(lambda chosen=precision: step(chosen), device))
    print(
        f"preset {options.preset}, {options.size} px, {options.images} images a step,"
        f" {flops / options.images / 1e9:.1f} GFLOP an image, {device.type},"
        f" {torch.get_num_threads()} threads; 'auto' chooses {choose_precision('auto')}"
    )
    rates = {name: matrix_flops(name, device, options.matrix) for name in seconds}
    for precision, times in seconds.items():
        median = statistics.median(times[1:])
        print(
            f"{precision:8} {options.images / median:8.2f} images/s  {flops / median / 1e9:8.0f}"
            f" GFLOP/s   matrix product {rates[precision] / 1e9:8.0f} GFLOP/s"
        )


if __name__ == "__main__":
    main()
