"""Action units of OpenFace's tables: read, aligned by time, summed up as PSPI, and as a stream beside the CNN's."""

import csv
import json
import pickle
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open

import painseq as ps
from painseq.cli import main
from painseq.cli.fit import fit
from painseq.data.datasets import FrameWindow
from painseq.data.options import DataOptions
from painseq.data.protocols import SplitOptions
from painseq.data.streams.action_units import (
    COLUMNS,
    OPENFACE,
    ActionUnits,
    ActionUnitStream,
    read_action_units,
)
from painseq.data_modules import AI4Pain
from painseq.errors import PainseqError
from painseq.explain import frames_of_store
from painseq.extractors import TimmBackbone
from painseq.faces import FaceCrops, Sidecar
from painseq.faces.pspi import pspi
from painseq.features import ClipFeatures
from painseq.heads import FrameANN
from painseq.model.record import StreamRecord
from painseq.records import Clip
from painseq.studies.predict_part import predict_part
from painseq.synthetic.expression import AUS, draw_course, draw_temper
from painseq.training.classifier import PainClassifier

INNER = SplitOptions(protocol="official_inner")
STREAMS = ("cnn", "action_units")
UNITS = StreamRecord("action_units", {"columns": list(COLUMNS)})
HEADER = ["frame", "timestamp", "confidence", "success"]
HEADER += [column.name for column in OPENFACE]


def write_table(path: Path, units: dict[str, np.ndarray], fps: float, found: np.ndarray | None = None) -> None:
    """A table as OpenFace writes it: rows from 1, time stamps in milliseconds, blanks in the header."""
    count = len(next(iter(units.values())))
    found = np.ones(count, bool) if found is None else found
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        file.write(", ".join(HEADER) + "\n")
        for row in range(count):
            known = [f"{units[name][row]:.2f}" if name in units and found[row] else "0" for name in HEADER[4:]]
            file.write(", ".join([str(row + 1), f"{row / fps:.3f}", "0.98", str(int(found[row])), *known]) + "\n")


def estimates(au: np.ndarray) -> dict[str, np.ndarray]:
    """What OpenFace would say if it made no mistake, of (N, 10) true intensities: AU45 stands for closed eyes too."""
    true = {name: au[:, column] for column, name in enumerate(AUS)}
    units = {f"AU{int(name[2:]):02d}_r": true[name] for name in AUS if name != "AU43"}
    units["AU45_r"] = np.maximum(true["AU43"], true["AU45"])
    units["AU45_c"] = units["AU45_r"] >= 2.5
    return units


def table(count: int, fps: float, found: np.ndarray | None = None) -> ActionUnits:
    """Row n has the intensity n / 100 in every unit."""
    found = np.ones(count, bool) if found is None else found
    level = np.where(found, np.arange(count) / 100, np.nan)[:, None]
    times_s = np.round(np.arange(count) / fps, 3)
    values = np.concatenate([level.repeat(17, 1), np.where(found[:, None], 1.0, np.nan).repeat(18, 1)], axis=1)
    return ActionUnits(Path("a.csv"), "OpenFace", OPENFACE, times_s, values, 1 / fps)


def test_pspi_by_hand():
    assert pspi({4: 2, 6: 1, 7: 3, 9: 0.5, 10: 4, 43: 1}) == 2 + 3 + 4 + 1
    assert pspi({}) == 0 and pspi({43: 1}) == 1 and pspi({unit: 5 for unit in range(43)} | {43: 1}) == 16
    assert pspi({12: 5, 25: 5, 45: 1}) == 0
    many = pspi({4: np.array([0, 1, np.nan]), 6: np.array([2, 0, 0]), 9: np.array([0, 1, 1])})
    np.testing.assert_array_equal(many, [2, 2, np.nan])


@pytest.mark.parametrize("seed", range(3))
def test_pspi_of_a_table_is_the_truth_but_for_blinks(seed, tmp_path):
    rng = np.random.default_rng(seed)
    course = draw_course("electrical", 2, 10.0, 25.0, draw_temper(rng), rng)
    write_table(tmp_path / "a.csv", estimates(course.au), 25.0)
    found = read_action_units(tmp_path / "a.csv").pspi()
    blinks = (course.au[:, AUS.index("AU45")] >= 2.5) & (course.au[:, AUS.index("AU43")] < 2.5)
    np.testing.assert_allclose(found, course.pspi + blinks, atol=0.016)
    assert course.pspi.max() > 4


