"""`Pixels`: use the crops themselves as features."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from painseq.extractors.extractor import Extractor, check_input_size


class Pixels(Extractor):
    """Return crops unchanged, for heads that take pixels.

    Args:
        input_size_px: side of the crops; `out_shape` is (3, input_size_px, input_size_px).
    """

    trainable: Sequence[str] = ()
    loaded = "Pixels has no weights."

    def __init__(self, input_size_px: int = 224) -> None:
        super().__init__()
        check_input_size("Pixels", input_size_px)
        self.input_size_px = input_size_px
        self.out_shape = (3, input_size_px, input_size_px)
        self.freeze()

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, 3, S, S) crops of any type, unchanged.

        Raises:
            PainseqError: crops of another size.
        """
        self.check_crops(x)
        return x
