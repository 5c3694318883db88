"""What does a GPU compute, and how fast? One script of at most eight minutes.

    python benchmarks/gpu.py                          # everything, in order of importance, until the time is over
    python benchmarks/gpu.py --write                  # and record the tables in benchmarks/RESULTS.md
    python benchmarks/gpu.py --device cpu --small     # shows within a minute that everything runs; measures nothing

First it is checked that the device computes what the CPU computes, then it is timed. Needs no videos, no weights, and
none of jsonargparse, captum, decord, PyAV, face-alignment and pytest; the tests marked `gpu` run where pytest is
installed. painseq need not be installed. Every row is in the JSON file as soon as it is measured.
"""

import argparse
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from gpu_parts.checkout import STARTED  # isort: skip  (makes painseq importable)
import torch
from gpu_parts.agreement import agreement, tests
from gpu_parts.bench import Bench, OutOfTime, Part, Row, shown
from gpu_parts.extraction import network, pipeline
from gpu_parts.training import folds, other_heads, steps, vivit
from heads import quiet
from results import RESULTS, ROOT, machine, write_between

from painseq.errors import PainseqError

PARTS: dict[str, Callable[[Bench], None]] = {
    part.__name__: part for part in (agreement, network, steps, vivit, folds, pipeline, tests, other_heads)
}

LACKS = (RuntimeError, OSError, ImportError, ValueError, PainseqError)
"""What a machine lacks raises one of these: memory, a kernel or a driver, a file, a package, a precision."""


def measure(bench: Bench, names: Sequence[str]) -> None:
    """Each part in turn; one that fails does not stop the others."""
    for name in names:
        bench.now_in = name
        bench.parts[name] = part = Part()
        start = time.perf_counter()
        print(f"== {name}: {PARTS[name].__doc__} ({bench.left_s():.0f} s left)", flush=True)
        try:
            bench.need(5)
            PARTS[name](bench)
        except OutOfTime as reason:
            part.stopped = str(reason)
        # The machine may be lent for minutes: what one part lacks must not cost the figures of the others.
        except LACKS:
            part.stopped = traceback.format_exc()
        if part.stopped:
            print(f"  stopped: {part.stopped}", flush=True)
        part.seconds = time.perf_counter() - start
        bench.save()


def page(bench: Bench) -> str:
    """The tables, as Markdown; parts without figures are pending."""
    lines = [bench.machine]
    for name, part in bench.parts.items():
        for title, rows in part.rows.items():
            lines += ["", f"{title[0].upper()}{title[1:]}:", "", *_table(rows)]
        if part.stopped or not part.rows:
            lines += ["", f"`{name}`: {'the rest is pending' if part.rows else 'pending'}."]
    return "\n".join(lines)


def _table(rows: Sequence[Row]) -> list[str]:
    columns = list(rows[0])
    return [
        f"| {' | '.join(columns)} |",
        "|---" * len(columns) + "|",
        *(f"| {' | '.join(shown(row.get(column, '')) for column in columns)} |" for row in rows),
    ]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="part", help=f"of {', '.join(PARTS)}; default: all")
    parser.add_argument("--device", default="cuda", help="cuda, or cpu to try the script")
    parser.add_argument("--small", action="store_true", help="tiny sizes, which show that everything runs")
    parser.add_argument("--minutes", type=float, default=8.0, help="time for everything; default: 8")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "gpu.json", help="default: runs/gpu.json")
    parser.add_argument("--write", action="store_true", help="record the tables in benchmarks/RESULTS.md")
    args = parser.parse_args(argv)
    unknown = [name for name in args.parts if name not in PARTS]
    if unknown:
        parser.error(f"no part {unknown[0]!r}; there are: {', '.join(PARTS)}")
    if args.write and (args.small or args.device == "cpu" or args.parts):
        parser.error("--write records all parts, measured on a GPU in full size.")
    device = torch.device(args.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print("There is no GPU here: its figures stay pending. --device cpu --small tries the script.")
        return 1
    quiet()
    torch.manual_seed(0)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    name = torch.cuda.get_device_name() if device.type == "cuda" else "No GPU"
    with tempfile.TemporaryDirectory(prefix="gpu") as work:
        end = STARTED + 60 * args.minutes
        bench = Bench(device, args.small, end, args.out, Path(work), f"{name}. {machine()}")
        measure(bench, args.parts or list(PARTS))
    problems = [problem for part in bench.parts.values() for problem in part.problems]
    print(f"\n{page(bench)}\n\n{len(problems)} differences; {args.out}", flush=True)
    if args.write and problems:
        print("Nothing is recorded, since the device does not compute what the CPU computes.")
    elif args.write:
        write_between(RESULTS, "gpu", page(bench))
    return 1 if problems else 0


if __name__ == "__main__":
    raise SystemExit(main())