@settings(deadline=None, max_examples=200)
@given(
    count=st.integers(1, 80),
    fps=st.sampled_from([5.0, 12.5, 25.0, 29.97, 30.0, 60.0]),
    sample_fps=st.floats(1, 60),
    start_s=st.floats(0, 1.5),
    lost=st.sets(st.integers(0, 79)),
    absent=st.sets(st.integers(1, 78)),
)
def test_each_frame_takes_the_nearest_row_and_none_further_than_half_a_frame(
    count, fps, sample_fps, start_s, lost, absent
):
    whole = table(count, fps, np.array([row not in lost for row in range(count)]))
    kept = np.array([row not in absent for row in range(count)])
    units = replace(whole, times_s=whole.times_s[kept], values=whole.values[kept])
    moments = start_s + np.arange(20) / sample_fps
    if moments[0] > units.times_s[-1] + 1 / fps:
        with pytest.raises(PainseqError, match=r"a\.csv"):
            units.at(moments)
        return
    stream = units.at(moments).rows()
    assert stream.shape == (20, len(COLUMNS)) and stream.dtype == np.float32
    rows, millisecond = np.flatnonzero(kept), 1.1e-3
    for moment, row in zip(moments, stream, strict=True):
        distances = np.abs(units.times_s - moment)
        if row[-1] == 0:
            assert not row.any()
            near = rows[distances <= distances.min() + millisecond]
            assert {*near.tolist()} & lost or distances.min() > 0.5 / fps
        else:
            taken = int(np.rint(row[0] * 5 * 100))
            distance = distances[rows.tolist().index(taken)]
            assert distance <= distances.min() + millisecond and distance <= 0.5 / fps + millisecond
            np.testing.assert_allclose(row, [*[taken / 500] * 17, *[1] * 18, 1], rtol=1e-6)


def test_of_two_rows_equally_near_the_earlier_is_taken_as_the_videos_frame_is():
    stream = table(30, 25.0).at(np.arange(12) / 10).rows()
    assert (stream[:, 0] * 500).round().astype(int).tolist() == [0, 2, 5, 7, 10, 12, 15, 17, 20, 22, 25, 27]


def test_a_real_table(assets):
    path = assets / "au" / "OpenFace_Test.csv"
    # Its time stamps run at a millisecond a frame.
    with pytest.raises(PainseqError, match=r"OpenFace_Test\.csv.*\b100\b.*\b0\.099\b"):
        read_action_units(path)
    units = read_action_units(path, fps=30.0)
    with path.open() as file:
        rows = [{key.strip(): float(value) for key, value in row.items()} for row in csv.DictReader(file)]
    assert len(units.times_s) == len(rows) == 100 and units.times_s[-1] == pytest.approx(99 / 30)
    stream = units.rows()
    for column, name in enumerate(COLUMNS[:-1]):
        key, _, scale = name.partition(" / ")
        expected = [row[key] / float(scale or 1) for row in rows]
        np.testing.assert_allclose(stream[:, column], expected, atol=1e-6)
    assert (stream[:, -1] == 1).all() and stream.max() == 1
    expected = [r["AU04_r"] + max(r["AU06_r"], r["AU07_r"]) + max(r["AU09_r"], r["AU10_r"]) + r["AU45_c"] for r in rows]
    np.testing.assert_allclose(units.pspi(), expected)


def test_frames_without_success_or_numbers_are_not_seen(tmp_path):
    path = tmp_path / "a.csv"
    write_table(path, {"AU04_r": np.full(4, 2.5)}, 25.0, np.array([True, False, True, True]))
    lines = path.read_text().splitlines()
    lines[3] = lines[3].replace("2.50", "-nan(ind)")
    path.write_text("\n".join(lines))
    units = read_action_units(path)
    np.testing.assert_array_equal(units.pspi(), [2.5, np.nan, np.nan, 2.5])
    assert units.rows()[:, [2, -1]].tolist() == [[0.5, 1], [0, 0], [0, 0], [0.5, 1]]


