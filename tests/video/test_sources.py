"""Sources of pictures: files in real time, generated cameras, network streams that are lost and come back."""

import io
import itertools
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from painseq.errors import PainseqError
from painseq.video.sources import (
    CameraSource,
    Clock,
    FileSource,
    IteratorSource,
    Picture,
    SignalLost,
    StreamSource,
    _CaptureClock,
    open_source,
)

LAVFI = "testsrc=size=64x48:rate=25"


class Pretended(Clock):
    """A clock whose pauses take no time, but are noted."""

    def __init__(self, start_s: float = 1000.0) -> None:
        super().__init__()
        self.time_s = start_s
        self.pauses_s: list[float] = []

    def now_s(self) -> float:
        return self.time_s

    def wait(self, seconds: float) -> bool:
        if seconds > 0:
            self.pauses_s.append(seconds)
            self.time_s += seconds
        return not self.stopped


@pytest.fixture(scope="module")
def boards(coded_video: Callable[[Path, int, float], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """25 numbered frames at 10 frames a second."""
    return coded_video(tmp_path_factory.mktemp("sources") / "boards.mp4", 25, 10)


def numbers(pictures: list[Picture], number_of) -> list[int]:
    return number_of(np.stack([picture.image for picture in pictures]).transpose(0, 3, 1, 2))


def test_a_file_gives_its_frames_as_fast_as_they_are_taken(boards: Path, number_of):
    source = FileSource(boards, clock=(clock := Pretended()))
    pictures = list(source)
    assert numbers(pictures, number_of) == list(range(25)) and not source.is_live and not clock.pauses_s
    np.testing.assert_allclose([picture.time_s for picture in pictures], np.arange(25) / 10)
    assert {picture.captured_s for picture in pictures} == {1000.0}


def test_a_paced_file_gives_each_frame_at_its_time(boards: Path, number_of):
    source = FileSource(boards, paced=True, clock=(clock := Pretended()))
    pictures = list(source)
    assert source.is_live and numbers(pictures, number_of) == list(range(25))
    np.testing.assert_allclose(clock.pauses_s, 0.1)
    np.testing.assert_allclose([picture.captured_s for picture in pictures], 1000 + np.arange(25) / 10)
    np.testing.assert_allclose([picture.received_s for picture in pictures], 1000 + np.arange(25) / 10)


def test_one_who_takes_pictures_late_gets_the_times_at_which_they_were_due(boards: Path):
    source = FileSource(boards, paced=True, clock=(clock := Pretended()))
    delays = []
    for picture in itertools.islice(source, 10):
        delays.append(picture.received_s - picture.captured_s)
        clock.time_s += 0.15
    np.testing.assert_allclose(delays, 0.05 * np.arange(10), atol=1e-6)


def test_a_looped_file_goes_on_in_time_until_it_is_stopped(boards: Path, number_of):
    source = FileSource(boards, loop=True)
    pictures = []
    for picture in source:
        pictures.append(picture)
        if len(pictures) == 60:
            source.stop()
    assert numbers(pictures, number_of) == [*range(25), *range(25), *range(10)]
    np.testing.assert_allclose([picture.time_s for picture in pictures], np.arange(60) / 10, atol=1e-6)


def test_a_folder_of_images_and_a_users_iterator(tmp_path: Path):
    for number in range(3):
        Image.fromarray(np.full((4, 6, 3), 50 * number, np.uint8)).save(tmp_path / f"{number}.png")
    pictures = list(open_source(str(tmp_path), paced=False, image_fps=2))
    assert [picture.image[0, 0, 0] for picture in pictures] == [0, 50, 100]
    assert [picture.time_s for picture in pictures] == [0, 0.5, 1]
    again = list(IteratorSource(((picture.image, 7 + picture.time_s) for picture in pictures), "mine"))
    assert [picture.time_s for picture in again] == [0, 0.5, 1]


@pytest.mark.parametrize(
    ("pictures", "told"),
    [
        ([(np.zeros((4, 4), np.uint8), 0.0)], r"mine.*\(4, 4\)"),
        ([(np.zeros((4, 4, 3), np.float32), 0.0)], r"mine.*float32"),
        ([(np.zeros((4, 4, 3), np.uint8), 1.0), (np.zeros((4, 4, 3), np.uint8), 0.5)], r"mine.*0\.5.*1\.0"),
    ],
)
def test_pictures_that_are_none_are_told(pictures, told: str):
    with pytest.raises(PainseqError, match=told):
        list(IteratorSource(pictures, "mine"))


def test_the_end_of_a_camera_is_a_loss_of_signal_and_never_the_end():
    source = CameraSource(f"{LAVFI}:duration=0.2", "lavfi", pauses_s=(0.5, 2.0), clock=(clock := Pretended()))
    events = list(itertools.islice(source, 17))
    kinds = [isinstance(event, Picture) for event in events]
    assert kinds == ([True] * 5 + [False]) * 2 + [True] * 5
    assert all(event.pause_s == 0.5 and event.reason for event in events if isinstance(event, SignalLost))
    assert set(clock.pauses_s) == {0.5} and source.is_live
    times_s = [event.time_s for event in events if isinstance(event, Picture)]
    assert times_s == sorted(times_s) and events[0].image.shape == (48, 64, 3)


def test_pauses_grow_until_a_picture_comes_again(monkeypatch: pytest.MonkeyPatch):
    source = CameraSource(f"{LAVFI}:duration=0.04", "lavfi", pauses_s=(0.5, 3.0), clock=(clock := Pretended()))
    events = iter(source)
    assert isinstance(next(events), Picture)
    source.address, there = "nothing=1", source.address
    lost = list(itertools.islice(events, 5))
    source.address = there
    assert isinstance(next(events), Picture) and isinstance(next(events), SignalLost)
    assert [event.pause_s for event in lost] == [0.5, 1.0, 2.0, 3.0, 3.0]
    assert clock.pauses_s == [0.5, 1.0, 2.0, 3.0, 3.0]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("/dev/video77", r"no camera /dev/video77"),
        ("77", r"no camera /dev/video77"),
        ("lavfi:nothing=1", "nothing=1"),
        ("rtsp://me:secret@127.0.0.1:9/x", r"rtsp://127\.0\.0\.1:9/x.*refused"),
        ("nowhere.mp4", "nowhere.mp4"),
    ],
)
def test_a_source_that_never_begins_is_told_in_one_sentence(name: str, told: str):
    with pytest.raises(PainseqError, match=told) as error:
        list(open_source(name))
    assert "secret" not in str(error.value) and "\n" not in str(error.value)


