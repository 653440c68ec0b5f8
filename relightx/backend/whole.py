"""Weights, averages and moments as whole tensors by the names of the weights, however a backend has
cut them up, and the way back.

A backend keeps of a weight what `local` gives: all of it (DDP, ZeRO-1 and -2), this rank's part of
its flattened numbers (ZeRO-3), or its part along the first axis (FSDP2). All functions named
`whole` or `load` are collective: every rank calls them, and every rank has the answer, in its CPU's
memory.
"""

from collections.abc import Iterator, Mapping

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

MOMENTS = ("exp_avg", "exp_avg_sq")
"""Of AdamW, beside the count of steps."""


def local(network: nn.Module) -> dict[str, Tensor]:
    """What this rank keeps of each weight and buffer; the tensors themselves, not copies."""
    return {name: _local(value) for name, value in _values(network)}


def whole(network: nn.Module, parts: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The whole of what are parts like `local`'s: of the weights, or of a value for each of them.

    Buffers, which each rank counts for itself, are those of the first rank.
    """
    names = {name for name, _ in network.named_parameters()}
    return {
        name: _whole(value, parts[name]) if name in names else _of_first(parts[name])
        for name, value in _values(network)
    }


def parts_of(network: nn.Module, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """This rank's parts of whole tensors: what `whole` was given."""
    return {name: _part(value, values[name]) for name, value in _values(network)}


def whole_moments(network: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """AdamW's moments by "exp_avg.NAME" and "exp_avg_sq.NAME"; zeros before the first step."""
    found = {}
    _link_zero_states(optimizer)
    for name, weight in network.named_parameters():
        for moment in MOMENTS:
            value = _moment(weight, optimizer, moment)
            if value is None:
                value = torch.zeros(_shape(weight))
            found[f"{moment}.{name}"] = value
    return found


def load_moments(
    network: nn.Module, optimizer: torch.optim.Optimizer, moments: Mapping[str, Tensor], step: int
) -> None:
    """Have AdamW go on with these after `step` steps."""
    if step == 0:
        return
    _make_zero_states(optimizer)
    for name, weight in network.named_parameters():
        for moment in MOMENTS:
            _set_moment(weight, optimizer, moment, moments[f"{moment}.{name}"])
    for state in _plain(optimizer).state.values():
        device = state[MOMENTS[0]].device
        state["step"] = torch.tensor(float(step), dtype=torch.float32, device=device)


def _values(network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from network.named_parameters()
    yield from network.named_buffers()


def _is_zero3(value: Tensor) -> bool:
    return hasattr(value, "ds_tensor")


def _local(value: Tensor) -> Tensor:
    if _is_zero3(value):
        return value.ds_tensor.detach()
    return value.detach().to_local() if isinstance(value, DTensor) else value.detach()


def _shape(value: Tensor) -> torch.Size:
    return value.ds_shape if _is_zero3(value) else value.shape


def _whole(value: Tensor, part: Tensor) -> Tensor:
    if _is_zero3(value):
        gathered = [torch.empty_like(part) for _ in range(dist.get_world_size())]
        dist.all_gather(gathered, part.contiguous())
        flat = torch.cat([each.flatten() for each in gathered])
        return _own(flat[: value.ds_shape.numel()].view(value.ds_shape))
    if isinstance(value, DTensor):
        spread = DTensor.from_local(
            part, value.device_mesh, value.placements, shape=value.shape, stride=value.stride()
        )
        return _own(spread.full_tensor())
    return _own(part)


def _of_first(buffer: Tensor) -> Tensor:
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return _own(buffer)
    shared = buffer.clone()
    dist.broadcast(shared, 0)
    return _own(shared)


def _part(value: Tensor, whole_value: Tensor) -> Tensor:
    if _is_zero3(value):
        size = value.ds_tensor.numel()
        start = dist.get_rank() * size
        part = torch.zeros(size, dtype=whole_value.dtype)
        own = whole_value.flatten()[start : start + size]
        part[: len(own)] = own
        return part.view(value.ds_tensor.shape).to(value.ds_tensor.device)
    if isinstance(value, DTensor):
        spread = distribute_tensor(
            whole_value.to(value.device), value.device_mesh, value.placements, src_data_rank=None
        )
        return spread.to_local().clone()
    return torch.empty_like(value.detach()).copy_(whole_value)  # channels-last as the weight is


def _moment(weight: Tensor, optimizer: torch.optim.Optimizer, moment: str) -> Tensor | None:
    """A weight's whole moment; None before the first step."""
    states = _plain(optimizer).state
    if not states:
        return None
    if _is_zero(weight):
        from deepspeed.utils import safe_get_full_optimizer_state

        return _own(safe_get_full_optimizer_state(weight, moment).view(_shape(weight)))
    value = states[weight][moment]
    return _own(value.full_tensor() if isinstance(value, DTensor) else value)


def _set_moment(
    weight: Tensor, optimizer: torch.optim.Optimizer, moment: str, value: Tensor
) -> None:
    if _is_zero(weight):
        from deepspeed.utils import safe_set_full_optimizer_state, safe_set_local_optimizer_state

        if _is_zero3(weight):  # the other function cannot set a part that is filled up
            safe_set_local_optimizer_state(weight, _part(weight, value), moment)
        else:
            safe_set_full_optimizer_state(weight, value.to(weight.device), moment)
        return
    part = _part(weight, value)
    if isinstance(weight, DTensor):
        part = DTensor.from_local(
            part, weight.device_mesh, weight.placements, shape=weight.shape, stride=weight.stride()
        )
    _plain(optimizer).state[weight][moment] = part


def _make_zero_states(optimizer: torch.optim.Optimizer) -> None:
    """Have ZeRO's moments there, which it would make in the first step, to be set."""
    zero = getattr(optimizer, "optimizer", optimizer)
    flats = getattr(zero, "fp32_partitioned_groups_flat", None)
    flats = flats or getattr(zero, "single_partition_of_fp32_groups", ())
    for flat in flats:
        zero.optimizer.state[flat] = {name: torch.zeros_like(flat) for name in MOMENTS}
    _link_zero_states(optimizer)


def _link_zero_states(optimizer: torch.optim.Optimizer) -> None:
    """Have each weight know where its moments are. ZeRO-1 and -2 do it after the first step of the
    first group of weights, when those of the others are not there yet, and never again."""
    zero = getattr(optimizer, "optimizer", optimizer)
    if hasattr(zero, "_hp_optimizer_states_linked"):
        zero._hp_optimizer_states_linked = False
        zero._lazy_init_hp_params_optimizer_state()


def _is_zero(weight: Tensor) -> bool:
    """Whether DeepSpeed keeps this weight's moments."""
    return _is_zero3(weight) or hasattr(weight, "_hp_mapping")


def _plain(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """torch's own optimiser inside of what Accelerate and DeepSpeed wrap around it."""
    while hasattr(optimizer, "optimizer"):
        optimizer = optimizer.optimizer
    return optimizer


def _own(value: Tensor) -> Tensor:
    """A contiguous copy on the CPU: safetensors refuses other strides and shared memory."""
    return value.detach().cpu().clone(memory_format=torch.contiguous_format)
