"""How the weights are moved (relightx.optim)."""

from dataclasses import dataclass


@dataclass(frozen=True)
class OptimConfig:
    """How the weights are moved."""

    learning_rate: float = 1e-3
    """Highest rate, reached after warm-up; it falls to zero along a cosine."""
    warmup_steps: int = 100
    """Optimiser steps of linear warm-up."""
    weight_decay: float = 0.01
    """Of AdamW; biases and norms are not decayed."""
    grad_clip_norm: float = 1.0
    """Gradients are scaled down to this norm."""
    ema_decay: float = 0.999
    """Of the averaged weights that are validated and saved as the model; 0: no averaging."""

    def __post_init__(self) -> None:
        if not self.learning_rate > 0:
            raise ValueError(f"optim.learning_rate is {self.learning_rate}; above 0 needed")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"optim.ema_decay is {self.ema_decay}; from 0 to below 1 needed")
        for name in ("warmup_steps", "weight_decay", "grad_clip_norm"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"optim.{name} is {getattr(self, name)}; 0 or more needed")
