"""What every stream keeps to. A new one gets a row in `STREAMS`."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from painseq.data.streams import (
    ActionUnitStream,
    CnnStream,
    LandmarkStream,
    MovementStream,
    StoreStream,
    Stream,
    as_streams,
    check_recorded,
    mirrored,
    rows_of,
)
from painseq.data.streams.action_units import COLUMNS, OPENFACE
from painseq.errors import PainseqError
from painseq.features import ClipFeatures, NpzFolder
from painseq.records import Clip

ASSETS = Path(__file__).parents[2].parent / "shared" / "assets"
CLIP = Clip("clip-7", "subject", "a/clip-7.mp4", start_s=1.0)
PRESENT = torch.tensor([True, True, False, True, True])
TIMES_S = torch.arange(5, dtype=torch.float64) / 4


def clip_features(width: int = 7) -> ClipFeatures:
    random = torch.Generator().manual_seed(0)
    landmarks = torch.where(PRESENT[:, None, None], torch.rand((5, 478, 2), generator=random) * 100, torch.nan)
    return ClipFeatures(torch.rand((5, width), generator=random).half(), PRESENT, TIMES_S, landmarks)


def write_npz(folder: Path, clip_id: str = CLIP.clip_id, stored: ClipFeatures | None = None) -> Path:
    """A folder of features of one clip, with landmarks where it has some."""
    stored = clip_features(width=3) if stored is None else stored
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {name: getattr(stored, name).numpy() for name in ("features", "present", "times_s")}
    if stored.landmarks is not None:
        arrays["landmarks"] = stored.landmarks.numpy()
    np.savez(folder / f"{clip_id}.npz", **arrays)
    (folder / "source.json").write_text('{"trained_on": ["other/p1"]}')
    return folder


def action_units(root: Path) -> Stream:
    header = ["frame", "timestamp", "success", *(column.name for column in OPENFACE)]
    rows = [[row + 1, row / 4, 1, *[row / 10] * 17, *[1] * 18] for row in range(12)]
    (root / "a").mkdir()
    (root / "a" / "clip-7.csv").write_text("\n".join(",".join(map(str, row)) for row in [header, *rows]) + "\n")
    return ActionUnitStream()


def movements(root: Path) -> Stream:
    bundle = ASSETS / "weights" / "face_mesh" / "face_landmarker.task"
    if not bundle.is_file():
        pytest.skip(f"the networks of the face mesh are not here ({bundle} is absent)")
    pytest.importorskip("cv2", exc_type=ImportError)
    return MovementStream(str(bundle))


@dataclass(frozen=True)
class Case:
    """A stream as it is given to the tests.

    Args:
        build: from the folder of the clip's video, into which it may write, to the stream.
        lacking: frames, and the clip, of which the stream has no rows; None: it has rows of all.
    """

    build: Callable[[Path], Stream]
    lacking: tuple[ClipFeatures, Clip] | None = None


OTHER = replace(CLIP, clip_id="clip-8", video="a/clip-8.mp4")
STREAMS = {
    "cnn": Case(lambda root: CnnStream()),
    "landmarks": Case(lambda root: LandmarkStream(), (replace(clip_features(), landmarks=None), OTHER)),
    "movements": Case(movements, (replace(clip_features(), landmarks=None), OTHER)),
    "action_units": Case(action_units, (clip_features(), OTHER)),
    "store": Case(lambda root: StoreStream(write_npz(root / "second")), (clip_features(), OTHER)),
}


@pytest.fixture(params=STREAMS)
def case(request: pytest.FixtureRequest) -> Case:
    return STREAMS[request.param]


@pytest.fixture
def store(tmp_path: Path) -> NpzFolder:
    """The data's own store."""
    return NpzFolder(write_npz(tmp_path / "store", stored=clip_features()))


def test_columns_rows_and_width_agree(case, tmp_path, store):
    stream = case.build(tmp_path).seen(store)
    stream.check((CLIP,), tmp_path, store)
    rows = stream.of(store[CLIP.clip_id], CLIP, tmp_path)
    assert rows.shape == (5, stream.width) and rows.dtype in (torch.float16, torch.float32)
    assert stream.width == len(stream.columns) == len(set(stream.columns))
    assert torch.isfinite(rows[PRESENT]).all() and torch.isfinite(rows).all()
    one = store.frames(CLIP.clip_id, 3, 4)
    assert torch.equal(stream.of(one, CLIP, tmp_path), rows[3:4])


def test_frames_without_a_face_change_nothing_elsewhere(case, tmp_path, store):
    stream = case.build(tmp_path).seen(store)
    stored = store[CLIP.clip_id]
    nobody = replace(stored, present=torch.zeros_like(PRESENT))
    assert stream.of(nobody, CLIP, tmp_path).shape == (5, stream.width)
    first = replace(stored, present=torch.tensor([True, False, False, False, False]))
    assert torch.equal(stream.of(first, CLIP, tmp_path)[0], stream.of(stored, CLIP, tmp_path)[0])


def test_identity_is_plain_data_and_the_same_for_a_stream_that_has_not_seen_data(case, tmp_path, store):
    stream = case.build(tmp_path)
    assert json.loads(json.dumps(stream.identity)) == stream.identity == stream.seen(store).identity
    assert stream.name == stream.seen(store).name and isinstance(stream.trained_on, tuple)


