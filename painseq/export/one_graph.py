"""`python -m painseq.export.one_graph JOB`: write one graph of a checkpoint in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from painseq.errors import PainseqError
from painseq.export.graphs import GraphName, graph_of
from painseq.export.onnx_files import write_graph
from painseq.model import load
from painseq.runs import end_with_parent

_REFUSED = 3
_LINES_SHOWN = 5


@dataclass(frozen=True)
class Job:
    """A graph to write.

    Args:
        checkpoint: path of the checkpoint.
        graph: which of its graphs.
        out: path of the ONNX file.
        prior: mix of classes to correct for; None: none.
        trust: other packages whose heads or extractors may be built.
    """

    checkpoint: str
    graph: GraphName
    out: str
    prior: Mapping[str, float] | None
    trust: Sequence[str]


def run(job: Job) -> None:
    """Write the graph in a new process, and wait for it.

    Raises:
        PainseqError: the exporter failed, or the file differs from torch.
    """
    # The same modules as here, and none of the working directory (-P).
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-P", "-m", __name__, json.dumps(asdict(job))]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, errors="replace")
    if done.returncode == 0:
        return
    if done.returncode == _REFUSED:
        raise PainseqError(done.stdout.strip())
    last = "\n  ".join(done.stderr.strip().splitlines()[-_LINES_SHOWN:])
    raise PainseqError(f"The exporter of torch could not write {Path(job.out).name}:\n  {last}")


def main(argv: Sequence[str]) -> int:
    """Write the graph of the job, which is given as JSON."""
    end_with_parent()
    job = Job(**json.loads(argv[0]))
    try:
        model = load(job.checkpoint, job.trust)
        if job.prior is not None:
            model = model.with_prior(job.prior)
        write_graph(graph_of(model, job.graph), Path(job.out))
    except PainseqError as error:
        sys.stdout.write(str(error))
        return _REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
