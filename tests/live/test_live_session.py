"""A live run: log, table, recorded numbers, outlet, and what is shown."""

import io
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console

from painseq.errors import PainseqError
from painseq.live import (
    STATES,
    LiveLog,
    LivePredictor,
    LiveSession,
    LiveSettings,
    LslOutlet,
    Notifier,
    NotifySettings,
    NumbersRecorder,
    Reader,
    Reading,
    Run,
    Skipping,
    log_lines,
    read_log,
    run_of,
    write_table,
)
from painseq.live.view import View, Window
from painseq.video.sources import Clock, FileSource, Picture, SignalLost

RUN = Run("best.ckpt", "camera 1", ("none", "low", "high"), None, {"notify": None})
SOON = LiveSettings(warm_up_s=0.2, window_s=5)


class Still(Clock):
    """A clock that stands where it is set."""

    def __init__(self, at_s: float) -> None:
        super().__init__()
        self.at_s = at_s

    def now_s(self) -> float:
        return self.at_s


@pytest.fixture
def events(picture):
    """Two seconds of pictures, 10 a second, captured since 1000 s, received 20 ms later; then a lost signal."""
    pictures = [Picture(picture(20 + i % 2), i / 10, 1000 + i / 10, 1000.02 + i / 10) for i in range(20)]
    return [*pictures, SignalLost(1003.0, "it ended", 0.5)]


def run(session, events):
    updates = []
    for event in events:
        session._clock.at_s = event.received_s + 0.03 if isinstance(event, Picture) else event.at_s
        updates += session.take(event)
    return [*updates, *session.finish()]


def test_a_run_is_logged_with_capture_times_lag_and_states(make_model, events, tmp_path):
    path = tmp_path / "live.jsonl"
    notifier = Notifier(NotifySettings(on=0.0, off=0.0, on_s=0.5), ("none", "low", "high"))
    live = LivePredictor(make_model("lstm"), SOON)
    with LiveSession(live, notifier, LiveLog(path), clock=Still(0)) as session:
        session.start("best.ckpt", "camera 1")
        updates = run(session, events)
        session.acknowledge()
        session.end("The source ended", Reader(FileSource("video.mp4")))
    lines = [*log_lines(path)]
    assert [line["line"] for line in lines if line["line"] != "reading"] == [
        "start",
        "notification",
        "notification",
        "end",
    ]
    assert [line["event"] for line in lines if line["line"] == "notification"] == ["on", "acknowledged"]
    first, *_, last = [line for line in lines if line["line"] == "reading"]
    assert first["at_s"] == 1000 and first["received_at_s"] == pytest.approx(1000.02) and "received_at_s" not in last
    assert first["lag_s"] == pytest.approx(0.05) and first["state"] == "warming_up"
    assert (last["state"], last["reason"], last["at_s"], last["label"]) == ("signal_lost", "it ended", 1003.0, None)
    assert last["time_s"] == pytest.approx(3.0)
    readings = [*read_log(path)]
    assert [reading.state for reading in readings] == [update.reading.state for update in updates]
    assert readings[10].probabilities == pytest.approx(updates[10].reading.probabilities, abs=1e-6)
    told = run_of(path)
    assert (told.model, told.source, told.class_names, told.scale) == ("best.ckpt", "camera 1", RUN.class_names, None)
    assert told.settings["live"]["window_s"] == 5 and told.settings["notify"]["on_s"] == 0.5
    assert (lines[-1]["reason"], lines[-1]["samples"], lines[-1]["read"]) == ("The source ended", 20, 0)


def test_a_silent_source_is_a_lost_signal_before_it_says_so(make_model, events):
    session = LiveSession(LivePredictor(make_model("lstm"), SOON), clock=Still(0))
    run(session, events[:-1])
    for at_s, states in ((1003.0, []), (1004.5, ["signal_lost"]), (1008.0, [])):
        session._clock.at_s = at_s
        assert [update.reading.state for update in session.stalled()] == states
    assert session.last.reason is not None and session.last.picture is None


