"""Import this first: makes the painseq of this checkout importable, whether or not it is installed."""

import sys
import time
from pathlib import Path

STARTED = time.perf_counter()
"""Before the other imports, which take long on a machine that has just been started."""

ROOT = str(Path(__file__).parents[2])
if ROOT not in sys.path:
    sys.path.insert(0, ROOT)

import painseq  # noqa: E402

# configs/ and data_modules/ lie below painseq where it is installed, and beside it here.
if ROOT not in painseq.__path__:
    painseq.__path__.append(ROOT)
