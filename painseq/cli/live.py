"""`painseq live`: predict a camera, a stream or a file as it is shown; replay its log, or write it as a table."""

from __future__ import annotations

import argparse
import logging
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from painseq.cli.arguments import add_device, add_locator, add_model, chosen_locator, chosen_predictors
from painseq.cli.printing import terminal
from painseq.errors import PainseqError

if TYPE_CHECKING:
    from painseq.data.person_scale import PersonScale
    from painseq.faces import Locator
    from painseq.live import LiveSession, Notifier, Reader
    from painseq.live.view import View, Window
    from painseq.model.predictor import Predictor

LINE_EVERY_S = 10.0
"""Without a terminal, a line is logged at each change of the state, and at most this often."""
TICK_S = 0.1
"""So often keys and the state are looked at while no picture comes."""
log = logging.getLogger("painseq")


def main(argv: Sequence[str]) -> int:
    """Run the command; `replay` and `csv` in front of a log do so."""
    if argv and argv[0] == "replay":
        return _replay(argv[1:])
    if argv and argv[0] == "csv":
        return _csv(argv[1:])
    args = _parser().parse_args(argv)
    from painseq.live import LivePredictor, LiveSession, LiveSettings, LslOutlet, NumbersRecorder, Reader, Skipping
    from painseq.live.log import LiveLog
    from painseq.live.view import View, Window
    from painseq.video.sources import open_source

    source = open_source(args.source, not args.unpaced, args.loop, args.image_fps)
    window = Window(f"painseq live {source.name}") if args.window else None
    name, model = _model(args)
    locator = chosen_locator(args)
    skipping = Skipping(args.skip, args.skip_threshold)
    settings = LiveSettings(args.window_s, args.hop_s, args.warm_up_s, args.gap_s, args.reference_s, skipping)
    live = LivePredictor(model, settings, _person(args, model, locator), locator, source.name)
    scale = None if model.scale is None else model.scale.name
    notifier = _notifier(args, model.class_names, scale, _threshold(args, model)) if args.notify else None
    with ExitStack() as parts:
        session = parts.enter_context(
            LiveSession(
                live,
                notifier,
                LiveLog(sys.stdout if args.json else args.log) if args.json or args.log else None,
                None if args.record is None else NumbersRecorder(args.record),
                None if args.lsl is None else LslOutlet(args.lsl, source.name, model.class_names),
            )
        )
        session.start(name, source.name)
        log.info("A clip is %g s for this model here (--window-s).", settings.window_s)
        reader = parts.enter_context(Reader(source))
        view = View(session, None if model.scale is None else (model.scale.low, model.scale.high))
        reason = "An error"
        try:
            reason = _run(session, reader, view, window, args)
        except PainseqError as error:
            reason = str(error)
            raise
        finally:
            # Where the log itself cannot be written, it cannot say so.
            if not isinstance(sys.exc_info()[1], OSError):
                session.end(reason, reader)
        log.info("%s. %s.", reason, view.line(reader.read, reader.dropped))
    return 0


def _run(session: LiveSession, reader: Reader, view: View, window: Window | None, args: argparse.Namespace) -> str:
    """Take events until the source ends, and return why it ended."""
    until_s = None if args.for_s is None else time.monotonic() + args.for_s
    with _ended_by_signal(), _shown(session, reader, view, quiet=args.json) as show:
        try:
            for event in reader.ticking(TICK_S):
                silent = session.stalled() if reader.source.is_live else ()
                for update in silent if event is None else session.take(event):
                    view.add(update)
                pressed = window is not None and _show_picture(view, window)
                if pressed or _enter_was_pressed():
                    view.told(session.acknowledge())
                show()
                if until_s is not None and time.monotonic() >= until_s:
                    return f"Ended after {args.for_s:g} s"
            for update in session.finish():
                view.add(update)
        except KeyboardInterrupt:
            return "Ended by Ctrl-C or a signal"
    return "The source ended"