@pytest.mark.parametrize(
    ("change", "pattern"),
    [
        (lambda text: text.replace(" success", " succeeded"), r"a\.csv.*'success'"),
        (lambda text: text.replace("AU", "unit"), r"a\.csv.*OpenFace.*py-feat.*LibreFace.*timestamp"),
        (lambda text: text.replace("2, 0.040", "1, 0.000"), r"a\.csv.*several faces.*\b0\.000\b"),
        (lambda text: text.replace("0.040", "0.000"), r"a\.csv.*\b0\.12\b"),
        (lambda text: text.replace("2.50", "7.00"), r"a\.csv.*AU04_r.*\b7\b.*\b5\b"),
        (lambda text: text.replace("2.50", "much"), r"a\.csv\D*\b2\b.*much"),
        (lambda text: text.partition("\n")[0] + "\n", r"a\.csv"),
    ],
)
def test_tables_that_cannot_be(tmp_path, change, pattern):
    path = tmp_path / "a.csv"
    write_table(path, {"AU04_r": np.full(4, 2.5)}, 25.0)
    path.write_text(change(path.read_text()))
    with pytest.raises(PainseqError, match=pattern):
        read_action_units(path).at(np.zeros(1))
    with pytest.raises(PainseqError, match=r"none\.csv"):
        read_action_units(tmp_path / "none.csv")


def test_tables_lie_beside_the_videos_or_in_a_folder_of_their_own(tmp_path):
    clips = (Clip("a", "s", "x/a.mp4", start_s=1.0), Clip("b", "s", "x/b", fps=4.0), Clip("c", "s", "x/c.mp4"))
    (tmp_path / "x" / "b").mkdir(parents=True)
    units = {"AU01_r": np.arange(8) / 2}
    for folder in ("", "elsewhere"):
        write_table(tmp_path / folder / "x" / "a.csv", units, 4.0)
        # Images have no clock: they are numbered at the manifest's 4 frames a second.
        write_table(tmp_path / folder / "x" / "b.csv", units, 1000.0)
        stream = ActionUnitStream(tmp_path / folder if folder else None)
        stream.check(clips[:2], tmp_path, None)
        with pytest.raises(PainseqError, match=r"\b1\b.*\b3\b.*c\.csv"):
            stream.check(clips, tmp_path, None)
        assert (stream.of(at(0.0, 0.5), clips[0], tmp_path)[:, 0] * 5).tolist() == [2, 3]
        assert (stream.of(at(0.0, 0.5), clips[1], tmp_path)[:, 0] * 5).tolist() == [0, 1]
    with pytest.raises(PainseqError, match=r"a\.csv.*\b6\.0*\D.*\b7\.0*\D"):
        stream.of(at(5.0, 6.0), clips[0], tmp_path)


def test_other_processes_get_no_tables_and_read_them_again(tmp_path):
    write_table(tmp_path / "a.csv", {"AU01_r": np.arange(8) / 2}, 4.0)
    clip, stream = Clip("a", "s", "a.mp4"), ActionUnitStream(tmp_path)
    before = pickle.dumps(stream)
    rows = stream.of(at(0.0, 0.5), clip, tmp_path)
    assert len(pickle.dumps(stream)) == len(before)
    there = pickle.loads(before)  # noqa: S301
    assert torch.equal(there.of(at(0.0, 0.5), clip, tmp_path), rows)


def at(*times_s: float) -> ClipFeatures:
    """Frames at these moments."""
    return ClipFeatures(torch.zeros(len(times_s), 1), torch.ones(len(times_s), dtype=torch.bool), torch.tensor(times_s))


# ---- on generated videos ----


@pytest.fixture(scope="module")
def tables(electrical: Path, work: Path) -> Path:
    """OpenFace's tables of the electrical data, written from the truth, every ninth frame not found."""
    truth = electrical.parent / f"{electrical.name}_truth"
    for path in truth.rglob("*.safetensors"):
        with safe_open(path, "numpy") as file:
            au, times_s = file.get_tensor("au"), file.get_tensor("times_s")
        found = np.arange(len(au)) % 9 != 4
        write_table(work / "openface" / path.relative_to(truth).with_suffix(".csv"), estimates(au), 3.0, found)
        assert times_s[1] == pytest.approx(1 / 3, abs=1e-3)
    return work / "openface"


@pytest.fixture(scope="module")
def fitted(on_electrical: list[str], store: Path, tables: Path, work: Path) -> Path:
    """The best checkpoint of a frame ANN on features and action units."""
    options = [f"--data.options.streams=[{','.join(STREAMS)}]", f"--data.options.action_units={tables}"]
    head = ["--config", "configs/head/frame_ann.yaml", "--trainer.max_epochs", "2"]
    args = [*on_electrical, *head, *options, "--data.options.store", str(store), "--out", str(work / "with_units")]
    return fit(args) / "best.ckpt"


