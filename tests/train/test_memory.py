"""What training holds in memory does not grow with the number of pictures, but for their names and one row of each."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

MEASURE = """
import json, resource, sys
from pathlib import Path
import numpy as np
import torch
from edgewright.runtime.preprocess import Preprocess
from edgewright.train.backbones.surgery import plan_stages, replace_head, split_at
from edgewright.train.backbones.network import Network
from edgewright.train.backbones.weights import load_pretrained, preprocess_for
from edgewright.train.data import read_data
from edgewright.train.data.loading import batches, epoch_order
from edgewright.train.evaluation import clean_renderer
from edgewright.train.features import ActivationCache, compile_frozen
from edgewright.train.head import Features, fit_head

torch.set_num_threads(1)
data = read_data(sys.argv[1], seed=0)
spec = preprocess_for("mobilenet_v3_small", "builtin", 16, True)
model = load_pretrained("mobilenet_v3_small", "builtin").model
replace_head(model, len(data.classes))
network = Network(model, spec)
plan = plan_stages(network, torch.zeros(1, 16, 16, 3, dtype=torch.uint8))
frozen, _ = split_at(plan, plan.cuts[-1])
compiled = compile_frozen(frozen, 16, torch.device("cpu"))
features = {}
for split in ("train", "val"):
    samples = data.splits[split]
    cache = ActivationCache(plan.shapes[-1], clean_renderer(samples, spec), [0], np.float32, Path(sys.argv[2]))
    cache.ensure(0, compiled, split)

    def read(rows, cache=cache):
        values = torch.from_numpy(cache.read(0, rows))
        cache.release()
        return values

    features[split] = Features(read, torch.tensor([sample.label for sample in samples]))
fitted = fit_head(features["train"], features["val"], len(data.classes))
labels = np.array([sample.label for sample in data.splits["train"]])
shown = 0
order = epoch_order(labels, 0, 1, balanced=False)
for batch in batches(clean_renderer(data.splits["train"], spec), order, view=1, batch=32, threads=2):
    shown += len(batch.labels)
pictures = sum(len(samples) for samples in data.splits.values())
print(json.dumps({"pictures": pictures, "shown": shown, "mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))
"""


def pictures(root: Path, count: int) -> Path:
    """Two classes of small PNGs; a few patterns, each under many names."""
    rng = np.random.default_rng(0)
    for label in ("one", "two"):
        (root / label).mkdir(parents=True)
        patterns = []
        for number in range(20):
            pixels = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
            path = root / label / f"{number:06d}.png"
            Image.fromarray(pixels).save(path)
            patterns.append(path)
        for number in range(20, count // 2):
            os.link(patterns[number % 20], root / label / f"{number:06d}.png")
    return root


def peak(root: Path, cache: Path) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(root), str(cache)],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak as Linux counts it")
def test_twenty_times_the_pictures_need_little_more_memory(tmp_path: Path) -> None:
    small, large = (peak(pictures(tmp_path / str(count), count), tmp_path / "cache") for count in (1_000, 20_000))
    assert (small["pictures"], large["pictures"]) == (1_000, 20_000)
    # 20,000 rows of 1024 features are 82 MB, of which a chunk of 8192 rows (34 MB, and as much for what is computed
    # from it) is in memory at a time; a name takes half a kilobyte.
    print(f"{small['mb']:.0f} MB for 1,000 pictures, {large['mb']:.0f} MB for 20,000")
    assert large["mb"] - small["mb"] < 100
