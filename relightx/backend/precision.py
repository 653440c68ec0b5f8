"""What suits the machine: precision and memory layout of the network.

Shading, light and losses are float32 in any case.
"""

import torch


def choose_precision(precision: str) -> str:
    """'bf16' or 'float32': 'auto' takes bf16 where matrix units make it the faster one.

    On CPUs that means AMX: without it bf16 convolutions ran at 0.7 times the speed of float32.
    """
    if precision != "auto":
        return precision
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported() else "float32"
    return "bf16" if torch.cpu._is_amx_tile_supported() else "float32"


def layout_for_training() -> torch.memory_format:
    """Channels-last, on which convolutions run up to twice as fast, but on older CPUs.

    With AVX2 alone the gradient of a weight takes twice as long on it: a step of sfsnet was a fifth
    slower than on planes, one of unet even (`python tests/benchmarks/training_recipe.py`).
    """
    old = not torch.cuda.is_available() and "AVX512" not in torch.backends.cpu.get_cpu_capability()
    return torch.contiguous_format if old else torch.channels_last