def options_of(store: Path | None, tables: Path, **more: object) -> DataOptions:
    return DataOptions(split=INNER, store=store, streams=STREAMS, action_units=tables, **more)


def test_they_stand_behind_the_features(electrical, store, tables):
    data = AI4Pain(electrical, options_of(store, tables))
    assert data.in_shape == (96 + 36,) and data.extra_width == 36
    read = data.dataset("validation")
    clips = {clip.clip_id: clip for clip in data.manifest}
    # The second part of a no-pain recording starts ten seconds into the table.
    for sample in read:
        clip = clips[sample.clip_id]
        units = read_action_units(tables / Path(clip.video).with_suffix(".csv"))
        rows = np.arange(len(sample.features)) + round(clip.start_s * 3)
        assert torch.equal(sample.features[:, :96], data.store[clip.clip_id].features)
        assert torch.equal(sample.features[:, 96:], torch.from_numpy(units.rows()[rows]))
        assert sample.features[:, -1].tolist() == [float(row % 9 != 4) for row in rows]
    assert {clips[sample.clip_id].start_s for sample in read} > {0.0}
    alone = AI4Pain(electrical, DataOptions(split=INNER, store=store, streams=STREAMS[1:], action_units=tables))
    assert alone.in_shape == (36,)
    assert torch.equal(alone.dataset("validation")[0].features, read[0].features[:, 96:])


def test_crops_and_videos_carry_what_features_do(electrical, store, tables, on_electrical, work):
    from painseq.cli.extract import main as extract

    pixels = '{"class_path": "painseq.extractors.Pixels", "init_args": {"input_size_px": 32}}'
    extract(
        [
            *on_electrical,
            "--model.extractor",
            pixels,
            "--parts",
            "train",
            "validation",
            "--out",
            str(work / "unit_crops"),
        ]
    )
    cached = AI4Pain(electrical, options_of(store, tables))
    face = FaceCrops(Sidecar(), size_px=32)
    stored = AI4Pain(electrical, options_of(work / "unit_crops", tables, view="pixels"))
    live = AI4Pain(electrical, options_of(None, tables, view="pixels", face=face, fps=3.0))
    single = AI4Pain(electrical, options_of(work / "unit_crops", tables, view="pixels", frames=FrameWindow(0.0, 2.0)))
    assert torch.equal(single.dataset("validation")[3].extra[0], stored.dataset("validation")[0].extra[3])
    classifier = PainClassifier(head=FrameANN, extractor=TimmBackbone("test_resnet", input_size_px=32))
    classifier.bind(stored)
    assert classifier.head.in_shape == cached.in_shape and classifier.record.streams[1] == UNITS
    classifier.eval()
    a, b, c = (next(iter(data.loader("validation"))) for data in (cached, stored, live))
    assert a.clip_ids == b.clip_ids == c.clip_ids
    assert torch.equal(a.features[..., 96:], b.extra) and torch.equal(b.extra, c.extra)
    torch.testing.assert_close(classifier(a), classifier(b), atol=1e-4, rtol=1e-4)


def test_single_frames_and_baselines_have_theirs(electrical, store, tables):
    one = AI4Pain(electrical, options_of(store, tables, frames=FrameWindow(0.0, 2.0))).dataset("validation")
    whole = AI4Pain(electrical, options_of(store, tables)).dataset("validation")
    first = next(sample for sample in whole if sample.clip_id == one[3].clip_id.partition("@")[0])
    assert torch.equal(one[3].features[0], first.features[3])
    relative = AI4Pain(electrical, options_of(store, tables, normalise="baseline"))
    calm, *_ = relative._baseline()[first.subject_id]
    neutral = next(sample for sample in whole if sample.clip_id == calm.clip_id).features.mean(dim=0)
    sample = relative.dataset("validation")[0]
    plain = next(other for other in whole if other.clip_id == sample.clip_id)
    torch.testing.assert_close(sample.features, plain.features - neutral)


@pytest.mark.parametrize(
    ("options", "pattern"),
    [
        ({"streams": ("cnn",)}, r"action_units.*streams.*\['cnn'\]"),
        ({"action_units": None}, r"\b9\b.*\b9\b.*Train.*\.csv"),
        ({"streams": ("action_units",), "store": None, "view": "pixels"}, r"streams.*\['action_units'\].*\bstore\b"),
    ],
)
def test_what_is_missing_or_too_much_is_told(electrical, store, tables, options, pattern):
    given = {"split": INNER, "store": store, "streams": STREAMS, "action_units": tables, **options}
    with pytest.raises(PainseqError, match=pattern):
        AI4Pain(electrical, DataOptions(**given)).setup("fit")


