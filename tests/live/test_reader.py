"""A source read in a thread: the newest picture wins, nothing is lost of a file, errors arrive, the end is clean."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from painseq.errors import PainseqError
from painseq.live.reader import Reader
from painseq.video.sources import CameraSource, FileSource, IteratorSource, Picture, SignalLost, Source

IMAGE = np.zeros((4, 4, 3), np.uint8)


class Scripted(Source):
    """A live source that gives events when it is told to."""

    def __init__(self, events: list[Picture | SignalLost]) -> None:
        super().__init__("scripted")
        self.events = events
        self.all_given = threading.Event()

    @property
    def is_live(self) -> bool:
        return True

    def __iter__(self) -> Iterator[Picture | SignalLost]:
        yield from self.events
        self.all_given.set()


def picture(time_s: float) -> Picture:
    return Picture(IMAGE, time_s, time_s, time_s)


def lost(at_s: float) -> SignalLost:
    return SignalLost(at_s, "gone", 1.0)


@pytest.mark.parametrize(
    ("events", "left", "dropped"),
    [
        ([picture(0), picture(1), picture(2)], [2], 2),
        ([picture(0), picture(1), lost(2)], [1, "2"], 1),
        ([picture(0), lost(1), picture(2), picture(3)], ["1", 3], 2),
        ([picture(0), lost(1), lost(2), lost(3)], [0, "3"], 0),
        ([lost(0), picture(1), lost(2), picture(3)], ["2", 3], 1),
    ],
)
def test_the_newest_picture_waits_and_a_loss_of_signal_is_not_forgotten(events, left: list, dropped: int):
    source = Scripted(events)
    with Reader(source) as reader:
        assert source.all_given.wait(10)
        found = list(reader)
    assert [event.time_s if isinstance(event, Picture) else str(event.at_s) for event in found] == left
    assert reader.dropped == dropped and reader.read == sum(isinstance(event, Picture) for event in events)
    assert reader.losses == len(events) - reader.read


def test_a_file_that_is_not_paced_loses_nothing_and_is_not_read_ahead():
    given: list[int] = []

    def pictures():
        for number in range(20):
            given.append(number)
            yield IMAGE, number / 10

    with Reader(IteratorSource(pictures())) as reader:
        for count, event in enumerate(reader):
            assert isinstance(event, Picture) and event.time_s == pytest.approx(count / 10)
            assert len(given) <= count + 3
    assert reader.read == 20 and reader.dropped == 0


def test_an_error_of_the_source_arrives_after_its_pictures():
    def pictures():
        yield IMAGE, 0.0
        raise PainseqError("the cable burns")

    with Reader(IteratorSource(pictures())) as reader:
        events = iter(reader)
        assert isinstance(next(events), Picture)
        with pytest.raises(PainseqError, match="the cable burns"):
            next(events)
    with pytest.raises(PainseqError, match="video99"), Reader(CameraSource("/dev/video99")) as reader:
        list(reader)


def test_leaving_early_ends_the_thread(coded_video, tmp_path: Path):
    video = coded_video(tmp_path / "boards.mp4", 10, 10)
    before = threading.active_count()
    for source in (
        FileSource(video, paced=True, loop=True),
        FileSource(video, loop=True),
        CameraSource("testsrc=size=32x32:rate=25,realtime", "lavfi"),
        CameraSource("testsrc=size=32x32:rate=25:duration=0.04", "lavfi", pauses_s=(60, 60)),
    ):
        began = time.monotonic()
        with Reader(source) as reader:
            assert isinstance(next(iter(reader)), Picture)
        assert threading.active_count() == before and time.monotonic() - began < 5


def test_one_who_is_slow_gets_recent_pictures_of_a_camera():
    with Reader(CameraSource("testsrc=size=32x32:rate=50,realtime", "lavfi")) as reader:
        events = iter(reader)
        next(events)
        time.sleep(0.5)
        ages_s = []
        for _ in range(5):
            next(events)  # What waited meanwhile, or came since.
            event = next(events)
            ages_s.append(time.time() - event.received_s)
    assert min(ages_s) < 0.2 and reader.dropped >= 10
