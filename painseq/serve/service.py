"""The models of a service, and the threads that run them."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from painseq.errors import PainseqError
from painseq.model.predictor import Predictor
from painseq.serve.models import check_models
from painseq.serve.options import ServeOptions
from painseq.serve.worker import SharedModel, Workers

T = TypeVar("T")


class Service:
    """The models of a service and the threads that run them.

    Args:
        predictors: name -> model.
        options: limits.

    Raises:
        PainseqError: a model that cannot predict what a service is sent.
    """

    def __init__(self, predictors: Mapping[str, Predictor], options: ServeOptions) -> None:
        self.options = options
        self._shared = {name: SharedModel(model, options.locator) for name, model in predictors.items()}
        self.models: dict[str, Predictor] = {**self._shared}
        check_models(self.models)
        self.folders: set[Path] = set()
        """Of the uploads that are received or predicted."""
        self.sessions = 0
        self.uploads = Workers(1, options.waiting)
        self.streams = Workers(options.threads, 2 * options.max_sessions)

    def chosen(self, names: object) -> dict[str, Predictor]:
        """Return the models of these names; all for None or an empty list.

        Raises:
            PainseqError: not a list of names of models.
        """
        if not names:
            return self.models
        if not isinstance(names, list) or not all(isinstance(name, str) and name in self.models for name in names):
            raise PainseqError("There is no model of this name. GET /models lists them.")
        return {name: self.models[name] for name in names}

    async def run(self, job: Callable[[], T]) -> T:
        """Run a job of a stream; the streams take turns."""
        return await asyncio.wrap_future(self.streams.submit(job))

    def stop(self) -> None:
        """Take no more work, end what runs, and keep no upload."""
        self.uploads.stop()
        self.streams.stop()
        for model in self._shared.values():
            model.stop()
        # The signal that stops the service may end the process before a request's own code does it.
        for folder in self.folders:
            shutil.rmtree(folder, ignore_errors=True)