def test_a_fitted_model_reads_a_video_and_its_table_as_it_read_the_store(fitted, electrical, store, tables, video):
    model = ps.load(fitted)
    assert model.streams == STREAMS and model.record.streams[1] == UNITS
    data = AI4Pain(electrical, options_of(store, tables))
    stored = predict_part(model, data, "test")
    clip = next(clip for clip in data.clips("test") if clip.video.endswith("S06_1.mp4"))
    expected = stored.probabilities[stored.clip_ids.index(clip.clip_id)].tolist()
    with pytest.raises(PainseqError, match=r"clip\.mp4.*clip\.csv"):
        model.predict(video, clip.start_s, clip.end_s)
    source = tables / "Test" / "S06" / "S06_1.csv"
    named = model.predict(video, clip.start_s, clip.end_s, action_units=source)
    assert [*named.probabilities.values()] == pytest.approx(expected, abs=1e-5)
    later = model.read(video, 4.0, 8.0, action_units=source).features[:, 96:]
    assert np.array_equal(later, read_action_units(source).rows()[12:24])
    of_store = frames_of_store(model, data.store[clip.clip_id], source, clip.start_s)
    read = model.read(video, clip.start_s, clip.end_s, action_units=source)
    torch.testing.assert_close(of_store.x, torch.from_numpy(read.features))
    video.with_suffix(".csv").write_bytes(source.read_bytes())
    beside = model.predict(video, clip.start_s, clip.end_s)
    assert beside.probabilities == named.probabilities
    other = model.predict(video, clip.start_s, clip.end_s, action_units=tables / "Test" / "S07" / "S07_2.csv")
    assert other.probabilities != named.probabilities
    with pytest.raises(PainseqError, match=r"streams.*\bcnn\b.*\baction_units\b"):
        predict_part(model, AI4Pain(electrical, DataOptions(split=INNER, store=store)), "test")


def test_the_command_predicts_and_explains_with_a_table(fitted, lstm, tables, video, tmp_path, capsys):
    source = str(tables / "Test" / "S06" / "S06_1.csv")
    args = ["predict", str(video), "--checkpoint", str(fitted), "--json", "--end-s", "5"]
    assert main(args) == 1
    error = capsys.readouterr().err
    assert "clip.csv" in error and "--action-units" in error
    assert main([*args, "--action-units", source]) == 0
    assert json.loads(capsys.readouterr().out)[0]["frames"] == 15
    another = shutil.copy(video, tmp_path / "another.mp4")
    assert main(["predict", str(another), *args[1:], "--action-units", source]) == 1
    assert re.search(r"--action-units.*\b2\b", capsys.readouterr().err)
    assert main(["predict", str(video), "--checkpoint", str(lstm), "--action-units", source]) == 1
    assert re.search(r"streams.*\bcnn\b", capsys.readouterr().err)
    video.with_suffix(".csv").write_bytes(Path(source).read_bytes())
    assert main(["explain", str(video), "--checkpoint", str(fitted), "--out", str(tmp_path / "x.png")]) == 0


def test_a_model_of_other_columns_is_refused(fitted, tmp_path):
    content = torch.load(fitted, weights_only=True)
    content["painseq"]["streams"][1]["identity"] = {"columns": [*COLUMNS[1:], COLUMNS[0]]}
    torch.save(content, tmp_path / "other.ckpt")
    with pytest.raises(PainseqError, match=f"{COLUMNS[-1]}.*{COLUMNS[0]}"):
        ps.load(tmp_path / "other.ckpt")


def as_feat(source: Path, target: Path, units: tuple[int, ...] = (4, 6, 7, 9, 12, 43)) -> None:
    """What py-feat would say: probabilities, with the frame's number."""
    read = read_action_units(source)
    target.parent.mkdir(parents=True, exist_ok=True)
    rows = [["frame", *(f"AU{unit:02d}" for unit in units)]]
    for frame, row in enumerate(np.nan_to_num(read.rows())):
        rows.append([str(frame), *(f"{value:.3f}" for value in row[: len(units)])])
    target.write_text("\n".join(",".join(row) for row in rows) + "\n")