@contextmanager
def _shown(session: LiveSession, reader: Reader, view: View, quiet: bool) -> Iterator[Callable[[], None]]:
    """Yield a function that shows the newest state: in place in a terminal, else as lines of the log."""
    console = terminal()
    if quiet or not console.is_terminal:
        said: tuple[object, ...] = ()
        said_s = -LINE_EVERY_S

        def say() -> None:
            nonlocal said, said_s
            last = session.last
            if quiet or last is None:
                return
            here = (last.reading.state, view.note)
            if here != said or time.monotonic() - said_s >= LINE_EVERY_S:
                said, said_s = here, time.monotonic()
                log.info("%s %s", view.line(reader.read, reader.dropped), view.note)

        yield say
        return
    from rich.live import Live

    with Live(console=console, refresh_per_second=8, transient=True) as screen:
        yield lambda: screen.update(view.renderable(reader.read, reader.dropped))


def _show_picture(view: View, window: Window) -> bool:
    image = view.pictured()
    return image is not None and window.show(image)


@contextmanager
def _ended_by_signal() -> Iterator[None]:
    """Let the signal by which systems stop a program end it as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _enter_was_pressed() -> bool:
    """Whether a line was entered in the terminal since the last call."""
    if sys.platform == "win32" or not sys.stdin.isatty():
        return False
    ready, _, _ = select.select([sys.stdin], [], [], 0)
    return bool(ready) and bool(sys.stdin.readline())


def _model(args: argparse.Namespace) -> tuple[str, Predictor]:
    models = chosen_predictors(args)
    if len(models) > 1:
        raise PainseqError(f"painseq live takes one model; --checkpoint names {len(models)}. Give one, or --average.")
    return next(iter(models.items()))


def _person(args: argparse.Namespace, model: Predictor, locator: Locator | None) -> PersonScale | None:
    if args.baseline is not None:
        if model.record.by_person != "baseline":
            raise PainseqError("This model was fitted without a baseline. Leave --baseline out.")
        return model.as_causal().pain_free(args.baseline, locator)
    if args.same_person:
        import numpy as np

        told = model.as_causal().with_same_person(args.same_person, locator)
        return told.person_scale(np.zeros((0, *model.in_shape), np.float32))
    return None


def _threshold(args: argparse.Namespace, model: Predictor) -> float | None:
    if args.notify_at_threshold and model.threshold is None:
        raise PainseqError("This model has no tuned threshold. Leave --notify-at-threshold out, or give --notify-on.")
    return model.threshold if args.notify_at_threshold else None


def _notifier(
    args: argparse.Namespace, class_names: Sequence[str], scale: str | None, threshold: float | None = None
) -> Notifier:
    """Return what notifies with the settings of `_add_notify`, at the model's tuned threshold if one is given."""
    from painseq.live import Notifier, NotifySettings

    on = args.notify_on if threshold is None else threshold
    chosen = NotifySettings(
        None if not args.notify_classes else tuple(args.notify_classes),
        on,
        args.notify_off,
        args.on_s,
        args.off_s,
        args.tau_s,
        args.rest_s,
        args.notify_face_share,
        latched=not args.no_latch,
    )
    return Notifier(chosen, class_names, scale)


def _replay(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        "painseq live replay", description="Count the notifications that a log would have given under other settings."
    )
    parser.add_argument("log", type=Path, help="log of `painseq live --log`")
    _add_notify(parser)
    args = parser.parse_args(argv)
    from painseq.live import read_log, replay, run_of

    run = run_of(args.log)
    found = replay(read_log(args.log), _notifier(args, run.class_names, run.scale))
    sys.stdout.write(
        f"{found.watched}: {len(found.at_s)} notifications in {found.hours:.2f} h, {found.per_hour:.1f} an hour, each "
        f"acknowledged at once; {found.predicted_share:.0%} of the readings have a prediction.\n"
    )
    return 0


