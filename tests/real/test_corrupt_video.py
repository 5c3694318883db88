"""Real videos with damage in them: a clear error or the frames, never a crash or another kind of error."""

from pathlib import Path

import numpy as np
import pytest

from painseq.errors import PainseqError
from painseq.faces import FaceCrops, FullFrame


def damaged(video: Path, out: Path, seed: int) -> Path:
    """A copy with bytes overwritten, a stretch of zeros, a missing end, or a stretch of another file's bytes."""
    random = np.random.default_rng(seed)
    content = bytearray(video.read_bytes())
    start = int(random.integers(len(content)))
    if seed % 4 == 0:
        for place in random.integers(len(content), size=200):
            content[place] = int(random.integers(256))
    elif seed % 4 == 1:
        content[start : start + 4096] = bytes(len(content[start : start + 4096]))
    elif seed % 4 == 2:
        del content[start:]
    else:
        content[start : start + 2000] = random.bytes(len(content[start : start + 2000]))
    out.write_bytes(content)
    return out


@pytest.mark.parametrize("backend", ["pyav", "decord"])
@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("name", ["single_face.mp4", "face_noface.mov"])
def test_damage_is_an_error_or_frames(assets, tmp_path, name, seed, backend):
    video = damaged(assets / "videos" / name, tmp_path / name, seed)
    crops = FaceCrops(FullFrame(), size_px=16, backend=backend)
    try:
        chunks = list(crops.clip(video, 0.0, None, 10.0, 64))
    except (PainseqError, OSError) as error:
        assert str(video) in str(error) or isinstance(error, OSError)
        return
    times_s = np.concatenate([chunk.times_s for chunk in chunks])
    assert (np.diff(times_s) > 0).all() and all(chunk.crops.shape[1:] == (3, 16, 16) for chunk in chunks)
