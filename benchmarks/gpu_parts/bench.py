"""What the parts of gpu.py share: the device, the time that is left, timing, and where the figures are kept."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from heads import peak_bytes

from painseq.files import write_json

Row = dict[str, str | float]


class OutOfTime(Exception):
    """The next measurement would take longer than the time that is left."""


@dataclass
class Part:
    """Figures of one part.

    Args:
        rows: a table each, by its title.
        problems: what differs from the CPU; figures beside a problem mean nothing.
        stopped: why the part is not complete; empty if it is.
    """

    rows: dict[str, list[Row]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    stopped: str = ""
    seconds: float = 0.0


@dataclass
class Bench:
    """What all parts share.

    Args:
        device: what is measured.
        small: tiny sizes, which show that everything runs.
        end: moment of `time.perf_counter` at which the run must be over.
        out: the JSON file, written anew after each row.
        work: folder for what the parts write.
        machine: machine and versions, as a sentence.
    """

    device: torch.device
    small: bool
    end: float
    out: Path
    work: Path
    machine: str
    parts: dict[str, Part] = field(default_factory=dict)
    now_in: str = ""

    @property
    def part(self) -> Part:
        return self.parts[self.now_in]

    @property
    def on_gpu(self) -> bool:
        return self.device.type == "cuda"

    @property
    def accelerator(self) -> str:
        return "gpu" if self.on_gpu else "cpu"

    def left_s(self) -> float:
        return self.end - time.perf_counter()

    def need(self, seconds: float) -> None:
        """Raise OutOfTime unless so many seconds are left; tiny sizes need next to none."""
        if self.left_s() < (1.0 if self.small else seconds):
            raise OutOfTime(f"{max(self.left_s(), 0):.0f} s were left")

    def add(self, table: str, row: Row) -> None:
        """Keep a row, and print it."""
        self.part.rows.setdefault(table, []).append(row)
        print(f"  {table}: " + ", ".join(f"{key} {shown(value)}" for key, value in row.items()), flush=True)
        self.save()

    def differs(self, what: str) -> None:
        self.part.problems.append(what)
        print(f"  DIFFERS: {what}", flush=True)
        self.save()

    def save(self) -> None:
        parts = {name: vars(part) for name, part in self.parts.items()}
        about = {"machine": self.machine, "device": str(self.device), "small": self.small}
        write_json(self.out, {**about, "parts": parts})

    def now(self) -> float:
        if self.on_gpu:
            torch.cuda.synchronize()
        return time.perf_counter()

    def rate(self, run: Callable[[], object], seconds: float = 1.0) -> float:
        """Runs a second, measured for about so many seconds after two runs to warm up."""
        run()
        start = self.now()
        run()
        once = max(self.now() - start, 1e-6)
        times = 1 if self.small else max(3, min(1000, round(seconds / once)))
        start = self.now()
        for _ in range(times):
            run()
        return times / (self.now() - start)

    def waits(self, run: Callable[[], object]) -> str:
        """Whether the host waits for the device in a run: "no", where (the error's first line), or "unknown" on a CPU.

        Run it once before, since what is done for the first time may wait.
        """
        if not self.on_gpu:
            return "unknown"
        self.now()
        try:
            with forbidden_waiting():
                run()
        except RuntimeError as error:
            return f"YES: {str(error).splitlines()[0]}"
        return "no"

    @contextmanager
    def peak(self) -> Iterator[list[float]]:
        """Most memory in use within the context, in MB: the device's, or on a CPU the process's so far."""
        found: list[float] = []
        if self.on_gpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        yield found
        found.append((torch.cuda.max_memory_allocated() if self.on_gpu else peak_bytes()) / 1e6)


@contextmanager
def forbidden_waiting() -> Iterator[None]:
    """Where the host waits for the GPU, a RuntimeError is raised."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def shown(value: str | float) -> str:
    if isinstance(value, str):
        return value
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"
