"""A model that answers with the mean of each colour, and services of it with small limits."""

import asyncio
import io
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from painseq.faces import FaceCrops, FullFrame
from painseq.model.prediction import Answer
from painseq.model.predictor import Predictor

pytest.importorskip("fastapi", reason="needs the extra serve")

TOKEN = "token-of-the-tests-1234"


class Colours(Predictor):
    """The more green a picture is, the more likely is low pain; blue is high pain."""

    level = "video"
    engines: ClassVar = {"device": "cpu", "engine": "numpy"}
    steps = True
    delay_s = 0.0

    def features(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        time.sleep(self.delay_s)
        return (crops.mean(axis=(2, 3)) / 255).astype(np.float32)

    def answer(self, rows, mask):
        sums = (rows * mask[..., None]).sum(axis=1)
        return self._answer(sums / np.maximum(mask.sum(axis=1), 1)[:, None], mask.any(axis=1))

    def first_state(self, batch=1):
        return {"sum": np.zeros((batch, 3), np.float32), "count": np.zeros((batch, 1), np.float32)}

    def step(self, rows, state):
        state = {"sum": state["sum"] + rows, "count": state["count"] + 1}
        return self._answer(state["sum"] / state["count"], np.ones(len(rows), bool)), state

    def _answer(self, means, known):
        shares = np.exp(8 * means) / np.exp(8 * means).sum(axis=1, keepdims=True)
        return Answer(np.where(known, shares.argmax(axis=1), -1), shares.astype(np.float32))


@pytest.fixture(scope="session")
def colours(make_record) -> Callable[[], Colours]:
    """Makes the model."""

    def make(**fields) -> Colours:
        record = make_record(**{"in_shape": (3,), "fitted_on": ("biovid/S1", "biovid/S2"), **fields})
        return Colours(record, FaceCrops(FullFrame(), size_px=16, margin=0))

    return make


@pytest.fixture(scope="session")
def picture() -> Callable[..., bytes]:
    """A picture of one colour, as a file."""

    def make(colour=(30, 30, 200), size=(48, 32), kind="JPEG") -> bytes:
        held = io.BytesIO()
        Image.new("RGB", size, colour).save(held, kind)
        return held.getvalue()

    return make


@pytest.fixture(scope="session")
def clip(tmp_path_factory) -> bytes:
    """A video of 2 s, first red, then blue."""
    from painseq.video import write_video

    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    frames = np.zeros((20, 32, 48, 3), np.uint8)
    frames[:10, ..., 0] = frames[10:, ..., 2] = 220
    write_video(path, frames, 10)
    return path.read_bytes()


@pytest.fixture(scope="session")
def options():
    """Makes options with the tests' token."""
    from painseq.serve import ServeOptions

    def make(**limits):
        return ServeOptions(**{"token": TOKEN, "burst": 1000, **limits})

    return make


@pytest.fixture(scope="session")
def run_server() -> Callable[..., object]:
    """Runs an application on a free port, in a thread; gives the port."""
    import socket

    from painseq.serve.server import server_of

    @contextmanager
    def run(application, options, port: int = 0) -> Iterator[int]:
        listening = socket.create_server(("127.0.0.1", port))
        server = server_of(application, options)
        thread = threading.Thread(target=lambda: asyncio.run(server.serve([listening])), daemon=True)
        thread.start()
        until = time.monotonic() + 30
        while not server.started and time.monotonic() < until:
            time.sleep(0.01)
        try:
            yield listening.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join(30)
            listening.close()

    return run


@pytest.fixture(autouse=True)
def nothing_is_left(tmp_path_factory, monkeypatch) -> Iterator[Path]:
    """Every test has a temporary folder of its own, in which nothing may be left."""
    import tempfile

    folder = tmp_path_factory.mktemp("temporary")
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    until = time.monotonic() + 10
    while any(folder.glob("painseq-*")) and time.monotonic() < until:
        time.sleep(0.05)
    assert not list(folder.glob("painseq-*"))
