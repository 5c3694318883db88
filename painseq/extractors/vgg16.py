"""VGG16 with global average pooling, as in the heat-pain network of Prajod et al. (2024)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from painseq.errors import PainseqError
from painseq.extractors.extractor import Extractor, check_input_size, random_start
from painseq.extractors.weights import load_weights

Preprocessing = Literal["torchvision", "caffe", "unit"]

# torchvision's indices of the layers in `features`; the max pooling between two blocks belongs to the first.
_LAYERS = {
    "block1": range(0, 5),
    "block2": range(5, 10),
    "block3": range(10, 17),
    "block4": range(17, 24),
    "block5": range(24, 30),
}
_WIDTHS = {"block1": (64, 64), "block2": (128, 128), "block3": (256,) * 3, "block4": (512,) * 3, "block5": (512,) * 3}

# Mean and standard deviation of 0..255 values, in the channel order that the network sees.
_NORMALISATION: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "torchvision": ((0.485 * 255, 0.456 * 255, 0.406 * 255), (0.229 * 255, 0.224 * 255, 0.225 * 255)),
    "caffe": ((103.939, 116.779, 123.68), (1.0, 1.0, 1.0)),
    "unit": ((0.0, 0.0, 0.0), (255.0, 255.0, 255.0)),
}


def _convolutions() -> nn.Sequential:
    layers: list[nn.Module] = []
    channels = 3
    for block, widths in _WIDTHS.items():
        for width in widths:
            layers += [nn.Conv2d(channels, width, kernel_size=3, padding=1), nn.ReLU()]
            channels = width
        if block != "block5":
            layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers)


class VGG16(Extractor):
    """The 13 convolutions of VGG16, averaged over space after the last one: 512 features per frame.

    The average replaces the fifth max pooling, as in Prajod et al. With `fc`, the heat-pain network's dense layer of
    1024 units with ReLU follows: 1024 features. Parameters are named as in torchvision (`features.N.weight`), so its
    weights files can be loaded; their `classifier.*` is ignored, and `loaded` reports it.

    Args:
        weights: path or address for `read_weights`; None starts from random weights.
        fc: whether to add the dense layer of 1024 units.
        input_size_px: side of the crops.
        preprocessing: as used to train the weights. "torchvision": RGB in 0..1, ImageNet mean and standard
            deviation; "caffe" (Keras's VGG16): BGR in 0..255 minus the ImageNet mean; "unit": RGB in 0..1.
        seed: seed of random weights.
        trainable: blocks that are trained: block1 .. block5, fc, or "all". The others are frozen.
        new: blocks that start from random weights even if `weights` are given, e.g. ["fc"].

    Raises:
        PainseqError: weights that do not fit, an unknown block or preprocessing.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        weights: str | None = None,
        fc: bool = False,
        input_size_px: int = 224,
        preprocessing: Preprocessing = "torchvision",
        seed: int = 0,
        trainable: Sequence[str] = (),
        new: Sequence[str] = (),
    ) -> None:
        super().__init__()
        if preprocessing not in get_args(Preprocessing):
            raise PainseqError(
                f"VGG16: preprocessing is {preprocessing!r}; use one of {', '.join(get_args(Preprocessing))}."
            )
        check_input_size("VGG16", input_size_px, least=16)
        self.weights = weights
        self.fc = fc
        self.input_size_px = input_size_px
        self.preprocessing = preprocessing
        self.seed = seed
        self.trainable = tuple(trainable)
        self.new = tuple(new)
        self.out_shape = (1024,) if fc else (512,)
        with random_start(seed):
            self.features = _convolutions()
            self.fc_1024 = nn.Linear(512, 1024) if fc else None
            for module in self.modules():
                if isinstance(module, nn.Conv2d | nn.Linear):
                    nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                    torch.nn.init.constant_(module.bias, 0.0)  # type: ignore[arg-type]
        mean, std = _NORMALISATION[preprocessing]
        self.register_buffer("mean", torch.tensor(mean).reshape(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).reshape(3, 1, 1), persistent=False)
        if weights is None:
            self.check_blocks(self.new)
            self.loaded = f"Random weights (seed {seed}), not trained."
        else:
            # Weights of the heat-pain network can also be used without its dense layer.
            load_weights(self, weights, self.new, drop=("classifier",) if fc else ("classifier", "fc_1024"))
        self.freeze()

    def block_names(self) -> list[str]:
        """Return block1 .. block5 (the convolutions between two poolings), and fc if there is one."""
        return [*_LAYERS, *(["fc"] if self.fc else [])]

    def in_block(self, name: str, block: str) -> bool:
        """Whether a parameter, named as in torchvision, belongs to the block."""
        if block == "fc":
            return super().in_block(name, "fc_1024")
        if block not in _LAYERS:
            return super().in_block(name, block)
        part, _, index = name.partition(".")
        return part == "features" and index != "" and int(index.partition(".")[0]) in _LAYERS[block]

    def maps(self, x: Tensor) -> Tensor:
        """Compute the last convolution's output after its ReLU, (N, 512, S // 16, S // 16), for Grad-CAM.

        Raises:
            PainseqError: crops of another size.
        """
        self.check_crops(x)
        x = x.to(self.mean.dtype)
        if self.preprocessing == "caffe":
            x = x.flip(1)
        maps: Tensor = self.features((x - self.mean) / self.std)
        return maps

    def pool(self, maps: Tensor) -> Tensor:
        """Pool `maps` to features, (N, 512) or (N, 1024)."""
        pooled = maps.mean(dim=(2, 3))
        return pooled if self.fc_1024 is None else torch.relu(self.fc_1024(pooled))

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, 3, S, S) crops, uint8 or float 0..255, to (N, 512) features, or (N, 1024) with `fc`.

        Raises:
            PainseqError: crops of another size.
        """
        return self.pool(self.maps(x))