def test_a_camera_with_narrow_pixels_is_shown_as_a_player_does_and_sound_alone_is_told():
    wide = next(iter(CameraSource(f"{LAVFI},setsar=2", "lavfi")))
    assert isinstance(wide, Picture) and wide.image.shape == (48, 128, 3)
    with pytest.raises(PainseqError, match="no video"):
        list(CameraSource("sine=duration=1", "lavfi"))


def test_a_busy_camera_is_told(monkeypatch: pytest.MonkeyPatch):
    import av

    def busy(*_: object, **__: object) -> None:
        raise OSError(16, "Device or resource busy")

    monkeypatch.setattr(av, "open", busy)
    with pytest.raises(PainseqError, match="another program"):
        list(CameraSource("/dev/video0"))


def test_senseless_settings_are_refused():
    with pytest.raises(PainseqError, match="pause"):
        CameraSource(pauses_s=(2, 1))
    with pytest.raises(PainseqError, match=r"movie\.mp4"):
        StreamSource("movie.mp4")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("rtsp://me:secret@camera.local/live", "rtsp://camera.local/live"),
        ("rtsp://me:se@cret@camera.local/live@2", "rtsp://camera.local/live@2"),
        ("http://camera.local/video.cgi?user=me&pwd=secret", "http://camera.local/video.cgi?..."),
        ("http://camera.local?next=http://me:secret@other", "http://camera.local?..."),
        ("rtsp://camera.local/live", "rtsp://camera.local/live"),
    ],
)
def test_passwords_of_addresses_are_not_shown(url: str, shown: str):
    source = StreamSource(url)
    assert source.name == shown and source.address == url


def test_capture_is_told_from_time_stamps_and_follows_a_drifting_clock():
    clock, rng = _CaptureClock(), np.random.default_rng(0)
    taken_s = 500 + np.arange(3000) / 25
    received_s = taken_s + 0.02 + rng.exponential(0.05, 3000)
    stamps_s = (taken_s - 500) * (1 + 1e-3) + 7
    found = np.array([clock.at(*pair) for pair in zip(received_s, stamps_s, strict=True)])
    assert (found <= received_s + 1e-9).all()
    assert np.abs(found - taken_s - 0.02)[200:].max() < 0.05
    assert clock.at(700.0, None) == 700.0
    assert clock.at(701.0, 3.0) == 701.0 and clock.at(701.1, 3.04) == pytest.approx(701.04)


