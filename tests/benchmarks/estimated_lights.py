"""How far estimated lights are off on real faces: python tests/benchmarks/estimated_lights.py YALEB

YALEB is the folder of the cropped Extended Yale B photographs, whose lights are known. The lights
are estimated from the frontal photographs alone, up to the bas-relief ambiguity.
"""

import argparse
from pathlib import Path

import numpy as np

from shards.labelling.light_estimation import estimate_lights
from shards.sources.yaleb import yaleb


def errors_deg(root: Path) -> dict[str, float]:
    """Median angle between estimated and true directions, of each person."""
    found = {}
    for group in yaleb(root):
        portrait = group.read()
        estimated = estimate_lights(portrait.linear_image()[..., 0].copy(), portrait.mask)
        cosine = (estimated.direction * portrait.direction).sum(axis=1)
        found[group.key] = float(np.median(np.degrees(np.arccos(np.clip(cosine, -1, 1)))))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("root", type=Path)
    found = errors_deg(parser.parse_args().root)
    for key, error in found.items():
        print(f"{key}  {error:5.1f} deg")
    values = list(found.values())
    print(f"median over {len(values)} people {np.median(values):.1f} deg, worst {max(values):.1f}")


if __name__ == "__main__":
    main()
