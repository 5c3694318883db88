"""The models that predict, named by their files, so that several processes can load them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from painseq.download import sha256_of
from painseq.errors import PainseqError
from painseq.model.predictor import Predictor
from painseq.runs import pick_device
from painseq.runtime import load
from painseq.runtime.folder import model_file
from painseq.spec import Spec

if TYPE_CHECKING:
    from painseq.model.pain_model import PainModel

log = logging.getLogger("painseq")


@dataclass(frozen=True)
class ModelFiles:
    """Checkpoints and exported folders.

    Args:
        paths: checkpoints, or folders that `painseq export` wrote.
        average: average the checkpoints' probabilities, as one model.
        prior: class name -> share, which probabilities are corrected for; see `PainModel.with_prior`.
        trust: other packages whose classes checkpoints may name.
        device: "auto", "cpu", "cuda", "cuda:0", ...

    Raises:
        PainseqError: no path, one path twice, a single one to average; exported folders with `average` or `prior`.
    """

    paths: tuple[Path, ...]
    average: bool = False
    prior: Mapping[str, float] | None = None
    trust: tuple[str, ...] = ()
    device: str = "auto"

    def __post_init__(self) -> None:
        paths, folders = self.paths, self.folders
        if not paths:
            raise PainseqError("No checkpoint is given. Add --checkpoint best.ckpt.")
        if len(set(paths)) < len(paths):
            raise PainseqError(f"--checkpoint names the same file twice: {', '.join(map(str, paths))}.")
        if self.average and len(paths) == 1:
            raise PainseqError(f"--average needs several checkpoints; only {paths[0]} is given. Repeat --checkpoint.")
        for flag, value in (("average", self.average), ("prior", self.prior)):
            if folders and value:
                raise PainseqError(
                    f"{flag} (command line: --{flag}) needs checkpoints, but {folders[0]} is a folder. Leave it out."
                )

    @property
    def folders(self) -> list[Path]:
        """The exported folders among the paths."""
        return [path for path in self.paths if path.is_dir()]

    def load(self, threads: int | None = None) -> dict[str, Predictor]:
        """Load the models; torch is imported for checkpoints alone.

        Args:
            threads: threads of an exported model's networks; None: as many as the machine has cores.

        Returns:
            Name -> model, in the order of the paths. The name is the path; "average" for an average.

        Raises:
            PainseqError: a file is missing, damaged or was changed; models that cannot be averaged; class shares that
                do not fit the model; a device that is not there.
        """
        folders = self.folders
        checkpoints = tuple(path for path in self.paths if path not in folders)
        models: dict[str, Predictor] = {}
        if checkpoints:
            models |= replace(self, paths=checkpoints).load_checkpoints(pick_device(self.device))
        models |= {str(path): load(path, self.device, threads) for path in folders}
        return models if self.average else {str(path): models[str(path)] for path in self.paths}

    def load_checkpoints(self, device: str) -> dict[str, PainModel]:
        """Load the models for work that needs torch; see `load`.

        Raises:
            PainseqError: one of them is an exported folder; see also `load`.
        """
        from painseq.model.averaging import load_averaged

        groups = {"average": self.paths} if self.average else {str(path): (path,) for path in self.paths}
        models = {name: load_averaged(group, self.trust, device) for name, group in groups.items()}
        if self.prior:
            models = {name: model.with_prior(self.prior) for name, model in models.items()}
            shares = ", ".join(f"{name}={share:g}" for name, share in self.prior.items())
            log.info("Probabilities are corrected for these class shares: %s.", shares)
        return models

    def settings(self) -> dict[str, Spec]:
        """Return name -> plain values that decide what the model predicts: digests of its files, and the prior.

        Raises:
            PainseqError: a folder is no exported model.
            OSError: a file is missing.
        """
        digests = {path: sha256_of(model_file(path) if path.is_dir() else path) for path in self.paths}
        prior: Spec = {} if self.prior is None else {"prior": dict(self.prior)}
        if self.average:
            return {"average": {"sha256": list(digests.values()), **prior}}
        return {str(path): {"sha256": [found], **prior} for path, found in digests.items()}
