"""The ways of transfer learning: which part of the network learns, and what it is shown.

| strategy  | learns                     | is shown                                                        |
|-----------|----------------------------|-----------------------------------------------------------------|
| `head`    | the last linear layer      | features of the frozen rest, computed once                      |
| `partial` | the stages from a cut on   | activations at the cut for a few augmented views, computed once |
| `full`    | everything                 | fresh augmentations                                             |
| `scratch` | everything, from random    | fresh augmentations                                             |
| `auto`    | ever more, from the top    | as above, while validation improves                             |
"""

from __future__ import annotations

from edgewright.runtime.errors import UsageError
from edgewright.train.strategies.auto import train_auto
from edgewright.train.strategies.head import train_head
from edgewright.train.strategies.job import Job, Outcome
from edgewright.train.strategies.tuning import train_tuned

__all__ = ["Job", "Outcome", "run_strategy"]


def run_strategy(job: Job) -> Outcome:
    """Train as `job.config.strategy` says; the trained weights are in the job's network afterwards."""
    strategy = job.config.strategy
    if strategy == "head":
        return train_head(job)
    if strategy == "auto":
        return train_auto(job)
    if strategy == "partial":
        stages = len(job.stages.cuts)
        freeze = job.config.freeze if job.config.freeze is not None else max(1, stages - 3)
        if freeze >= stages:
            raise UsageError(
                f"--freeze {freeze}: '{job.config.backbone}' has {stages} stages; freeze 1 to {stages - 1} of them."
            )
        return train_tuned(job, stages - freeze)
    return train_tuned(job, None)