def test_a_log_is_continued_after_a_line_that_was_not_finished(tmp_path):
    path = tmp_path / "live.jsonl"
    with LiveLog(path) as log:
        log.start(RUN)
        log.reading(Reading(0.5, "ok", "low", {"low": 1.0}), 5.0)
    with path.open("ab") as file:
        file.write(b'{"line": "reading", "at_s": 5.')
    with LiveLog(path) as log:
        log.start(RUN)
        log.reading(Reading(0.7, "no_face", value=float("nan")), 7.0)
    assert [line["line"] for line in log_lines(path)] == ["start", "reading", "start", "reading"]
    assert [reading.time_s for reading in read_log(path)] == [0.5, 0.7]


def test_a_log_is_not_written_into_another_file_and_holds_models_of_the_same_classes(tmp_path):
    notes = tmp_path / "notes.txt"
    notes.write_bytes(b"my notes")
    with pytest.raises(PainseqError, match=r"notes\.txt"):
        LiveLog(notes)
    assert notes.read_bytes() == b"my notes"
    path = tmp_path / "live.jsonl"
    with LiveLog(path) as log:
        log.start(RUN)
    before = path.read_bytes()
    for other in (replace(RUN, class_names=("none", "pain")), replace(RUN, class_names=(), scale="pspi")):
        with LiveLog(path) as log, pytest.raises(PainseqError, match=r"live\.jsonl"):
            log.start(other)
    assert path.read_bytes() == before
    with LiveLog(path) as log:
        log.start(replace(RUN, model="retrained.ckpt"))
    assert len([*log_lines(path)]) == 2


def test_one_key_acknowledges_a_notification_first_and_then_confirms_the_person(make_model, events):
    live = LivePredictor(make_model("lstm"), SOON)
    confirmed = []
    live.confirm_person = lambda: confirmed.append(True)
    session = LiveSession(live, Notifier(NotifySettings(on=0.0, off=0.0, on_s=0, tau_s=0), live.model.class_names))
    for event in events[:10]:
        [*session.take(event)]
    assert [event.kind for event in session.acknowledge()] == ["acknowledged"] and not confirmed
    assert session.acknowledge() == () and confirmed == [True]


def test_a_log_outlives_a_killed_process(tmp_path):
    path = tmp_path / "live.jsonl"
    code = (
        "import sys, pathlib\n"
        "from painseq.live import LiveLog, Reading, Run\n"
        "log = LiveLog(pathlib.Path(sys.argv[1]))\n"
        "log.start(Run('m', 's', (), 'pspi', {}))\n"
        "for i in range(10**9):\n"
        "    log.reading(Reading(i / 10, 'ok', value=1.0), float(i))\n"
        "    i == 200 and print(flush=True)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE)
    process.stdout.readline()
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    readings = [*read_log(path)]
    assert len(readings) > 200
    assert [reading.time_s for reading in readings] == pytest.approx(np.arange(len(readings)) / 10)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
def test_a_full_disk_names_the_log(tmp_path):
    path = tmp_path / "live.jsonl"
    path.symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"live\.jsonl"), LiveLog(path) as log:
        log.start(RUN)


@pytest.mark.parametrize("content", [b"", b"time_s,label\n", b'{"line": "start", "format": 99}\n', b"[]\n"])
def test_other_files_are_no_logs(tmp_path, content):
    path = tmp_path / "other.jsonl"
    path.write_bytes(content)
    with pytest.raises(PainseqError, match=r"other\.jsonl"):
        run_of(path)


def test_a_log_as_a_table(make_model, events, tmp_path):
    log, table = tmp_path / "live.jsonl", tmp_path / "live.csv"
    with LiveSession(LivePredictor(make_model("lstm"), SOON), log=LiveLog(log), clock=Still(0)) as session:
        session.log.start(RUN)
        run(session, events)
    assert write_table(log, table) == 21
    header, *rows = [row.split(",") for row in table.read_text().splitlines()]
    assert header[:8] == ["at_s", "time_s", "state", "label", "none", "low", "high", "value"]
    assert {len(row) for row in rows} == {len(header)}
    ok = rows[15]
    assert ok[2] == "ok" and sum(map(float, ok[4:7])) == pytest.approx(1, abs=1e-5) and ok[7] == ""
    assert rows[-1][2:5] == ["signal_lost", "", ""]


