"""One training run from configuration to run folder."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import torch

from edgewright.runtime.console import notice
from edgewright.runtime.errors import UsageError
from edgewright.runtime.files import atomic_write
from edgewright.train.backbones.network import Network
from edgewright.train.backbones.surgery import replace_head
from edgewright.train.backbones.weights import load_pretrained, preprocess_for
from edgewright.train.checkpoint import write_tensors
from edgewright.train.config import TrainConfig
from edgewright.train.data import ImageData, read_data
from edgewright.train.data.check import without_damaged
from edgewright.train.data.splitting import subset_per_class
from edgewright.train.folding import fix_batchnorm
from edgewright.train.loop import EpochRecord
from edgewright.train.precision import PRECISIONS, choose_precision
from edgewright.train.processes import Processes, join_processes
from edgewright.train.report import write_report
from edgewright.train.run import Run, RunRecord, read_run, write_samples
from edgewright.train.strategies import Job, run_strategy
from edgewright.train.temperature import calibrate
from edgewright.version import __version__

__all__ = ["CONFIG", "default_folder", "train"]

CONFIG = "config.yaml"


def train(
    config: TrainConfig,
    *,
    overwrite: bool = False,
    resume: bool = False,
    after_epoch: Callable[[EpochRecord], None] = lambda _: None,
) -> Run:
    """Train a classifier.

    Args:
        config: What to do.
        overwrite: Replace an earlier run in the same folder.
        resume: Continue an interrupted run in the same folder, with the same configuration.
        after_epoch: Called with each epoch's record, when the epoch is over.

    Returns:
        The finished run.

    Raises:
        EdgewrightError: see :mod:`edgewright.runtime.errors`; the folder of an earlier run is then untouched.
    """
    started = time.monotonic()
    processes = join_processes(config.device)
    torch.manual_seed(config.seed)
    # Cheap checks first, so that a typing error costs no time; then the data; then the folder.
    spec = preprocess_for(config.backbone, config.weights, None, False)
    data = read_data(
        config.data,
        seed=config.seed,
        val_fraction=config.val_fraction,
        test_fraction=config.test_fraction,
        data_root=config.data_root,
    )
    spec = preprocess_for(config.backbone, config.weights, config.imgsz, data.resize_to_crop)
    spec = spec.model_copy(update={"decode": config.decode})
    pretrained = load_pretrained(config.backbone, config.weights)
    # Before the folder: --overwrite removes the earlier run, which data that cannot be trained on must not cost.
    data = _subset(without_damaged(data), config)
    folder = Path(processes.agree(_prepare_folder(config, processes, overwrite=overwrite, resume=resume)))
    if resume and (folder / "run.json").is_file():
        notice(f"'{folder}' is finished; nothing to resume")
        if processes.is_main:
            _tidy(folder)
        return read_run(folder)
    if processes.is_main:
        write_samples(data, folder)
    replace_head(pretrained.model, len(data.classes))
    network = Network(pretrained.model, spec)
    # A network from random has no statistics yet that could be kept.
    is_pretrained = config.weights != "none"
    if is_pretrained:
        fix_batchnorm(pretrained.model)
    job = Job(config, data, network, is_pretrained, spec, processes, folder, torch.float32, started, after_epoch)
    if config.strategy != "head":
        job.precision = processes.agree(
            choose_precision(config.precision, network, job.train_size, config.batch, processes.device)
        )
    notice(
        f"{config.strategy}: {config.backbone} ({pretrained.source}), {spec.crop} px, {len(data.classes)} classes, "
        + ", ".join(f"{len(samples)} {split}" for split, samples in data.splits.items())
    )
    outcome = run_strategy(job)
    network.to("cpu")
    calibration, results = calibrate(network, outcome.results)
    outcome = replace(outcome, results=results)
    best_epoch = (
        max(outcome.records, key=lambda record: (record.val_top1, -record.epoch)).epoch if outcome.records else 0
    )
    record = RunRecord(
        name=folder.name,
        edgewright=__version__,
        torch=torch.__version__,
        backbone=config.backbone,
        classes=data.classes,
        preprocess=spec,
        strategy=config.strategy,
        note=outcome.note,
        weights=pretrained.source,
        weights_licence=pretrained.licence,
        data=data.origin,
        counts={split: data.counts(split) for split in data.splits},
        mirrored=data.mirrored,
        resize_to_crop=data.resize_to_crop,
        seed=config.seed,
        best_epoch=best_epoch,
        val_top1=outcome.results["val"].top1,
        test_top1=outcome.results["test"].top1 if "test" in outcome.results else None,
        seconds=job.seconds(),
        finished_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        train_px=None if config.strategy == "head" else job.train_size,
        trained_stages=outcome.trained_stages,
        stages_total=outcome.stages_total,
        precision=PRECISIONS[job.precision],
        processes=processes.world,
        stages=outcome.stages,
        calibration=calibration,
    )
    # The first removes files that the others may still need.
    processes.wait()
    if processes.is_main:
        write_tensors(job.backbone_state(), folder / "best.safetensors")
        write_report(folder, record, data, outcome)
        # Last of what counts: its presence means that the run is finished.
        atomic_write(folder / "run.json", record.model_dump_json(indent=2))
        _tidy(folder)
    processes.wait()
    return Run(folder, record)


def _tidy(folder: Path) -> None:
    """Remove what was only needed to continue."""
    shutil.rmtree(folder / "cache", ignore_errors=True)
    shutil.rmtree(folder / "last", ignore_errors=True)


def _subset(data: ImageData, config: TrainConfig) -> ImageData:
    if config.per_class is None:
        return data
    train = subset_per_class(data.splits["train"], config.per_class, config.seed)
    return replace(data, splits={**data.splits, "train": train})


def _prepare_folder(config: TrainConfig, processes: Processes, *, overwrite: bool, resume: bool) -> str:
    """Check, and in the first process make, the run's folder."""
    folder = Path(config.out) if config.out else default_folder(config, config.strategy)
    if not processes.is_main:
        return str(folder)
    # A hidden file is what was left of one that was being written.
    occupied = folder.is_dir() and any(not entry.name.startswith(".") for entry in folder.iterdir())
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--out '{folder}' is a file. Expected a folder.")
    if resume:
        stored = folder / CONFIG
        if not stored.is_file():
            raise UsageError(
                f"Nothing to resume in '{folder}': no {CONFIG}. Give --out the folder of the interrupted run."
            )
        if stored.read_text() != _yaml(config):
            raise UsageError(f"--resume with other options than the interrupted run had; they are in '{stored}'.")
        (folder / "last").mkdir(exist_ok=True)
        return str(folder)
    if occupied and not overwrite:
        raise UsageError(
            f"'{folder}' is not empty. Choose another --out, continue it with --resume, or --overwrite it."
        )
    if occupied:
        if not (folder / CONFIG).is_file():
            raise UsageError(f"'{folder}' is no run folder (no {CONFIG}); it is not overwritten. Choose another --out.")
        shutil.rmtree(folder)
    # First of all: it makes the folder one that can be resumed, or overwritten.
    atomic_write(folder / CONFIG, _yaml(config))
    (folder / "last").mkdir(exist_ok=True)
    return str(folder)


def default_folder(config: TrainConfig, last: str) -> Path:
    """The first free `runs/DATA-BACKBONE-last`, numbered if it must be."""
    stem = f"{Path(config.data).stem or 'data'}-{config.backbone.replace(':', '-')}-{last}"
    number = 1
    while (folder := Path("runs") / (stem if number == 1 else f"{stem}-{number}")).exists():
        number += 1
    return folder


def _yaml(config: TrainConfig) -> str:
    import yaml

    text: str = yaml.safe_dump(config.model_dump(exclude={"out"}), sort_keys=False)
    return text
