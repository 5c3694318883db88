"""Quantise an ONNX network to 8-bit integers with onnxruntime, and convert one for OpenVINO."""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from painseq.errors import PainseqError
from painseq.files import write_atomically


class _Crops(CalibrationDataReader):  # type: ignore[misc]
    """Crops one at a time, as onnxruntime asks for them."""

    def __init__(self, crops: NDArray[np.uint8]) -> None:
        self._inputs: Iterator[dict[str, NDArray[np.uint8]]] = iter([{"crops": crop[None]} for crop in crops])

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        """Return the next input; None behind the last."""
        return next(self._inputs, None)


def quantise(path: Path, crops: NDArray[np.uint8]) -> None:
    """Replace an extractor's ONNX file by the same network in int8.

    Weights are int8 with a scale for each channel, activations uint8 with the range that they have for these crops.

    Args:
        path: as `write_graph` wrote it.
        crops: (N, 3, S, S) uint8.
    """
    with TemporaryDirectory(prefix="painseq-") as place:
        prepared, quantised = Path(place) / "prepared.onnx", Path(place) / "int8.onnx"
        quant_pre_process(str(path), str(prepared))
        quantize_static(
            str(prepared),
            str(quantised),
            _Crops(crops),
            QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
        )
        write_atomically(path, quantised.read_bytes())


def check_openvino(int8: bool) -> dict[str, str]:
    """Return the versions of the packages that write files for OpenVINO.

    Raises:
        PainseqError: one of them is missing.
    """
    versions = {}
    for name in ("openvino", *(["nncf"] if int8 else [])):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError as error:
            raise PainseqError(f'{name} is not installed: pip install "painseq[openvino]".') from error
    return versions


def convert(source: Path, out: Path, crops: NDArray[np.uint8] | None) -> None:
    """Write an ONNX extractor as .xml and .bin files of OpenVINO, in int8 if crops are given.

    Args:
        source: as `write_graph` wrote it.
        out: the .xml file; the .bin file stands beside it.
        crops: (N, 3, S, S) uint8 to calibrate int8 on; None keeps fp32.
    """
    openvino: Any = importlib.import_module("openvino")
    network = openvino.convert_model(str(source))
    if crops is not None:
        nncf: Any = importlib.import_module("nncf")
        inputs = nncf.Dataset([crop[None] for crop in crops], lambda crop: {"crops": crop})
        # What it prints of its progress is not part of a command's output.
        with redirect_stdout(sys.stderr):
            network = nncf.quantize(network, inputs, subset_size=len(crops))
    openvino.save_model(network, str(out), compress_to_fp16=False)
