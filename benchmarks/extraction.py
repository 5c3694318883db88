"""Extraction: does it run at the speed of the network, on any length of video, in one process or many?

    python benchmarks/extraction.py                    # all parts, about 25 minutes on two cores
    python benchmarks/extraction.py pipeline memory    # some of them
    python benchmarks/extraction.py --write            # and record their tables in benchmarks/RESULTS.md

Each part first checks that results agree, then times variants in turns, and compares ratios with the goals. The videos
are those of the test assets (`--assets`). `recipe` needs painseq[face-alignment]; without, it is skipped, and its table
stays as it is. `biovid` extrapolates from what was measured in the same call. On a GPU: `benchmarks/gpu.py`. `--quick`
shows in a minute that everything runs, with tiny networks, and writes nothing.
"""

import argparse
import re
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from extraction_parts.bench import BIOVID_CLIPS, BIOVID_FRAMES, Bench, Skipped, table
from extraction_parts.network import bf16, ceiling
from extraction_parts.road import light, pipeline, recipe, tracking
from extraction_parts.stores import memory, ranks, store
from results import RESULTS, ROOT, machine, write_between


def biovid(bench: Bench) -> str:
    """What all of BioVid would take at the rates measured."""
    names = {"fp32": "painseq, fp32", "bf16": "painseq, bf16", "published recipe": "published recipe"}
    measured = {title: bench.figures[key] for key, title in names.items() if key in bench.figures}
    if not measured:
        raise Skipped("it extrapolates from the parts pipeline, bf16 and recipe; name one of them too")
    frames = BIOVID_CLIPS * BIOVID_FRAMES
    rows = [f"| {title} | {rate:.2f} | {frames / rate / 3600:,.0f} |" for title, rate in measured.items()]
    return "\n".join(
        [
            f"An EXTRAPOLATION, not a measurement: {BIOVID_CLIPS:,} clips of {BIOVID_FRAMES} frames, VGG16, on this "
            "machine, at the rates above. Those are of videos of 640 x 360 pixels; BioVid's are larger, and take "
            "longer to decode.",
            "",
            table("| | frames/s | hours |", rows),
        ]
    )


PARTS: dict[str, Callable[[Bench], str]] = {
    part.__name__: part for part in (ceiling, pipeline, bf16, light, recipe, tracking, memory, store, ranks, biovid)
}


def goals_of(page: str) -> str:
    """The verdicts among a page's tables of extraction, as one table."""
    parts = re.findall(r"<!-- extraction_(?!goals)(\w+) -->(.*?)<!-- /extraction_\1 -->", page, re.DOTALL)
    verdicts = r"^- (.+): ([\d.]+); goal (at (?:least|most) [\d.]+): (met|MISSED)$"
    found = [each for _, text in parts for each in re.findall(verdicts, text, re.MULTILINE)]
    rows = [f"| {what} | {goal} | {value} | {met} |" for what, value, goal, met in found]
    return table("| what | goal | measured | |", rows)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="part", help=f"of {', '.join(PARTS)}; default: all")
    parser.add_argument(
        "--assets", type=Path, default=ROOT.parent / "shared" / "assets", help="real videos and weights"
    )
    parser.add_argument("--quick", action="store_true", help="tiny networks, one round, nothing written")
    parser.add_argument("--write", action="store_true", help="record the tables in benchmarks/RESULTS.md")
    args = parser.parse_args(argv)
    unknown = [name for name in args.parts if name not in PARTS]
    if unknown:
        parser.error(f"no part {unknown[0]!r}; there are: {', '.join(PARTS)}")
    if not (args.assets / "videos").is_dir():
        parser.error(f"no videos at {args.assets / 'videos'}; give the folder of the test assets: --assets FOLDER")
    with tempfile.TemporaryDirectory(prefix="extraction") as work:
        bench = Bench(args.assets, Path(work), args.quick)
        for name in args.parts or PARTS:
            start = time.perf_counter()
            print(f"== {name}: {PARTS[name].__doc__}", flush=True)
            try:
                text = PARTS[name](bench)
            except Skipped as reason:
                print(f"Skipped: {reason}.\n", flush=True)
                continue
            text = f"{machine()} {torch.get_num_threads()} threads.\n\n{text}"
            print(f"{text}\n({name}: {time.perf_counter() - start:.0f} s)\n", flush=True)
            if args.write and not args.quick:
                write_between(RESULTS, f"extraction_{name}", text)
                write_between(RESULTS, "extraction_goals", goals_of(RESULTS.read_text(encoding="utf-8")))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
