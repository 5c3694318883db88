"""Run an extractor on a device, in a given precision, with channels-last tensors."""

from __future__ import annotations

import copy
from contextlib import ExitStack
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from painseq.errors import PainseqError
from painseq.extractors import Extractor, Pixels
from painseq.features.index import Precision

RequestedPrecision = Literal["auto", "fp32", "bf16"]

_MATRIX_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def has_bf16(device: torch.device | str) -> bool:
    """Whether the device multiplies bfloat16 natively, and therefore faster than float32."""
    kind = torch.device(device).type
    if kind == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8
    # Without these instructions a CPU emulates bfloat16, slower than float32.
    return kind == "cpu" and bool(torch.cpu._is_avx512_bf16_supported())


def choose_precision(requested: RequestedPrecision, extractor: Extractor, device: torch.device | str) -> Precision:
    """Resolve a requested precision; "auto" is bf16 if the device supports it natively. Always fp32 for `Pixels`.

    Raises:
        PainseqError: an unknown precision.
    """
    if requested not in get_args(RequestedPrecision):
        raise PainseqError(f"Unknown precision {requested!r}; use one of {', '.join(get_args(RequestedPrecision))}.")
    if isinstance(extractor, Pixels):
        return "fp32"
    if requested != "auto":
        return requested
    return "bf16" if has_bf16(device) else "fp32"


class Network:
    """Compute features from crops.

    Args:
        extractor: put into eval mode and, for fp32, moved to `device`; for bf16 a copy is used.
        device: device to run on.
        precision: "fp32": convolutions without TensorFloat-32; "bf16": convolutions and dense layers multiply in
            bfloat16 and accumulate in float32; crops are normalised in float32.
    """

    def __init__(self, extractor: Extractor, device: torch.device | str, precision: Precision) -> None:
        self.device = torch.device(device)
        self.precision = precision
        self.extractor = extractor.eval()
        if precision == "bf16":
            self.extractor = copy.deepcopy(extractor)
            # Autocast would convert frozen weights again for every batch.
            for module in self.extractor.modules():
                if isinstance(module, _MATRIX_LAYERS):
                    module.to(torch.bfloat16)
        self.extractor.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    @property
    def dtype(self) -> torch.dtype:
        """Type of the features: float32, or uint8 for `Pixels`."""
        return torch.uint8 if isinstance(self.extractor, Pixels) else torch.float32

    def buffer(self, frames: int, size_px: int) -> Tensor:
        """Allocate memory for (frames, 3, size_px, size_px) crops, pinned for fast copies to a GPU."""
        pinned = self.device.type == "cuda"
        return torch.empty((frames, size_px, size_px, 3), dtype=torch.uint8, pin_memory=pinned).permute(0, 3, 1, 2)

    @torch.inference_mode()
    def __call__(self, crops: Tensor) -> Tensor:
        """Map (n, 3, S, S) uint8 to (n, *F) float32 (uint8 for `Pixels`), on `device`, asynchronously."""
        with ExitStack() as settings:
            if self.precision == "bf16":
                settings.enter_context(torch.autocast(self.device.type, dtype=torch.bfloat16))
            elif self.device.type == "cuda":
                settings.enter_context(torch.backends.cudnn.flags(enabled=True, allow_tf32=False))
            on_device = crops.to(self.device, memory_format=torch.channels_last, non_blocking=True)
            features: Tensor = self.extractor(on_device)
        return features.to(self.dtype)
