"""The common interface of all extractors."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from painseq.errors import PainseqError
from painseq.spec import HASHED_NAMES, Spec, digest, spec_of

NOT_IDENTITY = ("weights", "seed", "trainable", "new")
"""Arguments that name the source of the weights or how they are trained, not what is computed. The fingerprint uses a
digest of the weights instead."""


MAX_SIZE_PX = 4096
"""Largest side of crops; a greater one is a mistake."""


def check_input_size(name: str, input_size_px: int, least: int = 1) -> None:
    """Raise a PainseqError unless this can be the side of an extractor's crops."""
    if not least <= input_size_px <= MAX_SIZE_PX:
        raise PainseqError(f"{name}: input_size_px is {input_size_px}; it must be {least} to {MAX_SIZE_PX}.")


@contextmanager
def random_start(seed: int) -> Iterator[None]:
    """Seed random weights created in this context with `seed`, without affecting the program's random state."""
    # torch.manual_seed would also reseed the accelerators; weights are created on the CPU.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


class Extractor(nn.Module):
    """Base class of extractors, which map face crops to one feature vector (or map) per frame.

    `forward` takes (N, 3, H, W) crops, RGB, uint8 or float in 0..255, and returns (N, *out_shape); it includes the
    normalisation. Float input is for saliency: gradients always reach it.

    Blocks not listed in `trainable` are frozen: their weights get no gradient, and they stay in eval mode (batch norm
    keeps its statistics) even after `train()`. Keep each argument of `__init__` as an attribute of the same name.
    """

    out_shape: tuple[int, ...]
    input_size_px: int
    trainable: Sequence[str]
    trained_on: tuple[str, ...] = ()
    """Subjects the weights were trained on, as "data set/subject", for the leak check. Stored in the weights file; not
    part of the fingerprint."""
    people_known: bool = True
    """Whether `trained_on` names everybody; False for weights from a file or an address that does not list them. Stored
    like `trained_on`."""
    card: Spec | None = None
    """How `painseq fit` trained the weights: data, split, crops, settings, scores, in plain values; None for other
    weights. Stored like `trained_on`; not part of the fingerprint."""
    loaded: str = "no weights"
    """One sentence: which weights were loaded, and from where."""
    published_as: str | None = None
    """The fingerprint at the time when all weights had been read from a public address with sha256; otherwise None."""

    @property
    def network(self) -> nn.Module:
        """The module whose parameter names are used in weights files and block names."""
        return self

    def block_names(self) -> list[str]:
        """List the block names that `trainable` and `new` accept, from input to output."""
        return [name for name, _ in self.network.named_children()]

    def in_block(self, name: str, block: str) -> bool:
        """Whether a parameter or module of `network` belongs to the block; all belong to "all"."""
        return block == "all" or name == block or name.startswith(f"{block}.")

    def check_blocks(self, blocks: Sequence[str]) -> None:
        """Raise a PainseqError if `blocks` names an unknown block."""
        known = self.block_names()
        unknown = [name for name in blocks if name not in (*known, "all")]
        if unknown:
            raise PainseqError(
                f"{type(self).__name__} has no block {unknown[0]!r}; its blocks: "
                f"{', '.join(known) or 'none'}, or 'all' for all of them."
            )

    def freeze(self) -> None:
        """Freeze all blocks except those in `trainable` ("all" is every block), which are put into training mode.

        Call at the end of `__init__`.

        Raises:
            PainseqError: `trainable` names an unknown block.
        """
        self.check_blocks(self.trainable)
        for name, parameter in self.network.named_parameters():
            parameter.requires_grad_(self._is_trainable(name))
        self.train()

    def _is_trainable(self, name: str) -> bool:
        return any(self.in_block(name, block) for block in self.trainable)

    def train(self, mode: bool = True) -> Extractor:
        """Put trainable blocks into training mode; without any, the whole extractor stays in eval mode."""
        super().train(mode)
        if mode and not self.trainable:
            super().train(False)
        elif mode:
            for name, module in self.network.named_modules():
                if name and not self._is_trainable(name):
                    # Not .eval(): a container outside the blocks may contain a trainable one.
                    module.training = False
        return self

    def check_crops(self, x: Tensor) -> None:
        """Raise a PainseqError unless x is (N, 3, S, S) with S = `input_size_px`."""
        size_px = self.input_size_px
        if x.ndim != 4 or tuple(x.shape[1:]) != (3, size_px, size_px):
            raise PainseqError(
                f"{type(self).__name__} has input_size_px {size_px} and takes (N, 3, {size_px}, {size_px}); it got "
                f"{tuple(x.shape)}. The face crop's size_px and the extractor's input_size_px must be equal."
            )

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, 3, H, W) crops, uint8 or float 0..255, to (N, *out_shape) float features."""
        raise NotImplementedError

    def spec(self) -> Spec:
        """Describe how to build this extractor, in plain values, without its weights."""
        return spec_of(self)

    def record(self) -> Spec:
        """Return what a store or a checkpoint records: `spec()` to rebuild it, `fingerprint()` to identify it."""
        return {**self.spec(), "fingerprint": self.fingerprint()}

    def preprocessing_spec(self) -> Spec:
        """Return preprocessing settings that are not arguments of `__init__`."""
        return {}

    def input_record(self) -> Spec:
        """Return what crops the network is fed with, for a store to record; not part of the fingerprint."""
        return {
            "size_px": self.input_size_px,
            "interpolation": "bilinear",
            "resized_by": "Pillow, with antialiasing",
            **self.preprocessing_spec(),
        }

    def fingerprint(self) -> str:
        """Digest architecture, weights and preprocessing: extractors with equal fingerprints give equal features.

        It covers the values of the weights, not their source."""
        spec = self.spec()
        class_path, init_args = str(spec["class_path"]), spec["init_args"]
        assert isinstance(init_args, dict)
        identity = {key: value for key, value in init_args.items() if key not in NOT_IDENTITY}
        state = hashlib.sha256()
        for name, tensor in sorted(self.state_dict().items()):
            state.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
            state.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
        return digest(
            {
                "class": HASHED_NAMES.get(class_path, class_path),
                "args": identity,
                "preprocessing": self.preprocessing_spec(),
                "weights": state.hexdigest(),
            }
        )

    def is_published(self) -> bool:
        """Whether the weights can be downloaded again from a public address, unchanged; if not, they must be stored."""
        return self.published_as is not None and self.published_as == self.fingerprint()
