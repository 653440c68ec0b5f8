"""What learns nothing, measured once for a sweep on the split that its trials are measured on."""

import json
import math

from relightx.baselines import MeanFace, copy_scores
from relightx.data import DataConfig, evaluation_batches, open_splits, whole_reader
from relightx.evaluate import score_split, summarise_portraits
from relightx.metrics import score
from relightx.storage import Folder
from relightx.sweep.plan import Plan, first_point
from relightx.sweep.trial import Place

_FILE = "baselines.json"


def measure_baselines(plan: Plan, place: Place) -> None:
    """Note the mean face and the gain-matched copy of the input, where plan.baselines is given."""
    if not plan.baselines or not plan.test or place.folder.size(_FILE) is not None:
        return
    config = plan.config_of(first_point(plan))
    size, lights = config.data.image_size, config.run.validate_lights
    storage = DataConfig(s3=place.s3, cache_dir=config.data.cache_dir)
    training = open_splits([plan.baselines], storage)
    reader = whole_reader(training, storage)
    mean_face = MeanFace.from_batches(
        batch for _, batch in evaluation_batches(training, size, 1, reader=reader)
    )
    test = open_splits(plan.test[:1], storage)
    batches = evaluation_batches(test, size, lights, reader=whole_reader(test, storage))
    found = score_split(
        {
            "mean_face": lambda batch: score(mean_face.decompose(batch), batch),
            "copy": copy_scores,
        },
        batches,
    )
    means = {
        name: {
            metric: summary.mean
            for metric, summary in summarise_portraits(portraits).items()
            if summary.count and math.isfinite(summary.mean)
        }
        for name, portraits in found.items()
    }
    place.folder.write(_FILE, (json.dumps(means, indent=1) + "\n").encode())


def read_baselines(folder: Folder) -> dict[str, dict[str, float]]:
    """Means of the metrics by baseline; none where they were not measured."""
    return {} if folder.size(_FILE) is None else json.loads(folder.read(_FILE))
