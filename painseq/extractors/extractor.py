"""What every extractor is."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from painseq.errors import PainseqError
from painseq.spec import HASHED_NAMES, Spec, digest, spec_of

NOT_IDENTITY = ("weights", "seed", "trainable", "new")
"""Arguments that say where weights come from or how they train, not what is computed: the weights' own
digest is in the fingerprint instead."""


@contextmanager
def random_start(seed: int) -> Iterator[None]:
    """Random weights made within depend on `seed` alone, and the program's own random numbers go on as before."""
    # torch.manual_seed would also reseed the accelerators; weights are made on the CPU.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


class Extractor(nn.Module):
    """From face crops to one feature vector (or map) a frame.

    `forward` takes (N, 3, H, W) crops, RGB, uint8 or float in 0..255, and gives (N, *out_shape); it does its
    own normalisation. Float input is there for saliency: gradients always reach it.

    Frozen unless `trainable` lists blocks: no gradient to frozen weights, and frozen blocks stay in eval mode
    (batch norm keeps its statistics) whatever `train()` says. Each argument of `__init__` is kept under its name.
    """

    out_shape: tuple[int, ...]
    input_size_px: int
    trainable: Sequence[str]
    trained_on: tuple[str, ...] = ()
    """Whom the weights were fitted on, as "data set/subject": the leak check reads it. It travels with the
    weights file, and does not enter the fingerprint."""
    card: Spec | None = None
    """How `painseq fit` made the weights: data, split, crops, settings, scores, in plain values; None where they were
    not made so. It travels as `trained_on` does, and does not enter the fingerprint either."""
    loaded: str = "no weights"
    """One sentence: which weights these are and where they came from."""
    published_as: str | None = None
    """The fingerprint when all weights had just been read from a public address with its sha256."""

    @property
    def network(self) -> nn.Module:
        """The module whose parameter names weights files and block names use."""
        return self

    def block_names(self) -> list[str]:
        """Names that `trainable` and `new` may list, from input to output."""
        return [name for name, _ in self.network.named_children()]

    def in_block(self, name: str, block: str) -> bool:
        """Whether a parameter or module of `network` belongs to the block; every one belongs to "all"."""
        return block == "all" or name == block or name.startswith(f"{block}.")

    def check_blocks(self, blocks: Sequence[str]) -> None:
        """Raise a PainseqError if `blocks` names one that this network does not have."""
        known = self.block_names()
        unknown = [name for name in blocks if name not in (*known, "all")]
        if unknown:
            raise PainseqError(
                f"{type(self).__name__} has no block {unknown[0]!r}; its blocks: "
                f"{', '.join(known) or 'none'}, or 'all' for every one."
            )

    def freeze(self) -> None:
        """Freeze all but the blocks in `trainable` ("all" is every block), which are in training mode then, as in any
        new module; call at the end of `__init__`.

        Raises:
            PainseqError: `trainable` names a block that this network does not have.
        """
        self.check_blocks(self.trainable)
        for name, parameter in self.network.named_parameters():
            parameter.requires_grad_(self._is_trainable(name))
        self.train()

    def _is_trainable(self, name: str) -> bool:
        return any(self.in_block(name, block) for block in self.trainable)

    def train(self, mode: bool = True) -> Extractor:
        """Training mode for trainable blocks only; without any, the whole extractor stays in eval mode."""
        super().train(mode)
        if mode and not self.trainable:
            super().train(False)
        elif mode:
            for name, module in self.network.named_modules():
                if name and not self._is_trainable(name):
                    # Not .eval(): a container outside the blocks may hold a trainable one.
                    module.training = False
        return self

    def check_crops(self, x: Tensor) -> None:
        """Raise a PainseqError unless x is (N, 3, S, S) with S = `input_size_px`."""
        size_px = self.input_size_px
        if x.ndim != 4 or tuple(x.shape[1:]) != (3, size_px, size_px):
            raise PainseqError(
                f"{type(self).__name__} is set to crops of {size_px} x {size_px} pixels, so it takes (N, 3, "
                f"{size_px}, {size_px}); it was given {tuple(x.shape)}. The face crop's size_px and the "
                "extractor's input_size_px must be the same."
            )

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) uint8 or float 0..255 to (N, *out_shape) float."""
        raise NotImplementedError

    def spec(self) -> Spec:
        """How this extractor is built, in plain values (weights apart)."""
        return spec_of(self)

    def record(self) -> Spec:
        """What a store or a checkpoint keeps: `spec()` to build it again, `fingerprint()` to know it by."""
        return {**self.spec(), "fingerprint": self.fingerprint()}

    def preprocessing_spec(self) -> Spec:
        """What happens to the crops before the network, where the arguments of `__init__` do not tell it."""
        return {}

    def fingerprint(self) -> str:
        """Digest of architecture, weights and preprocessing: two extractors with the same one give the same
        features. Where the weights came from does not count, their values do."""
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
        """Whether the weights can be fetched again from a public address, unchanged: if not, whoever keeps
        this extractor must keep its weights too."""
        return self.published_as is not None and self.published_as == self.fingerprint()
