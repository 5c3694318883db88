"""The command `painseq`: one module per command, imported when the command runs."""

from __future__ import annotations

import errno
import importlib
import io
import logging
import sys
from collections.abc import Sequence

from painseq import __version__
from painseq.errors import PainseqError

COMMANDS = {
    "demo": "Run the whole pipeline on generated data, from videos to a report, in a few minutes.",
    "synth": "Generate pain videos in the layout of a real data set.",
    "data": "Check a data set against published counts and for consistency, or draw a contact sheet.",
    "split": "Show the subjects of each part of a data set, and write the split as a file to publish.",
    "faces": "Detect and track the face in a data set's videos, and store the tracks.",
    "extract": "Extract the features of a data set's videos into a feature store.",
    "store": "Show what a feature store holds, or verify its files.",
    "fit": "Train a head (or an extractor) on a data set, with Lightning's command line.",
    "evaluate": "Evaluate a checkpoint, or a predictions file, on held-out subjects.",
    "compare": "Compare models on the same clips, paired by subject.",
    "crossval": "Cross-validate a head: fit and score it on every fold of a data set.",
    "transfer": "Measure how well models and features transfer between data sets.",
    "audit": "Measure how much leaky protocols inflate scores, or check a split for leaks.",
    "reproduce": "Run a paper's recipe on your copy of the data, and compare with the published scores.",
    "movements": "Write facial-movement coefficients of each frame of videos; needs no trained model.",
    "predict": "Predict the pain in video files with a checkpoint.",
    "export": "Write a checkpoint as ONNX files, which predict without torch.",
    "live": "Predict a camera, a stream or a file as it is shown; notify, log, replay a log.",
    "serve": "Serve models and a page to browsers on your own machine.",
    "submit": "Write test predictions as a challenge CSV, or check such a file.",
    "explain": "Explain a checkpoint's prediction: where in the face, and when.",
}

RESUME_HINTS = {
    "demo": "Finished work is kept. Rerun the same command to resume.",
    "synth": "Finished work is kept. Rerun the same command to resume.",
    "faces": "Finished work is kept. Rerun the same command to resume.",
    "extract": "Finished work is kept. Rerun the same command to resume.",
    "predict": "With --out, finished videos are kept. Rerun the same command to resume.",
    "movements": "Finished videos are kept. Rerun the same command to resume.",
    "crossval": "Finished folds are kept. Rerun the same command to resume.",
    "transfer": "Finished work is kept. Rerun the same command to resume.",
    "audit": "Finished folds are kept. Rerun the same command to resume.",
    "reproduce": "Finished work is kept. Rerun the same command to resume.",
    "explain": "`explain score` keeps finished clips. Rerun the same command to resume.",
    "fit": "Finished epochs are kept. To resume, add --resume --out FOLDER, where FOLDER is the run folder.",
}

LIBRARY_ERRORS = {
    "OutOfMemoryError": "The GPU is out of memory. Use smaller batches (--data.options.batch_size, --batch-frames), "
    "or the CPU (--device cpu, --trainer.accelerator cpu).",
    "MemoryError": "The memory of this machine does not suffice. Use smaller batches, fewer workers or shorter spans.",
    "MisconfigurationException": "Lightning does not accept these trainer settings.",
}
"""Errors of torch and Lightning, explained. They are matched by name, so that neither package has to be imported."""

TRAIN_MODULES = (
    *("torch", "torchvision", "pytorch_lightning", "lightning_fabric", "jsonargparse", "timm", "huggingface_hub"),
    *("torchmetrics", "sklearn", "scipy", "matplotlib", "captum", "jinja2"),
)
"""What the extra `train` installs, as it is imported."""


def usage() -> str:
    """The text of `painseq --help`."""
    width = max(map(len, COMMANDS))
    rows = "\n".join(f"  {name:{width}}  {sentence}" for name, sentence in COMMANDS.items())
    return (
        f"painseq {__version__} recognises pain, and its level, from face video. Research software, not a medical "
        f"device.\n\nusage: painseq COMMAND [options]\n\n{rows}\n\n`painseq COMMAND --help` lists its options."
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return the exit code. A `PainseqError` is printed without a traceback."""
    args = list(sys.argv[1:] if argv is None else argv)
    if not args or args[0] in ("-h", "--help"):
        sys.stdout.write(usage() + "\n")
        return 0
    if args[0] == "--version":
        sys.stdout.write(f"painseq {__version__}\n")
        return 0
    name, rest = args[0], args[1:]
    if name not in COMMANDS:
        sys.stderr.write(f"painseq: unknown command {name!r}. Commands: {', '.join(COMMANDS)}.\n")
        return 2
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # Names of files need not be UTF-8.
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    logging.getLogger("huggingface_hub").propagate = False  # It prints its messages itself.
    try:
        command = importlib.import_module(f"painseq.cli.{name}")
        return int(command.main(rest))
    except PainseqError as error:
        sys.stderr.write(f"painseq {name}: {error}\n")
        return 1
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        if module not in TRAIN_MODULES:
            raise
        sys.stderr.write(
            f'painseq {name}: {module} is not installed. Install what training needs: pip install "painseq[train]" (in '
            'a clone: pip install -e ".[train]"). Without it, `painseq predict` takes exported models.\n'
        )
        return 1
    except OSError as error:
        # When a file is moved, the second name is the destination.
        file = error.filename2 or error.filename or "no file named"
        is_full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        hint = f". Free some space. {RESUME_HINTS.get(name, '')}".rstrip() if is_full else ""
        sys.stderr.write(f"painseq {name}: {error.strerror or error}: {file}{hint}\n")
        return 1
    except Exception as error:
        meaning = LIBRARY_ERRORS.get(type(error).__name__)
        if meaning is None:
            raise
        sys.stderr.write(f"painseq {name}: {meaning} The error was: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write(f"painseq {name}: interrupted. {RESUME_HINTS.get(name, '')}".rstrip() + "\n")
        return 130
