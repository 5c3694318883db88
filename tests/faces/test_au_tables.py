"""Tables of action units by OpenFace 2, py-feat and LibreFace."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from painseq.errors import PainseqError
from painseq.faces.au_tables import read_action_units

Columns = Mapping[str, Sequence[object]]


def written(path: Path, columns: Columns) -> Path:
    rows = [list(columns), *zip(*columns.values(), strict=True)]
    path.write_text("\n".join(",".join(map(str, row)) for row in rows) + "\n")
    return path


def openface(count: int = 6, fps: float = 25, **more: Sequence[object]) -> Columns:
    times = [f"{row / fps:.3f}" for row in range(count)]
    return {"frame": range(1, count + 1), " timestamp": times, " success": [1] * count, **more}


def feat(count: int = 6, **more: Sequence[object]) -> Columns:
    """As py-feat writes them: numbered rows, frames from 0, and minutes and seconds for a time."""
    return {"": range(count), "frame": range(count), "approx_time": ["00:00"] * count, **more}


def libreface(count: int = 6, fps: float = 25, **more: Sequence[object]) -> Columns:
    return {"frame_idx": range(count), "frame_time_in_ms": [row / fps for row in range(count)], **more}


LEVELS = [0, 0.1, 0.2, 0.3, 0.4, 0.5]


def test_the_columns_tell_the_tool_and_the_kind(tmp_path: Path):
    of = read_action_units(written(tmp_path / "o.csv", openface(AU04_c=[1] * 6, AU12_r=LEVELS, AU04_r=LEVELS)))
    py = read_action_units(written(tmp_path / "p.csv", feat(AU43=LEVELS, AU04=LEVELS, anger=LEVELS)), fps=25)
    libre = read_action_units(written(tmp_path / "l.csv", libreface(au_7=[1] * 6, au_4_intensity=[2] * 6)))
    assert (of.tool, py.tool, libre.tool) == ("OpenFace", "py-feat", "LibreFace")
    assert [column.scaled_name for column in of.columns] == ["AU04_r / 5", "AU12_r / 5", "AU04_c"]
    assert [column.scaled_name for column in py.columns] == ["AU04", "AU43"]
    assert [(column.scaled_name, column.kind) for column in libre.columns] == [
        ("au_4_intensity / 5", "intensity"),
        ("au_7", "presence"),
    ]
    np.testing.assert_allclose(libre.rows(), [[0.4, 1, 1]] * 6)
    for units in (of, py, libre):
        np.testing.assert_allclose(units.times_s, np.arange(6) / 25)
        assert units.interval_s == pytest.approx(1 / 25)


def test_frames_of_py_feat_get_their_times_from_the_video(tmp_path: Path):
    # Every third frame was looked at.
    table = written(tmp_path / "p.csv", {**feat(AU04=LEVELS), "frame": range(0, 18, 3)})
    frame_times_s = np.cumsum(np.full(20, 0.04)) + 1
    units = read_action_units(table, frame_times_s=frame_times_s)
    np.testing.assert_allclose(units.times_s, frame_times_s[:18:3])
    # The frames between take the nearest row.
    assert units.at(frame_times_s[:6]).values[:, 0].tolist() == [0, 0, 0.1, 0.1, 0.1, 0.2]
    with pytest.raises(PainseqError, match=r"p\.csv.*\b15\b.*\b10\b"):
        read_action_units(table, frame_times_s=frame_times_s[:10])
    with pytest.raises(PainseqError, match=r"p\.csv.*fps"):
        read_action_units(table)


@pytest.mark.parametrize("unit", [1, 1000])
def test_librefaces_milliseconds_may_be_seconds(tmp_path: Path, unit: float):
    columns = libreface(au_4_intensity=LEVELS)
    columns = {**columns, "frame_time_in_ms": [unit * time for time in columns["frame_time_in_ms"]]}  # type: ignore[operator]
    np.testing.assert_allclose(read_action_units(written(tmp_path / "l.csv", columns)).times_s, np.arange(6) / 25)


def test_frames_that_a_tool_left_out_are_not_seen(tmp_path: Path):
    columns = {
        key: [value for row, value in enumerate(cells) if row != 2] for key, cells in openface(AU04_r=LEVELS).items()
    }
    units = read_action_units(written(tmp_path / "o.csv", columns)).at(np.arange(6) / 25)
    np.testing.assert_array_equal(units.rows()[:, -1], [1, 1, 0, 1, 1, 1])
    empty = read_action_units(written(tmp_path / "p.csv", feat(AU04=[0.5, "", 0.5, "nan", 0.5, 0.5])), fps=25)
    np.testing.assert_array_equal(empty.rows()[:, -1], [1, 0, 1, 0, 1, 1])


def two_faces() -> Columns:
    """Three frames; in the second, the faces come in the other order, in the third one is alone."""
    frame, x, level = [0, 0, 1, 1, 2], [0, 100, 101, 1, 2], [0.1, 0.9, 0.8, 0.2, 0.3]
    box = {"FaceRectX": x, "FaceRectY": [0] * 5, "FaceRectWidth": [20] * 5, "FaceRectHeight": [20] * 5}
    return {"frame": frame, **box, "AU04": level}


def test_of_several_faces_that_of_the_track_is_taken(tmp_path: Path):
    units = read_action_units(written(tmp_path / "p.csv", two_faces()), fps=10)
    times_s = np.arange(3) / 10
    assert units.several_faces
    for x, expected in ((10, [0.1, 0.2, 0.3]), (110, [0.9, 0.8, 0.3])):
        chosen = units.of_face(times_s, np.tile([float(x), 10.0], (3, 1)))
        np.testing.assert_allclose(chosen.values[:, 0], expected)
    nobody = units.of_face(times_s, np.array([[10.0, 10.0], [np.nan, np.nan], [10.0, 10.0]]))
    np.testing.assert_allclose(nobody.values[:, 0], [0.1, np.nan, 0.3])
    for problem in (lambda: units.at(times_s), lambda: units.of_face(times_s, None)):
        with pytest.raises(PainseqError, match=r"p\.csv.*several faces.*landmarks"):
            problem()


def test_several_faces_of_a_table_without_places_are_refused(tmp_path: Path):
    columns = {key: cells for key, cells in two_faces().items() if not key.startswith("FaceRect")}
    units = read_action_units(written(tmp_path / "p.csv", columns), fps=10)
    with pytest.raises(PainseqError, match=r"p\.csv.*several faces.*where"):
        units.of_face(np.arange(3) / 10, np.full((3, 2), 10.0))


PAIN = {name: [1, 2, 3, 4, 5, 0] for name in ("AU04_r", "AU06_r", "AU07_r", "AU09_r", "AU10_r")}


def test_pspi_of_openface_counts_closed_eyes_by_au45(tmp_path: Path):
    units = read_action_units(written(tmp_path / "o.csv", openface(**PAIN, AU45_c=[0, 1, 0, 1, 0, 1])))
    closed = np.array([0, 1, 0, 1, 0, 1])
    np.testing.assert_array_equal(units.pspi(), 3 * np.array(PAIN["AU04_r"]) + closed)


FEAT = {f"AU{unit:02d}": LEVELS for unit in (4, 6, 7, 9, 10, 43)}
LIBRE = {
    "au_4_intensity": LEVELS,
    "au_6_intensity": LEVELS,
    "au_9_intensity": LEVELS,
    "au_7": [1] * 6,
    "au_10": [0] * 6,
}


@pytest.mark.parametrize(
    ("columns", "facts"),
    [
        (openface(**PAIN), ["no AU45"]),
        (openface(**{**PAIN, "AU45_r": LEVELS}), ["AU45 as intensity only"]),
        (
            openface(AU04_r=LEVELS, AU06_c=[1] * 6, AU45_c=[0] * 6),
            ["AU6 as presence only", "no AU7", "no AU9", "no AU10"],
        ),
        (feat(**FEAT), ["py-feat", "AU4 as probability only", "AU43 as probability only"]),
        (libreface(**LIBRE), ["LibreFace", "AU7 as presence only", "AU10 as presence only", "no AU43"]),
    ],
)
def test_pspi_from_other_columns_is_refused_and_they_are_named(tmp_path: Path, columns: Columns, facts: list[str]):
    units = read_action_units(written(tmp_path / "t.csv", columns), fps=25)
    with pytest.raises(PainseqError, match=r"t\.csv.*PSPI") as told:
        units.pspi()
    assert all(fact in str(told.value) for fact in facts)


@pytest.mark.parametrize(
    ("columns", "pattern"),
    [
        ({"frame": [1], "AU04_r": [1], "success": [1]}, r"OpenFace.*AU04_r.*'timestamp'"),
        ({"au_4_intensity": [1]}, r"LibreFace.*'frame_time_in_ms'"),
        ({"time": [1], "smile": [0]}, r"OpenFace.*py-feat.*LibreFace.*time, smile"),
        (feat(AU04=[0, 0, 0, 0, 0, 1.5]), r"AU04 .*\b1\.5\b.*py-feat.*\b1\b"),
        (feat(AU04=["much", *LEVELS[1:]]), r"line 2.*'much'"),
        ({**feat(AU04=LEVELS), "frame": [0, 1, 2, "", 4, 5]}, r"frame.*py-feat"),
        ({**libreface(au_7=[1] * 6), "frame_time_in_ms": [0, 1, 2, 1, 4, 5]}, r"plausible.*LibreFace"),
        ({**openface(AU04_r=LEVELS), "frame": [1, 2, 3, 2, 5, 6]}, r"plausible.*OpenFace"),
    ],
)
def test_tables_that_cannot_be(tmp_path: Path, columns: Columns, pattern: str):
    with pytest.raises(PainseqError, match=rf"t\.csv.*{pattern}"):
        read_action_units(written(tmp_path / "t.csv", columns), fps=10 if "" in columns else None)
