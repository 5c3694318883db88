"""Before several gigabytes are fetched: is this Python one of ours, and is the disk large enough?"""

# Annotations are not evaluated, so that an old Python gets the sentence below and no traceback.
from __future__ import annotations

import pathlib
import shutil
import sys
import tempfile

INSTALLED_GB, FETCHED_GB = 6.5, 3.0


def problem() -> str | None:
    """What stands in the way of an install, in a sentence; None if nothing does."""
    if not (3, 11) <= sys.version_info[:2] <= (3, 13):
        return (
            f"painseq needs Python 3.11 to 3.13; {sys.executable} is {sys.version.split()[0]}. "
            "Name another one: make PYTHON=python3.12 ..."
        )
    here, temporary = pathlib.Path.cwd(), pathlib.Path(tempfile.gettempdir())
    same = here.stat().st_dev == temporary.stat().st_dev
    needs = {here: INSTALLED_GB + (FETCHED_GB if same else 0)}
    if not same:
        needs[temporary] = FETCHED_GB
    for folder, gigabytes in needs.items():
        free = shutil.disk_usage(folder).free / 1e9
        if free < gigabytes:
            return (
                f"The disk of {folder} has {free:.1f} GB free; installing PyTorch and the rest needs "
                f"{gigabytes:.1f} GB there. Free some space, or work in a folder on a larger disk"
                + (" (TMPDIR=... for temporary files)." if folder == temporary else ".")
            )
    return None


if __name__ == "__main__":
    message = problem()
    if message:
        sys.exit(f"make: {message}")
