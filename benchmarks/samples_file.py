"""Every sample of a measurement as a Parquet file, for those who want to draw their own curves."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgewright.benchmarks.bench import BenchResult
from edgewright.benchmarks.reports import STAGES
from edgewright.runtime.errors import UsageError
from edgewright.runtime.extras import require
from edgewright.runtime.files import atomic_file, require_writable

__all__ = ["require_samples_file", "write_samples"]


def require_samples_file(path: Path) -> None:
    """Refuse what :func:`write_samples` could not write.

    Raises:
        UsageError: a name that does not end in .parquet, or a folder.
        MissingExtraError: pyarrow is not installed.
        OSError: nothing can be written there.
    """
    if path.suffix.lower() != ".parquet":
        raise UsageError(f"--samples {path}: expected a name that ends in .parquet.")
    if path.is_dir():
        raise UsageError(f"--samples '{path}' is a folder. Expected a file, or nothing, in its place.")
    require("parquet", "pyarrow")
    require_writable(path.parent)


def write_samples(path: Path, result: BenchResult) -> None:
    """A row for each request, in the order of each configuration's requests; replaced at once.

    Columns: artefact, backend, scenario, threads, batch, request (its number), total_ms and a column for each stage.
    MLPerf's scenarios have none: LoadGen keeps its own.
    """
    import pyarrow as pa
    from pyarrow import parquet

    tables = []
    for index, samples in result.samples.items():
        report, count = result.document.reports[index], len(samples.total_ms)
        columns = {
            "artefact": pa.array([report.artefact] * count, pa.string()),
            "backend": pa.array([report.backend] * count, pa.string()),
            "scenario": pa.array([report.scenario] * count, pa.string()),
            "threads": pa.array([report.threads] * count, pa.int32()),
            "batch": pa.array([report.batch] * count, pa.int32()),
            "request": pa.array(np.arange(count), pa.int64()),
            "total_ms": pa.array(samples.total_ms, pa.float64()),
            **{f"{stage}_ms": pa.array(samples.stages_ms[stage], pa.float64()) for stage in STAGES},
        }
        tables.append(pa.table(columns))
    if not tables:
        raise UsageError("There are no samples: the scenarios measured keep none. Add closed-loop.")
    with atomic_file(path) as temporary:
        parquet.write_table(pa.concat_tables(tables), temporary)
