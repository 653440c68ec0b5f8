"""How the processes of a run train one model: alone, by DDP, DeepSpeed's ZeRO or torch's FSDP2.

The training loop is the same for all; what differs is here. DDP and ZeRO are Accelerate's. FSDP2 is
torch's `fully_shard` itself, because Accelerate makes plain DDP of it, without a word, where there
is no GPU, and what is tested should be what runs.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Protocol, runtime_checkable

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import (
    DeepSpeedPlugin,
    DistributedType,
    GradientAccumulationPlugin,
    InitProcessGroupKwargs,
)
from torch import Tensor, nn

from relightx.backend.launched import Launched, read_launch
from relightx.backend.memory import recompute_activations
from relightx.backend.precision import choose_precision, layout_for_training
from relightx.batch import Decomposition
from relightx.data.workers import keep_memory
from relightx.model import IntrinsicNet
from relightx.optim import OptimConfig, build_optimizer, build_schedule

_SHARDS = ("zero1", "zero2", "zero3", "fsdp2")
_CONTAINERS = (nn.ModuleList, nn.ModuleDict)


@runtime_checkable
class Wishes(Protocol):
    """What a run's config says of its processes; see relightx.config.RunConfig."""

    @property
    def precision(self) -> str: ...
    @property
    def device(self) -> str: ...
    @property
    def threads(self) -> int: ...
    @property
    def accumulation(self) -> int: ...
    @property
    def compile(self) -> bool: ...
    @property
    def recompute_activations(self) -> bool: ...


