"""Write a graph as an ONNX file, and check that the file computes what torch does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from painseq.errors import PainseqError
from painseq.export.graphs import Graph
from painseq.runtime.graphs import OnnxGraph

OPSET = 20
TOLERANCE = 1e-4
"""Largest difference from torch, as a share of the largest value if that is above 1."""
_EXAMPLE = (2, 7)
_CHECKED = ((3, 11), (1, 1), (5, 4))
_DRAWS = 3


def write_graph(graph: Graph, path: Path) -> None:
    """Write a graph as ONNX, with free sizes of its leading axes, and check it; see `check_graph`.

    An export can fix sizes in a later one of the same process, which is then refused: try that one in a new process.

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
    _check_free(graph, path)
    written = OnnxGraph(path, threads=torch.get_num_threads())
    written.check(path, graph.inputs, graph.outputs)
    for clips, frames in _CHECKED:
        for _ in range(_DRAWS):
            worst, chosen = _differences(graph, written, clips, _within(graph, frames))
            # A label or vote at a tie may differ by rounding, but not in every draw.
            if worst > TOLERANCE or chosen <= TOLERANCE:
                break
        if worst > TOLERANCE or chosen > TOLERANCE:
            what = f"values by {worst:.2g}" if worst > TOLERANCE else "labels or votes"
            raise PainseqError(
                f"{path.name} differs from torch in {what} for {clips} clips of {frames} frames; {TOLERANCE} is "
                "accepted. Use another version of torch, onnxscript or onnxruntime."
            )


def _within(graph: Graph, frames: int) -> int:
    return frames if graph.longest is None else min(frames, graph.longest)


def _check_free(graph: Graph, path: Path) -> None:
    for value in onnx.load(path, load_external_data=False).graph.input:
        sizes = [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
        if any(isinstance(size, int) for size in sizes[: graph.free_axes(value.name)]):
            raise PainseqError(f"{path.name} takes {value.name} of the sizes {sizes} alone; the first should be free.")


def _differences(graph: Graph, written: OnnxGraph, clips: int, frames: int) -> tuple[float, float]:
    """Return how far values are from torch's at most, and labels and votes."""
    example = graph.example(clips, frames)
    with torch.no_grad():
        wanted = dict(zip(graph.outputs, graph(*example), strict=True))
    found = written({name: value.numpy() for name, value in zip(graph.inputs, example, strict=True)})
    apart = {name: _apart(value.numpy(), found[name]) for name, value in wanted.items()}
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
