"""Files that are there whole or not at all, and those shipped with painseq."""

from __future__ import annotations

import os
from pathlib import Path
from uuid import uuid4

from painseq.errors import PainseqError


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file that appears whole or not at all, also when the process is killed or the power fails.

    Raises:
        OSError: the disk is full or the folder cannot be written; nothing is left behind then.
    """
    # A name of its own: processes of one launch may write the same file at the same time.
    partial = path.with_name(f".{path.name}.{uuid4().hex}.partial")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def shipped_configs() -> Path:
    """The folder of the YAML files shipped with painseq: `data/`, `extractor/`, `head/`, `reproduce/`, `demo/`.

    Raises:
        PainseqError: this installation lacks them.
    """
    try:
        from painseq import configs
    except ImportError:
        configs = None
    folder = None if configs is None else Path(configs.__file__).parent
    if folder is None or not any(folder.rglob("*.yaml")):
        raise PainseqError(
            f"The configurations shipped with painseq are not found beside {Path(__file__).parent}. Install painseq "
            "(pip install ., or pip install -e . in a clone); a copy of its folder alone lacks them."
        )
    return folder
