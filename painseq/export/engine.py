"""`with_engine`: bring an exported extractor, written in fp32, to the engine and precision that are asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from painseq.data.datamodule import PainDataModule
from painseq.errors import PainseqError
from painseq.export.graphs import graphs_of
from painseq.export.int8 import Int8, OpenVino, calibration_of, crops_of_model, int8_of
from painseq.export.measuring import measured
from painseq.model import PainModel
from painseq.runs import OnProgress
from painseq.runtime.folder import EXTRACTOR, OPENVINO_EXTRACTOR, ExtractorRecord, Int8Record
from painseq.runtime.graphs import Graph, OnnxGraph, OpenVinoGraph

TOLERANCES = {"fp32": 1e-4, "bf16": 0.05}
"""Largest difference of OpenVINO's features from fp32, as a share of the largest one."""
_CHECKED_CROPS = 2


@dataclass(frozen=True)
class Engine:
    """The extractor of an exported folder, as it runs.

    Args:
        record: its engine and precision.
        files: names of its files.
        int8: how it was quantised, and what that changed; None without.
        versions: further packages that wrote it.
    """

    record: ExtractorRecord
    files: tuple[str, ...]
    int8: Int8Record | None = None
    versions: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Plan:
    """What becomes of the extractor, with everything checked that can be before the graphs are written.

    Args:
        extractor: as asked for.
        data: the crops for int8; see `crops_of_model`.
        versions: packages of OpenVINO.
    """

    extractor: Int8 | OpenVino | None
    data: PainDataModule | None
    versions: dict[str, str]


def planned(model: PainModel, extractor: Int8 | OpenVino | None) -> Plan:
    """Check that a model's extractor can be brought to another engine or precision.

    Raises:
        PainseqError: the model has no extractor, a package is missing; see also `crops_of_model`.
    """
    if extractor is None:
        return Plan(None, None, {})
    if "extractor" not in graphs_of(model):
        raise PainseqError(
            "This model has no network from crops to features, so there is nothing that int8 or OpenVINO could make "
            "faster. Export it without (command line: without --int8 and --openvino)."
        )
    int8, versions = int8_of(extractor), dict[str, str]()
    if isinstance(extractor, OpenVino):
        from painseq.export.quantising import check_openvino

        versions = check_openvino(int8 is not None)
    return Plan(extractor, None if int8 is None else crops_of_model(model, int8.data), versions)


def with_engine(model: PainModel, plan: Plan, folder: Path, on_progress: OnProgress) -> Engine | None:
    """Replace the extractor's fp32 file of a folder by what was asked for, and measure what int8 changes.

    Args:
        model: its head answers.
        plan: see `planned`.
        folder: holds the fp32 file.
        on_progress: called with steps done, their total, and what is counted.

    Returns:
        How the extractor runs; None for a model without one.

    Raises:
        PainseqError: int8 changes the answers more than accepted, or OpenVINO computes something else.
    """
    if "extractor" not in graphs_of(model):
        return None
    if plan.extractor is None:
        return Engine(ExtractorRecord("fp32", "onnxruntime"), (EXTRACTOR,))
    from painseq.export.quantising import convert, quantise

    path, int8 = folder / EXTRACTOR, int8_of(plan.extractor)
    exact, crops, calibration = OnnxGraph(path), None, None
    if int8 is not None:
        assert plan.data is not None
        on_progress(0, 1, "calibration")
        calibration = calibration_of(plan.data, int8)
        crops = calibration.crops
    if isinstance(plan.extractor, OpenVino):
        precision = "int8" if int8 is not None else str(plan.extractor.precision)
        xml = folder / OPENVINO_EXTRACTOR
        files: tuple[str, ...] = (xml.name, xml.with_suffix(".bin").name)
        convert(path, xml, crops)
        path.unlink()
        changed: Graph = OpenVinoGraph(xml, precision)
        record = _openvino_record(precision)
        if int8 is None:
            _check_same(exact, changed, TOLERANCES[precision], model)
    else:
        assert crops is not None
        quantise(path, crops)
        changed, record, files = OnnxGraph(path), ExtractorRecord("int8", "onnxruntime"), (EXTRACTOR,)
    if int8 is None or calibration is None or plan.data is None:
        return Engine(record, files, None, plan.versions)
    on_progress(1, 1, "calibration")

    def on_clip(done: int, total: int, note: str = "") -> None:
        on_progress(done, total, "validation clips")

    networks = (exact, changed)
    return Engine(record, files, measured(model, networks, plan.data, int8, calibration, on_clip), plan.versions)


def _openvino_record(precision: str) -> ExtractorRecord:
    if precision == "fp32":
        return ExtractorRecord("fp32", "openvino")
    return ExtractorRecord("bf16" if precision == "bf16" else "int8", "openvino")


def _check_same(exact: Graph, changed: Graph, tolerance: float, model: PainModel) -> None:
    assert model.extractor is not None
    side = model.extractor.input_size_px
    crops = np.random.default_rng(0).integers(0, 256, (_CHECKED_CROPS, 3, side, side), np.uint8)
    wanted, found = (graph({"crops": crops})["features"] for graph in (exact, changed))
    apart = float(np.abs(wanted - found).max() / max(1.0, float(np.abs(wanted).max())))
    if not apart <= tolerance:
        raise PainseqError(
            f"OpenVINO's features differ from those of fp32 by {apart:.2g}; {tolerance} is accepted. Use another "
            "version of OpenVINO, or export without it."
        )
