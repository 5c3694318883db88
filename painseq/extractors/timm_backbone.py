"""Use any timm network as an extractor."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

import timm
import torch
from torch import Tensor, nn

from painseq.errors import PainseqError
from painseq.extractors.extractor import Extractor, check_input_size, random_start
from painseq.extractors.hub import announce_timm
from painseq.extractors.weights import load_weights
from painseq.spec import Spec


class TimmBackbone(Extractor):
    """A timm network without its classifier, with its own normalisation; gives (N, D) pooled features.

    Of timm's configuration, only mean and standard deviation are used. Input size, interpolation and crop share are
    not: crops have `input_size_px` and are resized with Pillow's bilinear filter, whatever timm names for the network.
    Stores record both (`input_record`).

    Args:
        model: timm's name, e.g. "resnet18" or "mobilenetv3_small_050.lamb_in1k".
        weights: "hub" downloads timm's pretrained weights, whose sha256 is not checked; otherwise a path or address
            for `read_weights`, with timm's parameter names; None starts from random weights.
        input_size_px: side of the crops. A network of fixed input size (ViT) is built for this size.
        seed: seed of random weights.
        trainable: blocks that are trained, by timm's module names ("layer4", "blocks.3"), or "all". The others are
            frozen.
        new: blocks that start from random weights even if `weights` are given.

    Raises:
        PainseqError: an unknown model or block, weights that do not fit or cannot be loaded, an input size that the
            network does not support.
    """

    mean: Tensor
    std: Tensor
    backbone: Any  # A timm model: nn.Module does not declare pretrained_cfg, forward_features, forward_head.

    def __init__(
        self,
        model: str,
        weights: str | None = None,
        input_size_px: int = 224,
        seed: int = 0,
        trainable: Sequence[str] = (),
        new: Sequence[str] = (),
    ) -> None:
        super().__init__()
        check_input_size("TimmBackbone", input_size_px)
        self.model = model
        self.weights = weights
        self.input_size_px = input_size_px
        self.seed = seed
        self.trainable = tuple(trainable)
        self.new = tuple(new)
        with random_start(seed):
            self.backbone = _create(model, pretrained=weights == "hub", input_size_px=input_size_px)
        config = self.backbone.pretrained_cfg
        self.register_buffer("mean", 255 * torch.tensor(config["mean"]).reshape(3, 1, 1), persistent=False)
        self.register_buffer("std", 255 * torch.tensor(config["std"]).reshape(3, 1, 1), persistent=False)
        if weights is None:
            self.check_blocks(self.new)
            self.loaded = f"Random weights (seed {seed}), not trained."
        elif weights == "hub":
            if self.new:
                raise PainseqError("TimmBackbone: `new` needs a weights file; weights='hub' loads every block.")
            self.people_known = False
            self.loaded = f"Loaded timm's pretrained weights {config.get('architecture')}.{config.get('tag')}."
        else:
            classifier = config["classifier"]
            load_weights(
                self, weights, self.new, drop=[classifier] if isinstance(classifier, str) else list(classifier)
            )
        self.out_shape = self._find_out_shape()
        self.freeze()

    def _find_out_shape(self) -> tuple[int, ...]:
        # `num_features` can be wrong: several networks have wider layers after it. A forward pass gives the width.
        self.eval()
        size_px = self.input_size_px
        try:
            with torch.inference_mode():
                out = self(torch.zeros(1, 3, size_px, size_px))
        except (RuntimeError, AssertionError, ValueError) as error:
            raise PainseqError(f"{self.model} does not accept crops of {size_px} pixels: {error}") from error
        if out.ndim != 2:
            raise PainseqError(f"{self.model} gives {tuple(out.shape[1:])} per frame; a single vector is required.")
        return (int(out.shape[1]),)

    @property
    def network(self) -> nn.Module:
        """The timm module: weights files use its parameter names."""
        backbone: nn.Module = self.backbone
        return backbone

    def block_names(self) -> list[str]:
        """List the network's top-level modules, and the members of those that are sequences."""
        names = []
        for name, child in self.backbone.named_children():
            names.append(name)
            if isinstance(child, nn.Sequential | nn.ModuleList):
                names += [f"{name}.{inner}" for inner, _ in child.named_children()]
        return names

    def preprocessing_spec(self) -> Spec:
        """Return timm's mean and standard deviation for this network, for values in 0..1."""
        config = self.backbone.pretrained_cfg
        return {"mean": list(config["mean"]), "std": list(config["std"])}

    def input_record(self) -> Spec:
        """Return what the network is fed with, and under "timm" what timm's configuration of it states."""
        config = self.backbone.pretrained_cfg
        timm_states = {
            "size_px": int(config["input_size"][-1]),
            "interpolation": str(config["interpolation"]),
            "crop_share": float(config["crop_pct"]),
            "mean": list(config["mean"]),
            "std": list(config["std"]),
        }
        return {**super().input_record(), "timm": timm_states}

    def maps(self, x: Tensor) -> Tensor:
        """Compute the features before pooling: (N, C, h, w) for a CNN; in timm's own layout for others.

        Raises:
            PainseqError: crops of another size.
        """
        self.check_crops(x)
        maps: Tensor = self.backbone.forward_features((x.to(self.mean.dtype) - self.mean) / self.std)
        return maps

    def pool(self, maps: Tensor) -> Tensor:
        """Pool `maps` to features, (N, D)."""
        features: Tensor = self.backbone.forward_head(maps)
        return features

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, 3, S, S) crops, uint8 or float 0..255, to (N, D) features.

        Raises:
            PainseqError: crops of another size.
        """
        return self.pool(self.maps(x))


def _create(model: str, pretrained: bool, input_size_px: int) -> nn.Module:
    if not timm.is_model(model):
        close = difflib.get_close_matches(model, timm.list_models(), n=3, cutoff=0.4)
        raise PainseqError(
            f"timm {timm.__version__} has no model {model!r}. Similar names: {', '.join(close) or 'none'}. "
            "timm.list_models() lists all."
        )
    try:
        config = timm.get_pretrained_cfg(model)
        size: dict[str, Any] = {}
        if pretrained:
            announce_timm(model)
        if config is not None and config.fixed_input_size and input_size_px != config.input_size[-1]:
            size = {"img_size": input_size_px}
        network: nn.Module = timm.create_model(model, pretrained=pretrained, num_classes=0, **size)
    except (OSError, RuntimeError, AssertionError, TypeError, ValueError) as error:
        if pretrained:
            raise PainseqError(
                f"timm's pretrained weights of {model} cannot be loaded: {error}. Without internet access, set weights "
                "to the path of a .safetensors or .pth file, or omit weights to start from random ones."
            ) from error
        raise PainseqError(f"timm cannot build {model} for crops of {input_size_px} pixels: {error}.") from error
    return network
