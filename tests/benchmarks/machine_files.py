"""What a machine's kernel tells, as files below a folder that stands for `/`."""

from __future__ import annotations

from pathlib import Path

__all__ = ["machine"]


def machine(root: Path, files: dict[str, str]) -> Path:
    """Write or exchange these files."""
    for name, content in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        # As a whole: a watch may read meanwhile.
        new = file.with_name("new")
        new.write_text(content)
        new.replace(file)
    return root
