"""The export of one small real run, for all tests of this folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from edgewright.export.exporter import Export


@pytest.fixture
def bundle_path(digits_export: Export) -> Path:
    """The bundle's folder, to be read only."""
    return digits_export.bundle.path
