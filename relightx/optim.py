"""Optimiser, learning-rate schedule and the moving average of the weights."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from relightx.settings.optim import OptimConfig


def build_optimizer(model: nn.Module, config: OptimConfig) -> torch.optim.Optimizer:
    """AdamW over all weights, decaying only matrices and filters."""
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    groups = [
        {"params": [w for w in weights if w.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [w for w in weights if w.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.99), fused=True)


def build_schedule(optimizer: torch.optim.Optimizer, config: OptimConfig, steps: int) -> LambdaLR:
    """Linear warm-up, then a cosine to zero at `steps`; call step() once per optimiser step."""
    warmup = min(config.warmup_steps, steps // 2)

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, steps - warmup))))

    return LambdaLR(optimizer, factor)


def go_to_step(schedule: LambdaLR, step: int) -> None:
    """Set a schedule and its optimiser's rates to what they are after `step` steps."""
    schedule.last_epoch = step
    factors = [factor(step) for factor in schedule.lr_lambdas]
    rates = [base * f for base, f in zip(schedule.base_lrs, factors, strict=True)]
    for group, rate in zip(schedule.optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    schedule._last_lr = rates


class MovingAverage:
    """Exponential moving average of weights and buffers, on their device.

    state: by name; of a model that is cut up over processes, this one's parts. The decay grows from
    0.1 with the number of updates, so that the random start is soon forgotten in short runs.
    """

    def __init__(self, state: Mapping[str, Tensor], decay: float) -> None:
        self.decay = decay
        self.values = {name: value.detach().clone() for name, value in state.items()}

    @torch.no_grad()
    def update(self, state: Mapping[str, Tensor], step: int) -> None:
        """Move toward what the weights are after optimiser step `step` (from 0)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        floating = [name for name, value in self.values.items() if value.is_floating_point()]
        torch._foreach_lerp_(
            [self.values[name] for name in floating], [state[name] for name in floating], 1 - decay
        )
        for name in self.values.keys() - set(floating):  # counters of batch norm
            self.values[name].copy_(state[name])
