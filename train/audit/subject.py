"""What is audited: finished runs, and the same unseen pictures for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from edgewright.runtime.console import notice
from edgewright.runtime.errors import DataError, WeightsError
from edgewright.runtime.validate import labelled_pictures
from edgewright.train.backbones.network import Network
from edgewright.train.backbones.surgery import StagePlan, plan_stages
from edgewright.train.data import Sample, read_data
from edgewright.train.data.check import readable
from edgewright.train.data.loading import batches
from edgewright.train.data.splitting import subset_per_class
from edgewright.train.evaluation import clean_renderer
from edgewright.train.run import Run, read_run

__all__ = ["Subject", "choose_pictures", "read_students", "read_subject", "stratified"]

_BATCH = 32


@dataclass(frozen=True)
class Subject:
    """One run under audit, and the pictures as it sees them.

    Attributes:
        run: The run's folder and record.
        network: Trained, eval mode, without gradients for its parameters.
        pixels: uint8, (N, height, width, 3).
        labels: int64, (N).
        weights: What `--weights` of the run said.
        frozen: How many of its stages kept the weights they started with.
        stages: How many stages its backbone has.
        cut: Graph node whose value an attacker would imitate: where the frozen stages end, or what the head sees.
    """

    run: Run
    network: Network
    pixels: torch.Tensor
    labels: torch.Tensor
    weights: str
    frozen: int
    stages: int
    cut: str

    @property
    def name(self) -> str:
        """Of the run."""
        return self.run.record.name


def read_students(folders: Sequence[Path]) -> list[Run]:
    """The runs in `folders`, which must have the same classes.

    Raises:
        WeightsError: no finished run in a folder.
        DataError: runs with different classes.
    """
    runs = [read_run(folder) for folder in folders]
    for run in runs[1:]:
        if run.record.classes != runs[0].record.classes:
            raise DataError(
                f"'{runs[0].folder}' has the classes {_few(runs[0].record.classes)}, '{run.folder}' has "
                f"{_few(run.record.classes)}. Expected runs with the same classes; audit the others apart."
            )
    return runs


def choose_pictures(runs: Sequence[Run], data: str, images: int, seed: int) -> tuple[Sample, ...]:
    """At most `images` pictures of `data` that none of the runs was trained on, stratified.

    Data that a run was trained on: the test split of that run (of all such runs; the validation split where there is
    no test split). Other data: its test split, else its validation split, else all of it; labels are matched by the
    names of the folders.

    Raises:
        DataError: no such data, no pictures, or classes that the runs do not have.
    """
    path = Path(data)
    origin = str(path.resolve()) if path.exists() else data
    # A dataset known by name is kept in a folder; the configuration has the name.
    own = [run for run in runs if origin in (run.record.data, _config(run).get("data"))]
    if own:
        found = _unseen(own, data)
    elif path.is_dir():
        pictures = labelled_pictures(path, runs[0].record.classes, None)
        found = [Sample(file, label, file.relative_to(path).as_posix()) for file, label in pictures]
    else:
        named = read_data(data, seed=0)
        if unknown := [name for name in named.classes if name not in runs[0].record.classes]:
            raise DataError(
                f"'{data}' has the class '{unknown[0]}', which is not among: {_few(runs[0].record.classes)}."
            )
        index = [runs[0].record.classes.index(name) for name in named.classes]
        split = named.splits["test"] or named.splits["val"]
        found = [Sample(sample.source, index[sample.label], sample.name) for sample in split]
    chosen = stratified(found, images, seed)
    if not own:
        # A run has sorted out its own damaged pictures; those of other data are new to it.
        chosen = readable(chosen)
    if len({sample.label for sample in chosen}) < 2:
        raise DataError(f"The {len(chosen)} pictures taken from '{data}' show one class at most. Expected two or more.")
    return tuple(chosen)


def stratified(samples: Sequence[Sample], count: int, seed: int) -> list[Sample]:
    """`count` samples (all, if there are fewer) in which every class keeps its share, drawn with `seed`."""
    ranked: list[tuple[float, int, Sample]] = []
    for label in sorted({sample.label for sample in samples}):
        members = subset_per_class([sample for sample in samples if sample.label == label], len(samples), seed)
        # The k-th of n pictures stands at (k + 1/2) / n, so that any beginning of the whole row has the same shares.
        ranked += [((place + 0.5) / len(members), label, sample) for place, sample in enumerate(members)]
    return [sample for _, _, sample in sorted(ranked, key=lambda item: item[:2])[:count]]


def read_subject(run: Run, samples: Sequence[Sample], device: torch.device) -> Subject:
    """The run with its pictures, on `device`.

    Raises:
        WeightsError: the run's config.yaml is missing or does not say which weights it started with.
    """
    record = run.record
    network = run.network().to(device)
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    rendered = list(
        batches(
            clean_renderer(samples, record.preprocess),
            range(len(samples)),
            view=0,
            batch=_BATCH,
        )
    )
    config = _config(run)
    # Traced on a copy on the CPU: the graph belongs to the network that it is traced from.
    plan = plan_stages(run.network(), torch.zeros(1, record.preprocess.crop, record.preprocess.crop, 3).byte())
    frozen = _frozen_stages(run, config, plan)
    return Subject(
        run,
        network,
        torch.cat([batch.inputs for batch in rendered]).to(device),
        torch.cat([batch.labels for batch in rendered]).to(device),
        str(config["weights"]),
        frozen,
        len(plan.cuts),
        plan.cuts[frozen - 1] if frozen else plan.cuts[-1],
    )


def _unseen(runs: Sequence[Run], data: str) -> list[Sample]:
    common: dict[str, Sample] | None = None
    for run in runs:
        splits = run.data().splits
        split = splits["test"]
        if not split:
            notice(f"{run.record.name}: its data has no test split; the validation split is used")
            split = splits["val"]
        members = {sample.name: sample for sample in split}
        common = members if common is None else {name: common[name] for name in common if name in members}
    if not common:
        raise DataError(
            f"No picture of '{data}' is in the test split of every run: they were split differently. "
            "Train them with the same seed and fractions, or audit them one by one."
        )
    return list(common.values())


def _config(run: Run) -> dict[str, Any]:
    import yaml

    path = run.folder / "config.yaml"
    found: Any = yaml.safe_load(path.read_text()) if path.is_file() else None
    if not isinstance(found, dict) or not isinstance(found.get("weights"), str):
        raise WeightsError(
            f"'{path}' does not say which weights the run started with. Expected the file that `edgewright train` "
            "wrote there; put it back or train again."
        )
    return found


def _frozen_stages(run: Run, config: dict[str, Any], plan: StagePlan) -> int:
    """Stages that still hold the weights the run started with."""
    if run.record.frozen_stages is not None:
        return run.record.frozen_stages
    # A run that an earlier version wrote does not say so.
    stages = len(plan.cuts)
    if run.record.strategy == "head":
        return stages
    if run.record.strategy == "partial":
        return int(config["freeze"]) if config.get("freeze") is not None else max(1, stages - 3)
    return 0


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
