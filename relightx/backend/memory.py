"""Activations computed again in the backward pass instead of being kept: more time, less memory."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

from torch import nn
from torch.utils.checkpoint import checkpoint


def recompute_activations(parts: Iterable[nn.Module]) -> None:
    """Have each of these modules keep nothing but what it was given and what it answered."""
    for part in parts:
        part.forward = partial(
            checkpoint, part.forward, use_reentrant=False, context_fn=_contexts_of(part)
        )


def _contexts_of(
    part: nn.Module,
) -> Callable[[], tuple[AbstractContextManager, AbstractContextManager]]:
    norms = [module for module in part.modules() if isinstance(module, nn.BatchNorm2d)]
    return lambda: (nullcontext(), _without_statistics(norms))


@contextmanager
def _without_statistics(norms: list[nn.BatchNorm2d]) -> Iterator[None]:
    """The second time batch norms are not to count the same batch again."""
    before = [(norm.momentum, norm.num_batches_tracked.clone()) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, before, strict=True):
            norm.momentum = momentum
            norm.num_batches_tracked.copy_(count)
