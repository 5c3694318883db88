"""The stream of facial movements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from painseq.data.streams.clip_rows import ClipRows
from painseq.data.streams.stream import VideoStream
from painseq.errors import PainseqError
from painseq.faces.mesh_nets import POINTS, FaceLandmarkerBundle
from painseq.faces.movements import MIRRORED, NAMES
from painseq.records import Clip
from painseq.spec import Spec

if TYPE_CHECKING:
    from torch import Tensor

    from painseq.features import FeatureStore, NpzFolder


class MovementStream(VideoStream):
    """52 facial-movement coefficients of each frame, computed from the 478 points of `FaceMesh`; no action units.

    The points come from the store or the face track, so that a store made with `FaceMesh` gives this stream without its
    videos.

    Args:
        model: path of the bundle face_landmarker.task; None takes the file that the store's locator names, if it is
            here, and otherwise downloads it (3.8 MB) into the cache, once.
    """

    name = "movements"
    needs_landmarks = True

    def __init__(self, model: str | None = None) -> None:
        self.model = model
        self._bundle = FaceLandmarkerBundle(model)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the movements, such as "eyeBlinkLeft"; see `painseq.faces.movements.NAMES`."""
        return NAMES

    @property
    def identity(self) -> Spec:
        """The network by its content; the locator is recorded and compared with the face crop."""
        return {"model_sha256": self._bundle.sha256()}

    def seen(self, store: FeatureStore | NpzFolder | None) -> MovementStream:
        """Return the stream with the file that the store's locator names, if it is here and none was given."""
        found = _entry(store, "init_args", "locator", "init_args", "model")
        here = self.model is None and isinstance(found, str) and Path(found).is_file()
        return MovementStream(str(found)) if here else self

    def check(self, clips: Sequence[Clip], root: Path, store: FeatureStore | NpzFolder | None) -> None:
        """Check that the store has the points of a face mesh."""
        if store is not None and store.landmarks != POINTS:
            raise _no_mesh(f"{store.path} has {store.landmarks or 'no'} landmarks per frame")
        recorded = _entry(store, "identity", "locator", "init_args", "model_sha256")
        if recorded is not None:
            self.check_recorded({"model_sha256": recorded})

    def check_recorded(self, identity: Mapping[str, object]) -> None:
        """Check that this stream uses the networks that a model or a store was made with.

        Raises:
            PainseqError: they are others.
        """
        if dict(identity) != self.identity:
            raise PainseqError(
                f"The movements come from a face_landmarker.task with sha256 {identity.get('model_sha256')}, but the "
                f"one here has {self.identity['model_sha256']}. Name the first one as the model of FaceMesh (command "
                "line: --locator face_mesh --face-mesh-model FILE) or of MovementStream."
            )

    def rows(self, frames: ClipRows, clip: Clip, root: Path) -> NDArray[np.float32]:
        """Return (T, 52) float32, 0 to 1; zero in frames without a face.

        Raises:
            PainseqError: the clip has no points of a face mesh; the network is not available.
        """
        points, present = frames.landmarks, frames.present
        if points is None or points.shape[1] != POINTS or (present.any() and not np.isfinite(points[present]).any()):
            if points is None and not present.any():
                return np.zeros((len(frames), len(NAMES)), np.float32)
            raise _no_mesh(f"clip {clip.clip_id!r} has {'none' if points is None else points.shape[1]}")
        shown = np.where(present[:, None, None], points, np.float32(np.nan))
        return np.nan_to_num(self._bundle.movements(shown), nan=0.0)

    def mirror(self, rows: Tensor) -> Tensor:
        """Exchange left and right."""
        return rows[..., list(MIRRORED)]


def _entry(store: FeatureStore | NpzFolder | None, *path: str) -> object:
    """Return an entry of a store's face crop, such as ("init_args", "locator"); None if there is none."""
    found: object = None if store is None else store.spec.get("face")
    for name in path:
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def _no_mesh(reason: str) -> PainseqError:
    return PainseqError(
        f"The stream movements needs the {POINTS} points of the locator FaceMesh, but {reason}. Extract into a new "
        "folder with FaceMesh, and set --data.options.store to it."
    )