def _csv(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser("painseq live csv", description="Write the readings of a log as a table.")
    parser.add_argument("log", type=Path, help="log of `painseq live --log`")
    parser.add_argument("table", type=Path, help="CSV to write")
    args = parser.parse_args(argv)
    from painseq.live import write_table

    count = write_table(args.log, args.table)
    sys.stdout.write(f"Wrote {count} readings to {args.table}.\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "painseq live",
        usage="painseq live SOURCE --checkpoint PATH [options]",
        description="Predict a camera, a stream or a file as it is shown. `painseq live replay LOG` counts the "
        "notifications of other settings, `painseq live csv LOG TABLE` writes a log as a table.",
    )
    parser.add_argument(
        "source", help="0 or /dev/video0 (camera), rtsp://... or http://..., a video, a folder of images"
    )
    add_model(parser)
    parser.add_argument(
        "--window-s",
        default=10.0,
        help="length of the clips the model was fitted on; default: 10",
        type=float,
        metavar="S",
    )
    parser.add_argument(
        "--hop-s", help="time between two predictions of heads that read clips", type=float, metavar="S"
    )
    parser.add_argument(
        "--warm-up-s", default=1.0, help="predict after this time with the face; default: 1", type=float, metavar="S"
    )
    parser.add_argument(
        "--gap-s", default=2.0, help="forget the past after such a gap; default: 2", type=float, metavar="S"
    )
    parser.add_argument(
        "--reference-s",
        default=0.0,
        help="normalise by the person's first seconds, if the model needs it",
        type=float,
        metavar="S",
    )
    parser.add_argument("--baseline", type=Path, help="video of the person without pain, if the model needs one")
    parser.add_argument(
        "--same-person", type=Path, nargs="+", default=[], metavar="VIDEO", help="videos of the person, see predict"
    )
    parser.add_argument(
        "--skip",
        choices=["face", "paper", "none"],
        default="face",
        help="skip frames in which little moves; default: face",
    )
    parser.add_argument("--skip-threshold", type=float, help="how little; default: 0.01 (face), 0.05 (paper)")
    written = parser.add_mutually_exclusive_group()
    written.add_argument("--log", type=Path, metavar="JSONL", help="write a line for each reading and notification")
    written.add_argument("--json", action="store_true", help="print the log instead of a view")
    parser.add_argument("--record", type=Path, metavar="FOLDER", help="record features and landmarks; never pictures")
    parser.add_argument("--lsl", metavar="NAME", help="send the numbers to LabStreamingLayer under this name")
    _add_source(parser)
    parser.add_argument("--notify", action="store_true", help="tell when the probability of pain stays high")
    parser.add_argument("--notify-at-threshold", action="store_true", help="notify at the model's tuned threshold")
    _add_notify(parser)
    add_device(parser)
    add_locator(parser)
    return parser


def _add_source(parser: argparse.ArgumentParser) -> None:
    """Add how a file is read, how long, and whether its picture is shown."""
    parser.add_argument("--window", action="store_true", help="show the picture in a window")
    parser.add_argument("--unpaced", action="store_true", help="read a file as fast as it can be predicted")
    parser.add_argument("--loop", action="store_true", help="begin a file again at its end")
    parser.add_argument("--image-fps", type=float, help="images per second of a folder")
    parser.add_argument("--for-s", help="end after this time", type=float, metavar="S")


def _add_notify(parser: argparse.ArgumentParser) -> None:
    """Add the settings of notifications; see `painseq.live.NotifySettings`."""
    group = parser.add_argument_group("notifications")
    group.add_argument("--notify-classes", nargs="+", metavar="CLASS", help="watch these; default: all but the first")
    group.add_argument("--notify-on", type=float, help="comes at this; default: 0.7 (probability)")
    group.add_argument("--notify-off", type=float, help="goes at this; default: 0.5 (probability)")
    group.add_argument("--on-s", default=3.0, help="for so long; default: 3", type=float, metavar="S")
    group.add_argument("--off-s", default=5.0, help="for so long; default: 5", type=float, metavar="S")
    group.add_argument("--tau-s", default=2.0, help="smoothing; default: 2", type=float, metavar="S")
    group.add_argument(
        "--rest-s", default=30.0, help="none for so long after one; default: 30", type=float, metavar="S"
    )
    group.add_argument("--notify-face-share", type=float, default=0.7, help="with a face in this share; default: 0.7")
    group.add_argument("--no-latch", action="store_true", help="goes without being acknowledged")
