"""The command `painseq`: one module a command, each imported only when it is called."""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Sequence

from painseq import __version__
from painseq.errors import PainseqError

COMMANDS = {
    "demo": "Do the whole job on generated data, from videos to a report, in a few minutes.",
    "synth": "Write generated pain videos in the layout of a real data set.",
    "data": "Check a data set against what was published of it and against itself; draw some of it.",
    "split": "Tell who is in which part of a data set, and write it as a file to be published.",
    "faces": "Find and follow the face in a data set's videos, and keep the tracks.",
    "extract": "Turn a data set's videos into a feature store; run again, it resumes.",
    "store": "Tell what a feature store holds, or verify it.",
    "fit": "Train a head (or an extractor) on a data set: Lightning's command line.",
    "evaluate": "Score a checkpoint, or a predictions file, on people it has never seen.",
    "compare": "Compare models on the same clips, paired by subject.",
    "crossval": "Fit and score a head on every fold of a data set.",
    "transfer": "Tell how well models, features and a few subjects carry over between data sets, as a table.",
    "audit": "Show what leaky protocols would have scored, or check a split for leaks.",
    "reproduce": "Run a paper's recipe on your copy of the data, beside what was published.",
    "predict": "Say what a checkpoint makes of video files.",
    "submit": "Write the predictions of a test set as a challenge CSV, or check such a file.",
    "explain": "Show where in the face, and when, a checkpoint found its answer.",
}

GOING_ON = {
    "demo": "What was finished is kept; to go on, run the same command again.",
    "synth": "What was finished is kept; to go on, run the same command again.",
    "faces": "What was finished is kept; to go on, run the same command again.",
    "extract": "What was finished is kept; to go on, run the same command again.",
    "crossval": "Finished folds are kept; to go on, run the same command again.",
    "transfer": "What was finished is kept; to go on, run the same command again.",
    "audit": "Finished folds are kept; to go on, run the same command again.",
    "reproduce": "What was finished is kept; to go on, run the same command again.",
    "explain": "`explain score` keeps finished clips: rerun the same command to resume.",
    "fit": "What was finished is kept; to go on, add --resume --out FOLDER (the run's).",
}

ERRORS_OF_OTHERS = {
    "OutOfMemoryError": "The GPU's memory is full. Smaller batches need less of it (--data.options.batch_size, "
    "--batch-frames); the CPU needs none (--device cpu, --trainer.accelerator cpu).",
    "MisconfigurationException": "Lightning refuses these settings of the trainer.",
}
"""What torch's and Lightning's mean here; by name, as neither is imported for the sake of its errors."""


def usage() -> str:
    """The text of `painseq --help`."""
    width = max(map(len, COMMANDS))
    rows = "\n".join(f"  {name:{width}}  {sentence}" for name, sentence in COMMANDS.items())
    return (
        f"painseq {__version__} recognises pain, and its level, from face video. Research software, no medical "
        f"device.\n\nusage: painseq COMMAND [options]\n\n{rows}\n\n`painseq COMMAND --help` tells its options."
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code. Errors meant for people are printed without a traceback."""
    args = list(sys.argv[1:] if argv is None else argv)
    if not args or args[0] in ("-h", "--help"):
        sys.stdout.write(usage() + "\n")
        return 0
    if args[0] == "--version":
        sys.stdout.write(f"painseq {__version__}\n")
        return 0
    name, rest = args[0], args[1:]
    if name not in COMMANDS:
        sys.stderr.write(f"painseq: no command {name!r}. Commands: {', '.join(COMMANDS)}.\n")
        return 2
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    logging.getLogger("huggingface_hub").propagate = False  # It prints each line itself.
    try:
        command = importlib.import_module(f"painseq.cli.{name}")
        return int(command.main(rest))
    except PainseqError as error:
        sys.stderr.write(f"painseq {name}: {error}\n")
        return 1
    except OSError as error:
        # Of a file that is moved into its place, as Lightning does with checkpoints, the second name is the place.
        file = error.filename2 or error.filename or "no file named"
        sys.stderr.write(f"painseq {name}: {error.strerror or error}: {file}\n")
        return 1
    except Exception as error:
        meaning = ERRORS_OF_OTHERS.get(type(error).__name__)
        if meaning is None:
            raise
        sys.stderr.write(f"painseq {name}: {meaning} It said: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write(f"painseq {name}: interrupted. {GOING_ON.get(name, '')}".rstrip() + "\n")
        return 130