class Camera:
    """A camera on the network: JPEG pictures over HTTP, which can be frozen, killed and brought back."""

    def __init__(self) -> None:
        self.port = 0
        self.frozen = threading.Event()
        self.begin()

    def begin(self) -> None:
        camera, gone = self, threading.Event()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "multipart/x-mixed-replace;boundary=frame")
                self.end_headers()
                for number in itertools.count():
                    buffer = io.BytesIO()
                    Image.fromarray(np.full((32, 32, 3), number % 250, np.uint8)).save(buffer, "JPEG")
                    head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {buffer.tell()}\r\n\r\n"
                    if gone.wait(0.02):
                        return
                    while camera.frozen.is_set() and not gone.wait(0.02):
                        pass
                    try:
                        self.wfile.write(head.encode() + buffer.getvalue() + b"\r\n")
                    except OSError:
                        return

            def log_message(self, *_: object) -> None:
                pass

        ThreadingHTTPServer.allow_reuse_address = True
        self.server, self.gone = ThreadingHTTPServer(("127.0.0.1", self.port), Handler), gone
        self.server.daemon_threads = True
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def kill(self) -> None:
        self.gone.set()
        self.server.shutdown()
        self.server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/video"


@pytest.fixture
def camera() -> Iterator[Camera]:
    made = Camera()
    yield made
    made.kill()


def next_of(events: Iterator[Picture | SignalLost], kind: type) -> Picture | SignalLost:
    return next(event for event in events if isinstance(event, kind))


def test_a_network_camera_that_is_killed_frozen_and_brought_back(camera: Camera):
    source = StreamSource(camera.url, timeout_s=(2.0, 0.4), pauses_s=(0.05, 0.2))
    events = iter(source)
    first = next_of(events, Picture)
    assert isinstance(first, Picture) and first.image.shape == (32, 32, 3) and first.time_s == 0
    camera.kill()
    lost = next_of(events, SignalLost)
    camera.begin()
    back = next_of(events, Picture)
    assert isinstance(lost, SignalLost) and isinstance(back, Picture) and back.time_s > first.time_s
    camera.frozen.set()
    began = time.monotonic()
    frozen = next_of(events, SignalLost)
    assert isinstance(frozen, SignalLost) and "time" in frozen.reason and time.monotonic() - began < 5
    camera.frozen.clear()
    again = next_of(events, Picture)
    assert isinstance(again, Picture) and again.time_s > back.time_s
    assert 0 <= again.received_s - again.captured_s < 1 and abs(again.received_s - time.time()) < 5
    source.stop()
    assert not list(events)


RTSP_SERVER = """
import sys
import gi
gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer
Gst.init(None)
server = GstRtspServer.RTSPServer()
server.set_service(sys.argv[1])
factory = GstRtspServer.RTSPMediaFactory()
factory.set_launch("( videotestsrc is-live=true ! video/x-raw,format=I420,width=64,height=48,framerate=25/1 "
                   "! jpegenc ! rtpjpegpay name=pay0 pt=26 )")
factory.set_shared(True)
server.get_mount_points().add_factory("/camera", factory)
server.attach(None)
print("ready", flush=True)
GLib.MainLoop().run()
"""


def system_python() -> str:
    """The Python of the system that has GStreamer's bindings; skips where there is none."""
    python = shutil.which("python3", path="/usr/bin:/usr/local/bin")
    check = "import gi; gi.require_version('GstRtspServer', '1.0'); from gi.repository import GstRtspServer"
    if python is None or subprocess.run([python, "-c", check], capture_output=True).returncode:
        pytest.skip("GStreamer's RTSP server is not installed (requirements/system.txt)")
    return python


class RtspCamera:
    def __init__(self) -> None:
        self.python = system_python()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.begin()

    def begin(self) -> None:
        command = [self.python, "-c", RTSP_SERVER, str(self.port)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert self.process.stdout is not None and self.process.stdout.readline() == b"ready\n"

    def send(self, number: int) -> None:
        os.kill(self.process.pid, number)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.mark.gstreamer
def test_an_rtsp_camera_that_is_killed_frozen_and_brought_back():
    import signal

    if sys.platform != "linux":
        pytest.skip("signals to stop and continue a process")
    camera = RtspCamera()
    try:
        url = f"rtsp://user:secret@127.0.0.1:{camera.port}/camera"
        source = StreamSource(url, timeout_s=(10.0, 2.0), pauses_s=(0.1, 0.5))
        assert "secret" not in source.name
        events = iter(source)
        pictures = [next_of(events, Picture) for _ in range(10)]
        times_s = [picture.time_s for picture in pictures]
        assert pictures[0].image.shape == (48, 64, 3) and times_s == sorted(times_s) and times_s[-1] < 5
        camera.kill()
        assert "secret" not in next_of(events, SignalLost).reason
        camera.begin()
        back = next_of(events, Picture)
        assert back.time_s > times_s[-1]
        camera.send(signal.SIGSTOP)
        frozen = next_of(events, SignalLost)
        camera.send(signal.SIGCONT)
        assert frozen.at_s > back.received_s and next_of(events, Picture).time_s > back.time_s
        source.stop()
        assert not list(events)
    finally:
        camera.kill()