def test_numbers_are_recorded_and_pictures_are_not(make_model, events, tmp_path):
    folder = tmp_path / "numbers"
    live = LivePredictor(make_model("lstm", None, True), SOON)
    with LiveSession(live, recorder=NumbersRecorder(folder, every_s=1.0), clock=Still(0)) as session:
        run(session, events)
    parts = [np.load(path) for path in sorted(folder.iterdir())]
    assert len(parts) == 2 and sorted(parts[0]) == ["box", "landmarks", "rows", "state", "time_s"]
    assert sum(len(part["time_s"]) for part in parts) == 21
    assert parts[0]["rows"].shape[1:] == live.model.in_shape and parts[0]["landmarks"].shape[1:] == (68, 2)
    assert np.isnan(parts[1]["rows"][-1]).all() and STATES[parts[1]["state"][-1]] == "signal_lost"
    with pytest.raises(PainseqError, match="numbers"):
        NumbersRecorder(folder)


def test_an_outlet_sends_capture_times(make_model, events, monkeypatch):
    sent, described = [], []
    node = SimpleNamespace(
        append_child=lambda name: node, append_child_value=lambda key, value: described.append(value)
    )
    stub = SimpleNamespace(
        IRREGULAR_RATE=0.0,
        StreamInfo=lambda *args: SimpleNamespace(args=args, desc=lambda: node),
        StreamOutlet=lambda info: SimpleNamespace(push_sample=lambda numbers, at_s: sent.append((numbers, at_s))),
        local_clock=lambda: 50.0,
    )
    monkeypatch.setitem(sys.modules, "pylsl", stub)
    monkeypatch.setattr("time.time", lambda: 99.0)  # The clock of the system was set meanwhile.
    outlet = LslOutlet("pain", "camera 1", ("none", "low", "high"))
    with LiveSession(LivePredictor(make_model("lstm"), SOON), outlet=outlet, clock=Still(0)) as session:
        updates = run(session, events)
    assert described == ["none", "low", "high", "state", "notification"]
    assert [at_s for _, at_s in sent] == pytest.approx([50 - (update.reading.lag_s or 0) for update in updates])
    assert np.isnan(sent[0][0][:3]).all() and STATES[int(sent[0][0][3])] == "warming_up"
    assert sent[10][0][:3] == pytest.approx([*updates[10].reading.probabilities.values()])
    monkeypatch.setitem(sys.modules, "pylsl", None)
    with pytest.raises(PainseqError, match="pylsl"):
        LslOutlet("pain", "camera 1", ())


