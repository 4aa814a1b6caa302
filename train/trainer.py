"""One training run from configuration to run folder."""

from __future__ import annotations

import shutil
import time
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import torch
from safetensors.torch import save_file

from edgewright.runtime.console import notice
from edgewright.runtime.errors import UsageError
from edgewright.runtime.files import atomic_write
from edgewright.runtime.parallel import available_cores
from edgewright.train.backbones.network import Network
from edgewright.train.backbones.surgery import replace_head
from edgewright.train.backbones.weights import load_pretrained, preprocess_for
from edgewright.train.config import TrainConfig
from edgewright.train.data import ImageData, read_data
from edgewright.train.data.check import without_damaged
from edgewright.train.data.splitting import subset_per_class
from edgewright.train.report import write_report
from edgewright.train.run import Run, RunRecord, read_run, write_samples
from edgewright.train.strategies import Job, run_strategy
from edgewright.version import __version__

__all__ = ["train"]

_CONFIG = "config.yaml"


def train(config: TrainConfig, *, overwrite: bool = False, resume: bool = False) -> Run:
    """Train a classifier.

    Args:
        config: What to do.
        overwrite: Replace an earlier run in the same folder.
        resume: Continue an interrupted run in the same folder, with the same configuration.

    Returns:
        The finished run.

    Raises:
        EdgewrightError: see :mod:`edgewright.runtime.errors`; the folder of an earlier run is then untouched.
    """
    started = time.perf_counter()
    device = _device(config.device)
    torch.set_num_threads(available_cores())
    torch.manual_seed(config.seed)
    # Cheap checks first, so that a typing error costs no time; then the data; then the folder.
    spec = preprocess_for(config.backbone, config.weights, None, False)
    data = read_data(
        config.data, seed=config.seed, val_fraction=config.val_fraction, test_fraction=config.test_fraction
    )
    spec = preprocess_for(config.backbone, config.weights, config.imgsz, data.resize_to_crop)
    pretrained = load_pretrained(config.backbone, config.weights)
    # Before the folder: --overwrite removes the earlier run, which data that cannot be trained on must not cost.
    data = _subset(without_damaged(data), config)
    folder = _prepare_folder(config, overwrite=overwrite, resume=resume)
    if resume and (folder / "run.json").is_file():
        notice(f"'{folder}' is finished; nothing to resume")
        return read_run(folder)
    atomic_write(folder / _CONFIG, _yaml(config))
    write_samples(data, folder)
    notice(
        f"{config.strategy}: {config.backbone} ({pretrained.source}), {spec.crop} px, {len(data.classes)} classes, "
        + ", ".join(f"{len(samples)} {split}" for split, samples in data.splits.items())
    )
    replace_head(pretrained.model, len(data.classes))
    network = Network(pretrained.model, spec)
    outcome = run_strategy(Job(config, data, network, spec, device, folder))
    network.to("cpu")

    best_epoch = max(outcome.records, key=lambda record: (record.val_top1, -record.epoch)).epoch
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
        seconds=time.perf_counter() - started,
        finished_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )
    temporary = folder / ".best.safetensors.tmp"
    save_file({name: tensor.contiguous() for name, tensor in network.backbone.state_dict().items()}, temporary)
    temporary.replace(folder / "best.safetensors")
    write_report(folder, record, data, outcome)
    shutil.rmtree(folder / "cache", ignore_errors=True)
    # Last: its presence means that the run is finished.
    atomic_write(folder / "run.json", record.model_dump_json(indent=2))
    return Run(folder, record)


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(
            f"Device '{name}' cannot be used: {str(error).splitlines()[0]}. Use --device auto or cpu."
        ) from error
    return device


def _subset(data: ImageData, config: TrainConfig) -> ImageData:
    if config.per_class is None:
        return data
    train = subset_per_class(data.splits["train"], config.per_class, config.seed)
    return replace(data, splits={**data.splits, "train": train})


def _prepare_folder(config: TrainConfig, *, overwrite: bool, resume: bool) -> Path:
    folder = Path(config.out) if config.out else _default_folder(config)
    occupied = folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--out '{folder}' is a file. Expected a folder.")
    if resume:
        stored = folder / _CONFIG
        if not stored.is_file():
            raise UsageError(
                f"Nothing to resume in '{folder}': no {_CONFIG}. Give --out the folder of the interrupted run."
            )
        if stored.read_text() != _yaml(config):
            raise UsageError(f"--resume with other options than the interrupted run had; they are in '{stored}'.")
        return folder
    if occupied and not overwrite:
        raise UsageError(
            f"'{folder}' is not empty. Choose another --out, continue it with --resume, or --overwrite it."
        )
    if occupied:
        if not (folder / _CONFIG).is_file():
            raise UsageError(
                f"'{folder}' is no run folder (no {_CONFIG}); it is not overwritten. Choose another --out."
            )
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _default_folder(config: TrainConfig) -> Path:
    stem = f"{Path(config.data).name or 'data'}-{config.backbone}-{config.strategy}"
    number = 1
    while (folder := Path("runs") / (stem if number == 1 else f"{stem}-{number}")).exists():
        number += 1
    return folder


def _yaml(config: TrainConfig) -> str:
    import yaml

    text: str = yaml.safe_dump(config.model_dump(exclude={"out"}), sort_keys=False)
    return text
