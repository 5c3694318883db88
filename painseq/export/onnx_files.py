"""Write a graph as an ONNX file, and check that the file computes what torch does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray

from painseq.errors import PainseqError
from painseq.export.graphs import Graph

OPSET = 20
TOLERANCE = 1e-4
"""Largest difference from torch, as a share of the largest value if that is above 1."""
_EXAMPLE = (2, 7)
_CHECKED = ((3, 11), (1, 1), (5, 4))
_DRAWS = 3


def write_graph(graph: Graph, path: Path) -> None:
    """Write a graph as ONNX, with free sizes of its leading axes, and check it; see `check_graph`.

    Call it in a process of its own: an export can fix sizes in a later one of the same process.

    Raises:
        PainseqError: see `check_graph`.
    """
    graph.eval().requires_grad_(False)
    clips, frames = _EXAMPLE
    example = graph.example(clips, _within(graph, frames))
    free = [{axis: torch.export.Dim.DYNAMIC for axis in range(count)} for count in map(graph.free_axes, graph.inputs)]
    with torch.no_grad():
        program = torch.onnx.export(
            graph,
            example,
            dynamo=True,
            opset_version=OPSET,
            input_names=list(graph.inputs),
            output_names=list(graph.outputs),
            dynamic_shapes=(tuple(free),),
            verbose=False,
        )
    assert program is not None
    _without_traces(program.model)
    program.save(path)
    check_graph(graph, path)


def check_graph(graph: Graph, path: Path) -> None:
    """Check a written graph against torch, at other numbers of clips and frames than it was made with.

    Raises:
        PainseqError: sizes are fixed in the file, or it computes something else.
    """
    session = quiet_session(path)
    _check_free(graph, session, path)
    for clips, frames in _CHECKED:
        # A label or vote at a tie may differ by rounding, but not in every draw.
        apart = [_differences(graph, session, clips, _within(graph, frames)) for _ in range(_DRAWS)]
        worst = max(values for values, _ in apart)
        chosen = min(choices for _, choices in apart)
        if worst > TOLERANCE or chosen > TOLERANCE:
            what = f"values by {worst:.2g}" if worst > TOLERANCE else "labels or votes"
            raise PainseqError(
                f"{path.name} differs from torch in {what} for {clips} clips of {frames} frames; {TOLERANCE} is "
                "accepted. Use another version of torch, onnxscript or onnxruntime."
            )


def quiet_session(path: Path) -> onnxruntime.InferenceSession:
    """Open an ONNX file on the CPU, with as many threads as torch has here."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    # Threads that wait for work would otherwise take the time of others.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _within(graph: Graph, frames: int) -> int:
    return frames if graph.longest is None else min(frames, graph.longest)


def _check_free(graph: Graph, session: onnxruntime.InferenceSession, path: Path) -> None:
    found = {node.name: node.shape for node in session.get_inputs()}
    if tuple(found) != graph.inputs or tuple(node.name for node in session.get_outputs()) != graph.outputs:
        raise PainseqError(f"{path.name} has the inputs {', '.join(found)}, not {', '.join(graph.inputs)}.")
    for name in graph.inputs:
        if any(isinstance(size, int) for size in found[name][: graph.free_axes(name)]):
            raise PainseqError(f"{path.name} takes {name} of the sizes {found[name]} alone; the first should be free.")


def _differences(graph: Graph, session: onnxruntime.InferenceSession, clips: int, frames: int) -> tuple[float, float]:
    """Return how far values are from torch's at most, and labels and votes."""
    example = graph.example(clips, frames)
    with torch.no_grad():
        wanted = graph(*example)
    given = {name: value.numpy() for name, value in zip(graph.inputs, example, strict=True)}
    found = session.run(list(graph.outputs), given)
    apart = {name: _apart(a.numpy(), b) for name, a, b in zip(graph.outputs, wanted, found, strict=True)}
    choices = [apart.pop(name) for name in ("label", "votes") if name in apart]
    return max(apart.values()), max(choices, default=0.0)


def _apart(wanted: NDArray[Any], found: NDArray[Any]) -> float:
    """Return the largest difference as a share of the largest value; infinite for other shapes, types or NaN."""
    if wanted.shape != found.shape or wanted.dtype != found.dtype or (np.isnan(wanted) != np.isnan(found)).any():
        return float("inf")
    real = ~np.isnan(wanted)
    if not real.any():
        return 0.0
    wanted, found = wanted[real].astype(np.float64), found[real].astype(np.float64)
    return float(np.abs(wanted - found).max() / max(1.0, np.abs(wanted).max()))


def _without_traces(model: Any) -> None:
    """Remove what the exporter notes of the code: the places of files on this machine, in every node."""
    for node in model.graph:
        node.metadata_props.clear()
        for value in node.outputs:
            value.metadata_props.clear()
    for value in (*model.graph.inputs, *model.graph.initializers.values()):
        value.metadata_props.clear()