def test_what_is_shown(make_model, events, picture, monkeypatch):
    pytest.importorskip("cv2", exc_type=ImportError)
    notifier = Notifier(NotifySettings(on=0.0, off=0.0, on_s=0.5), ("none", "low", "high"))
    with LiveSession(LivePredictor(make_model("lstm"), SOON), notifier, clock=Still(0)) as session:
        view = View(session)
        assert "waiting" in view.line(0, 0)
        for update in run(session, events[:-1]):
            view.add(update)
    line = view.line(24, 4)
    assert session.last.reading.label in line and " 50 ms" in line and "10.0 frames" in line and "4 dropped" in line
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(view.renderable(24, 4))
    shown = console.export_text()
    assert all(name in shown for name in ("none", "low", "high", "NOTIFICATION", notifier.watched))
    plain = picture(20)
    assert (view.drawn(plain) != plain).any() and (plain == picture(20)).all()
    # A window goes on while there is no signal: dark, and with another state than before.
    before = view.pictured()
    for update in session.take(events[-1]):
        view.add(update)
    lost = view.pictured()
    assert lost.shape == before.shape and lost.mean() < 0.6 * before.mean()
    assert (lost == view.drawn(events[-2].image // 4)).all()
    assert View(session).pictured() is None
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    if sys.platform == "linux":
        with pytest.raises(PainseqError, match="--window"):
            Window("live")


def test_a_paced_and_an_unpaced_file_say_the_same(make_model, creeping):
    class Quick(Clock):
        """Waits by setting the clock forward."""

        passed_s = 0.0

        def now_s(self) -> float:
            return 500.0 + self.passed_s

        def wait(self, seconds: float) -> bool:
            self.passed_s += max(0.0, seconds)
            return True

    said = []
    for paced in (True, False):
        clock = Quick()
        session = LiveSession(LivePredictor(make_model("lstm", 10), SOON), clock=clock)
        updates = [update for event in FileSource(creeping, paced, clock=clock) for update in session.take(event)]
        said.append([update.reading.probabilities for update in [*updates, *session.finish()]])
        assert clock.passed_s == pytest.approx(59 / 30 if paced else 0)
    assert said[0] == said[1] and any(said[0])


def test_two_people_one_after_the_other(make_model, assets):
    """Two real videos joined: the second person's face is told, and never read as the first one's."""
    pytest.importorskip("cv2", exc_type=ImportError)
    from painseq.faces import YuNet

    yunet = YuNet(str(assets / "weights" / "detectors" / "face_detection_yunet_2023mar.onnx"))
    live = LivePredictor(make_model("lstm", 5), LiveSettings(warm_up_s=0.6, window_s=5), locator=yunet)
    states = []
    for number, name in enumerate(("single_face.mp4", "WolfgangLanger_Pexels.mp4")):
        for picture in FileSource(assets / "videos" / name):
            if picture.time_s >= 2:
                break
            states += [(number, reading.state) for reading in live.push(picture.image, 2 * number + picture.time_s)]
    first, second = ([state for who, state in states if who == number] for number in (0, 1))
    assert "other_face" not in first and first[-1] == "ok"
    told = [state for state in second if state != "ok"]
    assert "other_face" in told and second[-1] == "ok"
    assert second.index("other_face") == next(i for i, state in enumerate(second) if state not in ("ok", "no_face"))


def test_the_movements_of_a_mesh_are_told(make_record, assets):
    pytest.importorskip("cv2", exc_type=ImportError)
    from painseq.faces import FaceCrops, FaceMesh
    from painseq.faces.movements import NAMES
    from painseq.heads import LSTM
    from painseq.model.pain_model import PainModel
    from painseq.model.record import StreamRecord

    weights = assets / "weights"
    yunet = str(weights / "detectors" / "face_detection_yunet_2023mar.onnx")
    mesh = FaceMesh(str(weights / "face_mesh" / "face_landmarker.task"), yunet)
    stream = StreamRecord("movements", {"model_sha256": mesh.bundle.sha256()})
    record = make_record(fps=5.0, in_shape=(52,), streams=(stream,))
    model = PainModel(record, LSTM((52,), 3).eval(), None, FaceCrops(mesh))
    live = LivePredictor(model, LiveSettings(warm_up_s=0, skipping=Skipping("none")))
    video = assets / "videos" / "single_face.mp4"
    readings = [reading for picture in FileSource(video) for reading in live.push(picture.image, picture.time_s)]
    rows = model.as_causal().read(video)
    for reading, row in zip(readings, rows.features, strict=False):
        assert [*reading.movements] == list(NAMES)
        np.testing.assert_allclose([*reading.movements.values()], row, atol=1e-5)


def test_readings_are_plain_data():
    reading = Reading(1.23456789, "ok", "low", {"low": 1 / 3}, box=(1.0, 2.0, 3.0, 4.0), seconds={"face": 0.1})
    again = Reading.from_dict(json.loads(json.dumps(reading.to_dict())))
    assert again.probabilities == {"low": 0.333333} and again.time_s == 1.234568
    with pytest.raises(PainseqError, match="pain"):
        Reading.from_dict({"state": "pain", "time_s": 1})
