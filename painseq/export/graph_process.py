"""`python -m painseq.export.graph_process JOB`: write graphs of a checkpoint in a process of its own."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryFile

from painseq.errors import PainseqError
from painseq.export.graphs import GraphName, graph_of
from painseq.export.onnx_files import write_graph
from painseq.model import load
from painseq.runs import end_with_parent

log = logging.getLogger("painseq")

_REFUSED = 3
_LINES_SHOWN = 5


@dataclass(frozen=True)
class Job:
    """Graphs to write.

    Args:
        checkpoint: path of the checkpoint.
        files: graph -> path of its ONNX file.
        prior: mix of classes to correct for; None: none.
        trust: other packages whose heads or extractors may be built.
    """

    checkpoint: str
    files: Mapping[GraphName, str]
    prior: Mapping[str, float] | None
    trust: Sequence[str]


def run(job: Job, on_written: Callable[[], None]) -> None:
    """Write the graphs in a new process, one after the other, and wait for it.

    Args:
        job: the graphs.
        on_written: called after each of them.

    Raises:
        PainseqError: the exporter failed, or a file differs from torch.
    """
    left = dict(job.files)

    def written(name: GraphName) -> None:
        del left[name]
        on_written()

    try:
        _run(job, written)
    except PainseqError as error:
        if len(left) == len(job.files):
            raise
        # An export can fix sizes in a later one of the same process, so what failed after another is tried alone.
        log.info("%s Trying again in a new process.", error)
        run(replace(job, files=left), on_written)


def _run(job: Job, on_written: Callable[[GraphName], object]) -> None:
    # The same modules as here, and none of the working directory (-P).
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-P", "-m", __name__, json.dumps(asdict(job))]
    with (
        TemporaryFile("w+", errors="replace") as errors,
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
    ):
        assert process.stdout is not None
        left, refusal = list(job.files.values()), ""
        try:
            for line in process.stdout:
                told = json.loads(line)
                if "written" in told:
                    on_written(told["written"])
                    del left[0]
                refusal = told.get("refused", "")
        except BaseException:
            # Else an interrupt would wait for the graph.
            process.kill()
            raise
        code = process.wait()
        errors.seek(0)
        last = "\n  ".join(errors.read().strip().splitlines()[-_LINES_SHOWN:])
    if code == _REFUSED:
        raise PainseqError(refusal)
    if left:
        raise PainseqError(f"The exporter of torch could not write {Path(left[0]).name}:\n  {last}")


def main(argv: Sequence[str]) -> int:
    """Write the graphs of the job, which is given as JSON, and print a line of JSON after each."""
    end_with_parent()
    job = Job(**json.loads(argv[0]))
    # What others print does not come between the lines of JSON.
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as lines:
        os.dup2(2, 1)
        return _write(job, lambda told: print(json.dumps(told), file=lines, flush=True))


def _write(job: Job, tell: Callable[[Mapping[str, str]], None]) -> int:
    try:
        model = load(job.checkpoint, job.trust)
        if job.prior is not None:
            model = model.with_prior(job.prior)
        for name, path in job.files.items():
            write_graph(graph_of(model, name), Path(path))
            tell({"written": name})
    except PainseqError as error:
        tell({"refused": str(error)})
        return _REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