class Backend:
    """The processes of a run, and the model, optimiser and schedule that they share.

    batch_size: portraits of an optimiser step over all processes. Raises ValueError when the
    processes are not what the launcher promised, or cannot be here.
    """

    def __init__(self, run: Wishes, optim: OptimConfig, batch_size: int) -> None:
        self.launched = read_launch()
        self.run, self.optim = run, optim
        _check_devices(self.launched, run.device)
        precision = choose_precision(run.precision)
        is_cpu = run.device == "cpu" or not torch.accelerator.is_available()
        arguments: dict[str, Any] = {
            "cpu": is_cpu,
            "mixed_precision": "bf16" if precision == "bf16" else "no",
            "step_scheduler_with_optimizer": False,
            "gradient_accumulation_plugin": GradientAccumulationPlugin(
                num_steps=run.accumulation, sync_with_dataloader=False
            ),
        }
        if self.launched.deepspeed is not None:
            micro_batch = max(1, batch_size // (self.launched.world_size * run.accumulation))
            arguments |= _deepspeed_arguments(
                self.launched, optim, precision, is_cpu, run.accumulation, micro_batch
            )
        os.environ["ACCELERATE_USE_FSDP"] = "false"  # see above
        # Accelerate keeps the settings of a process's first run, and refuses others.
        AcceleratorState._reset_state()
        self.accelerator = Accelerator(**arguments)
        self._check_processes()
        if self.accelerator.device.type == "cpu":
            # The launcher exports OMP_NUM_THREADS=1, which would leave all cores but one idle.
            cores = len(os.sched_getaffinity(0))
            torch.set_num_threads(run.threads or max(1, cores // self.launched.local_size))
            keep_memory(any_size=True)

    @property
    def kind(self) -> str:
        return self.launched.kind

    @property
    def is_main(self) -> bool:
        return self.accelerator.is_main_process

    def prepare(self, network: IntrinsicNet, steps: int) -> None:
        """Take a network, with its first weights or those of a checkpoint, for a run of `steps`."""
        network.lay_out(layout_for_training())
        if self.kind in _SHARDS:
            # Parts are cut out of a weight as it lies in memory.
            network.to(memory_format=torch.contiguous_format)
        network.to(self.accelerator.device)
        if self.run.recompute_activations:
            recompute_activations(_parts(network.backbone))
        if self.kind == "fsdp2":
            self._shard(network)
        if self.run.compile:
            _check_compiler()
            network.backbone.compile()
        self.network = network
        plain = build_optimizer(network, self.optim)
        self.schedule = build_schedule(plain, self.optim, steps)
        if self.kind == "fsdp2":
            self.model, self.optimizer = network, plain
        else:
            self.model, self.optimizer = self.accelerator.prepare(network, plain)

    @contextmanager
    def micro_batch(self) -> Iterator[None]:
        """Around forward and backward pass: gradients are exchanged in a step's last one only."""
        with self.accelerator.accumulate(self.model):
            if self.kind == "fsdp2":
                self.model.set_requires_gradient_sync(self.accelerator.sync_gradients)
            yield

    def forward(self, image: Tensor) -> Decomposition:
        """The model's answer; bf16 inside where that was asked for."""
        with self.accelerator.autocast():
            return self.model(image)

    def backward(self, total: Tensor) -> None:
        self.accelerator.backward(total)

    def step(self) -> Tensor | float | None:
        """Clip and move the weights, after a step's last micro-batch; the gradients' norm before.

        None in the other micro-batches.
        """
        if not self.accelerator.sync_gradients:
            return None
        if self.launched.deepspeed is not None:  # it did all that in its backward pass
            norm = self.model.get_global_grad_norm()
        else:
            norm = nn.utils.clip_grad_norm_(self.network.parameters(), self.optim.grad_clip_norm)
            norm = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
            self.optimizer.step()
            self.optimizer.zero_grad()
        self.schedule.step()
        return norm

    def _shard(self, network: nn.Module) -> None:
        # Half a second of loading that only this needs.
        from torch.distributed.fsdp import CPUOffloadPolicy, OffloadPolicy, fully_shard

        options = {
            "reshard_after_forward": self.launched.reshard,
            "offload_policy": CPUOffloadPolicy() if self.launched.offload else OffloadPolicy(),
        }
        for part in _parts(network.backbone):
            fully_shard(part, **options)
        fully_shard(network, **options)

    def _check_processes(self) -> None:
        """Refuse what would train, without a word, something else than was asked for."""
        seen, wanted = self.accelerator.num_processes, self.launched.world_size
        if seen != wanted or (wanted > 1 and dist.get_world_size() != wanted):
            raise ValueError(
                f"{wanted} processes were launched, this one sees {seen}: each would train alone."
                " Use a file of configs/accelerate/"
            )
        found = self.accelerator.distributed_type
        if (found == DistributedType.DEEPSPEED) != (self.launched.deepspeed is not None):
            raise ValueError(
                f"{self.kind} was asked for, Accelerate made {found.value} of it: start with"
                f" configs/accelerate/{self.kind}.yaml as it is"
            )


def _check_devices(launched: Launched, device: str) -> None:
    """Raise ValueError for processes that would find no GPU of their own."""
    has_gpu = torch.accelerator.is_available()
    if device == "gpu" and not has_gpu:
        raise ValueError("run.device is gpu; torch finds none here. Is its CPU build installed?")
    if device == "cpu" or launched.world_size == 1:
        return
    if not has_gpu:
        raise ValueError(
            f"{launched.kind} was launched in {launched.world_size} processes, and torch finds no"
            " GPU on this node (is its CPU build installed?); to train on CPUs say --run.device cpu"
        )
    count = torch.accelerator.device_count()
    if launched.local_size > count:
        raise ValueError(
            f"{launched.local_size} processes were launched on this node, it has {count} GPU(s):"
            f" give --num_processes {count} for each node"
        )


def _check_compiler() -> None:
    """Raise ValueError where torch.compile would fail minutes later, in the first step."""
    names = [os.environ.get(name) for name in ("CXX", "CC")] + ["g++", "gcc", "clang++", "clang"]
    if not any(name and shutil.which(name) for name in names):
        raise ValueError(
            "run.compile is true, and there is no C++ compiler here (g++ or clang++ on the PATH, or"
            " CXX): install one (Debian: apt-get install g++), or leave run.compile false"
        )


def _deepspeed_arguments(
    launched: Launched,
    optim: OptimConfig,
    precision: str,
    is_cpu: bool,
    accumulation: int,
    micro_batch: int,
) -> dict[str, Any]:
    """What Accelerate needs for ZeRO; of the JSON file what our own config decides is replaced.

    Left as "auto", clipping would become 1 whatever the config says. With bf16 in the file, weights
    and images would be bf16 too; autocast keeps the weights, and what the losses see, in float32.
    """
    os.environ.setdefault("DS_ACCELERATOR", "cpu" if is_cpu else "cuda")
    content = {
        **launched.deepspeed,
        "gradient_clipping": optim.grad_clip_norm,
        "gradient_accumulation_steps": accumulation,
        "train_micro_batch_size_per_gpu": micro_batch,
        "train_batch_size": micro_batch * accumulation * launched.world_size,
        "zero_allow_untested_optimizer": True,
        "torch_autocast": {"enabled": precision == "bf16", "dtype": "bfloat16"},
    }
    return {
        # As a CPU program Accelerate would take DDP instead.
        "cpu": False,
        "mixed_precision": "no",
        "deepspeed_plugin": DeepSpeedPlugin(hf_ds_config=content),
        "kwargs_handlers": [
            # Without a backend each process of a GPU-less node believes that it is alone.
            InitProcessGroupKwargs(
                backend="gloo" if is_cpu else "nccl", timeout=timedelta(minutes=30)
            )
        ],
    }


def _parts(module: nn.Module) -> list[nn.Module]:
    """The parts of a network that are called one after the other and have weights."""
    parts = []
    for child in module.children():
        if isinstance(child, _CONTAINERS):
            parts += _parts(child)
        elif any(True for _ in child.parameters()):
            parts.append(child)
    return parts