@pytest.fixture(scope="module")
def feat_tables(tables: Path, work: Path) -> Path:
    """Tables of py-feat; one lacks a unit that the others have."""
    for number, source in enumerate(sorted(tables.rglob("*.csv"))):
        units = (4, 6, 7, 9, 12, 43) if number else (4, 6, 7, 9, 43)
        as_feat(source, work / "feat" / source.relative_to(tables), units)
    return work / "feat"


def test_tables_of_another_tool_give_the_columns_that_all_of_them_have(electrical, store, tables, feat_tables, caplog):
    data = AI4Pain(electrical, options_of(store, feat_tables))
    with caplog.at_level("INFO"):
        assert data.in_shape == (96 + 6,)
    assert "py-feat: 5 columns" in caplog.text
    identity = {"columns": ["AU04", "AU06", "AU07", "AU09", "AU43", "seen"], "tool": "py-feat"}
    assert data.streams[1].identity == identity == data.streams[1].recorded(identity).identity
    (sample, *_) = data.dataset("validation")
    clip = next(clip for clip in data.manifest if clip.clip_id == sample.clip_id)
    units = read_action_units((feat_tables / clip.video).with_suffix(".csv"), fps=3.0)
    rows = np.arange(len(sample.features)) + round(clip.start_s * 3)
    assert torch.equal(sample.features[:, 96:100], torch.from_numpy(units.rows()[rows, :4]))


def test_tables_of_two_tools_are_refused(electrical, store, tables, feat_tables, tmp_path):
    for number, source in enumerate(sorted(feat_tables.rglob("*.csv"))):
        target = tmp_path / source.relative_to(feat_tables)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(((tables if number == 3 else feat_tables) / source.relative_to(feat_tables)).read_bytes())
    with pytest.raises(PainseqError, match=r"several tools.*py-feat.*OpenFace|several tools.*OpenFace.*py-feat"):
        AI4Pain(electrical, options_of(store, tmp_path)).streams  # noqa: B018


def test_a_model_takes_tables_of_its_own_tool_and_columns_alone(fitted, electrical, store, tables, feat_tables, video):
    model, source = ps.load(fitted), tables / "Test" / "S06" / "S06_1.csv"
    with pytest.raises(PainseqError, match=r"S06_1\.csv.*py-feat.*OpenFace"):
        model.predict(video, action_units=feat_tables / source.relative_to(tables))
    with pytest.raises(PainseqError, match=r"of py-feat.*of OpenFace"):
        predict_part(model, AI4Pain(electrical, options_of(store, feat_tables)), "test")
    fewer = video.with_name("fewer.csv")
    fewer.write_text(source.read_text().replace(" AU28_c", " other"))
    with pytest.raises(PainseqError, match=r"fewer\.csv lacks AU28_c"):
        model.predict(video, action_units=fewer)


def test_more_columns_than_the_models_do_not_matter(fitted, electrical, store, tables, tmp_path):
    expected = predict_part(ps.load(fitted), AI4Pain(electrical, options_of(store, tables)), "test")
    for source in tables.rglob("*.csv"):
        target = tmp_path / source.relative_to(tables)
        target.parent.mkdir(parents=True, exist_ok=True)
        lines = source.read_text().splitlines()
        more = [lines[0] + ", AU99_r", *(line + ", 1" for line in lines[1:])]
        target.write_text("\n".join(more))
    found = predict_part(ps.load(fitted), AI4Pain(electrical, options_of(store, tmp_path)), "test")
    np.testing.assert_array_equal(found.probabilities, expected.probabilities)


@pytest.mark.parametrize(("rows", "pattern"), [(slice(0, 7), "ends at"), (slice(0, None), "goes on to")])
def test_a_table_of_another_length_is_told(fitted, tables, video, rows, pattern):
    model, source = ps.load(fitted), tables / "Test" / "S06" / "S06_1.csv"
    header, *lines = source.read_text().splitlines()
    last = lines[-1].split(", ")
    longer = [", ".join([str(int(last[0]) + n), f"{float(last[1]) + n / 3:.3f}", *last[2:]]) for n in range(1, 30)]
    other = video.with_name("other.csv")
    other.write_text("\n".join([header, *(lines + longer)[rows]]))
    with pytest.raises(PainseqError, match=rf"other\.csv {pattern}.*Give the table of this video"):
        model.predict(video, action_units=other)
