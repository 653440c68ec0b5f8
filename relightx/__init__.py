"""Train portrait intrinsic decomposition and relighting from multi-lit photographs.

`relightx.load(PATH)` gives a trained model, `relightx.Light` the lights to relight with. Both are
imported on first use, so that `import relightx` and the command's --help cost nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from relightx.light import Light
    from relightx.portrait import Model, load

__all__ = ["Light", "Model", "load"]

_HOMES = {"Light": "relightx.light", "Model": "relightx.portrait", "load": "relightx.portrait"}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'relightx' has no attribute {name!r}")