def test_mirrored_twice_is_as_before_or_it_is_refused(case, tmp_path, store):
    stream = case.build(tmp_path).seen(store)
    stored = store[CLIP.clip_id]
    if stream.name == "cnn":
        stored = replace(stored, features=torch.randint(0, 256, (5, 3, 8, 8)).to(torch.uint8))
    rows = stream.of(stored, CLIP, tmp_path)
    if not stream.can_mirror:
        with pytest.raises(PainseqError):
            stream.mirror(rows)
        return
    assert stream.mirror(rows).shape == rows.shape
    assert torch.equal(stream.mirror(stream.mirror(rows)), rows)


def test_missing_data_are_an_error_that_names_the_clip(case, tmp_path, store):
    if case.lacking is None:
        return
    stored, clip = case.lacking
    with pytest.raises(PainseqError, match=r"clip-8"):
        case.build(tmp_path).seen(store).of(stored, clip, tmp_path)


# ---- several streams ----


def test_streams_stand_in_the_order_of_the_list_and_are_mirrored_so(tmp_path, store):
    stored = store[CLIP.clip_id]
    second, table = STREAMS["store"].build(tmp_path), action_units(tmp_path)
    for asked in (["cnn", "landmarks", table], ["cnn", second, "landmarks"], [table, "landmarks"], ["landmarks"]):
        streams = [stream.seen(store) for stream in as_streams(asked)]
        expected = torch.cat([stream.of(stored, CLIP, tmp_path).float() for stream in streams], dim=1)
        rows = rows_of(streams, stored, CLIP, tmp_path)
        assert torch.equal(rows, expected) and rows.dtype == torch.float32
        if asked[0] != "cnn":
            sides = [stream.mirror(stream.of(stored, CLIP, tmp_path)) for stream in streams]
            assert torch.equal(mirrored(streams, rows), torch.cat(sides, dim=1))
    assert rows_of(as_streams(["cnn"]), stored, CLIP, tmp_path) is stored.features
    assert table.columns == COLUMNS


@pytest.mark.parametrize(
    "streams",
    [
        ("action_units", "cnn"),
        ("cnn", "au"),
        ("action_units", "action_units"),
        (),
        (StoreStream(Path("a")), StoreStream(Path("b"))),
        ("cnn", StoreStream(Path("a"), "landmarks")),
    ],
)
def test_lists_of_streams_that_cannot_be(streams):
    with pytest.raises(PainseqError):
        as_streams(streams)


# ---- a second store ----


def second(tmp_path: Path, **changes: object) -> StoreStream:
    stored = replace(clip_features(width=3), landmarks=None, **changes)
    return StoreStream(write_npz(tmp_path / "second", stored=stored))


def test_rows_of_a_second_store_are_joined_by_time_and_zero_where_it_has_no_face(tmp_path, store):
    features, seen = torch.rand(5, 3), torch.tensor([True, False, True, True, True])
    stream = second(tmp_path, features=features, present=seen, times_s=TIMES_S + 5e-7)
    stored = store[CLIP.clip_id]
    assert torch.equal(stream.of(stored, CLIP, tmp_path), torch.where(seen[:, None], features, 0.0))
    assert stream.trained_on == ("other/p1",) and stream.columns == ("store 0", "store 1", "store 2")


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"times_s": TIMES_S + 1e-3}, "other times"),
        ({"features": torch.rand(4, 3), "present": PRESENT[:4], "times_s": TIMES_S[:4]}, "4 frames, not 5"),
    ],
)
def test_other_sampling_is_one_error_that_names_the_clips(changes, named, tmp_path, store):
    stream = second(tmp_path, **changes)
    with pytest.raises(PainseqError, match=f"1 of 1 clips.*clip-7.*{named}"):
        stream.check((CLIP,), tmp_path, store)
    with pytest.raises(PainseqError, match="clip-7"):
        stream.of(store[CLIP.clip_id], CLIP, tmp_path)


def test_missing_clips_are_counted_and_the_first_are_named(tmp_path, store):
    clips = [CLIP, *(replace(CLIP, clip_id=f"missing-{number}") for number in range(9))]
    with pytest.raises(PainseqError, match=r"9 of 10 clips.*missing-0.*missing-1.*missing-2") as caught:
        second(tmp_path).check(clips, tmp_path, store)
    assert "missing-3" not in str(caught.value)


@pytest.mark.parametrize("features", [torch.zeros(5, 3, 4), torch.zeros(5, 3, dtype=torch.uint8)])
def test_a_second_store_holds_vectors(features, tmp_path):
    with pytest.raises(PainseqError, match="second"):
        second(tmp_path, features=features).columns  # noqa: B018


def test_a_model_of_some_points_reads_as_many_from_a_video(tmp_path, store):
    stream = LandmarkStream(468)
    assert stream.seen(store).width == 936 == stream.of(store[CLIP.clip_id], CLIP, tmp_path).shape[1]
    assert stream.identity == stream.seen(store).identity == {"points": 468}
    again = LandmarkStream.recorded(stream.identity)
    assert again.points == 468 and LandmarkStream.recorded({}).points is None
    check_recorded({"landmarks": {"points": 468}, "cnn": CnnStream().identity})


def test_movements_of_another_network_are_refused(tmp_path):
    with pytest.raises(PainseqError, match="0000"):
        movements(tmp_path).check_recorded({"model_sha256": "0" * 64})
