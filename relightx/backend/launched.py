"""What the launcher asked for, read from the variables that it sets in every process.

`accelerate launch --config_file configs/accelerate/NAME.yaml` says with them how many processes
there are and whether they cut the training state up: not at all (DDP), by DeepSpeed (ZeRO) or by
torch (FSDP2). A process started alone has none of them.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

Kind = Literal["single", "ddp", "zero1", "zero2", "zero3", "fsdp2"]


@dataclass(frozen=True)
class Launched:
    """kind: how the processes share the training state. rank, world_size: of all nodes;
    local_size: processes on this node. deepspeed: the content of its JSON file. reshard, offload:
    FSDP2 frees whole weights after the forward pass; it keeps its parts in the CPU's memory.
    """

    kind: Kind
    rank: int = 0
    world_size: int = 1
    local_size: int = 1
    deepspeed: dict[str, Any] | None = None
    reshard: bool = True
    offload: bool = False


def read_launch(environ: Mapping[str, str] = os.environ) -> Launched:
    """Raises ValueError for what cannot be done, saying what to change."""
    sizes = {
        "rank": int(environ.get("RANK", "0")),
        "world_size": int(environ.get("WORLD_SIZE", "1")),
        "local_size": int(environ.get("LOCAL_WORLD_SIZE", "1")),
    }
    if _flag(environ, "ACCELERATE_USE_DEEPSPEED"):
        content = _deepspeed_content(environ)
        stage = content.get("zero_optimization", {}).get("stage")
        if stage not in (1, 2, 3):
            raise ValueError(
                f"DeepSpeed: zero_optimization.stage is {stage}; 1, 2 or 3 needed: use a file of"
                " configs/deepspeed/"
            )
        return Launched(f"zero{stage}", deepspeed=content, **sizes)
    if _flag(environ, "ACCELERATE_USE_FSDP"):
        if environ.get("FSDP_VERSION", "1") != "2":
            raise ValueError("fsdp_version 1 was asked for; use configs/accelerate/fsdp2.yaml")
        return Launched(
            "fsdp2",
            reshard=_flag(environ, "FSDP_RESHARD_AFTER_FORWARD", "true"),
            offload=_flag(environ, "FSDP_OFFLOAD_PARAMS"),
            **sizes,
        )
    return Launched("ddp" if sizes["world_size"] > 1 else "single", **sizes)


def _deepspeed_content(environ: Mapping[str, str]) -> dict[str, Any]:
    for package in ("deepspeed", "transformers"):  # Accelerate asks for the version of the latter
        if find_spec(package) is None:
            raise ValueError(
                f"the launcher asks for DeepSpeed, and {package} is not installed: install the"
                " extra 'deepspeed', or use configs/accelerate/ddp.yaml"
            )
    file = environ.get("ACCELERATE_DEEPSPEED_CONFIG_FILE", "")
    if not file or file == "none":
        raise ValueError(
            "the launcher asks for DeepSpeed without a deepspeed_config_file: use a file of"
            " configs/accelerate/, such as zero2.yaml"
        )
    try:
        content = json.loads(Path(file).read_text())
    except (OSError, ValueError) as error:
        raise ValueError(
            f"DeepSpeed's file {file} cannot be read: {error}; its path is looked up from the"
            " directory in which the launcher was started"
        ) from None
    if not isinstance(content, dict):
        raise ValueError(f"DeepSpeed's file {file} holds {content!r}, no settings")
    return content


def _flag(environ: Mapping[str, str], name: str, default: str = "false") -> bool:
    return environ.get(name, default).lower() in ("true", "1", "yes")
