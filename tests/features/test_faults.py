"""Extractions that are killed, run out of disk, or lose a process; what they leave opens, and is completed."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from painseq.features import ExtractOptions, FeatureStore, extract

BEGIN = """
import os, random, resource, runpy, signal, sys, time
from pathlib import Path
import torch
from painseq.errors import PainseqError
from painseq.extractors import Pixels, TimmBackbone
from painseq.features import ExtractOptions, extract
from painseq.runs import Process
from painseq.records import Clip, Manifest
torch.set_num_threads(1)
conftest, root, out = sys.argv[1:4]
faces = runpy.run_path(conftest)["FakeFaces"](points=5)
names = sorted(path.name for path in Path(root).iterdir())
clips = [Clip(f"s{n % 3}/clip {n}", f"s{n % 3}", name, end_s=5.0) for n, name in enumerate(names)]
manifest = Manifest("fake", Path(root), tuple(clips))

def fill(process=None, extractor=None, on_progress=None):
    extractor = extractor or TimmBackbone("test_resnet", input_size_px=32)
    options = ExtractOptions(precision="fp32", process=process or Process())
    extract(manifest, faces, extractor, 10.0, Path(out), options, on_progress)

def child(work):
    pid = os.fork()
    if pid == 0:
        try:
            work()
        except PainseqError as error:
            print(error, flush=True)
            os._exit(1)
        os._exit(0)
    return pid

def code(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
"""


def run(script: str, manifest, out: Path) -> list[str]:
    arguments = [Path(__file__).with_name("conftest.py"), manifest.root, out]
    done = subprocess.run(
        [sys.executable, "-c", BEGIN + script, *map(str, arguments)], capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


# Its own alarm kills the process: with other work on the machine, another one might come when the store is finished.
RANDOM_KILLS = """
def killed_after(wait_s):
    def slowly(now):
        if signal.getitimer(signal.ITIMER_REAL)[0] == 0:
            signal.setitimer(signal.ITIMER_REAL, wait_s)
        time.sleep(0.002)

    fill(on_progress=slowly)

random.seed(0)
kills = 0
for _ in range(12):
    wait_s = random.uniform(0.001, 0.08)
    ended = code(child(lambda: killed_after(wait_s)))
    if ended == 0:
        break
    assert ended == -signal.SIGALRM, ended
    kills += 1
else:
    fill()
print(kills)
"""


@pytest.mark.slow
def test_killed_at_random_times(tracked, extractor, videos, tmp_path, same_features):
    manifest = videos(*[f"{1 + n % 5} 1" for n in range(120)])
    assert int(run(RANDOM_KILLS, manifest, tmp_path / "killed")[0]) >= 3
    extract(manifest, tracked, extractor, 10.0, tmp_path / "whole", options=ExtractOptions(precision="fp32"))
    same_features(tmp_path / "killed", tmp_path / "whole")
    assert not list((tmp_path / "killed" / "pending").iterdir())


ONE_OF_THREE = """
def die(now):
    if now.done == 5:
        os.kill(os.getpid(), signal.SIGKILL)

pids = [child(lambda: fill(Process(n, 3, run="launch"), on_progress=die if n == 1 else None)) for n in range(3)]
print(*[code(pid) for pid in pids])
"""


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2])
def test_a_process_that_dies_leaves_the_others_to_finish(ranks, tracked, extractor, videos, tmp_path, same_features):
    manifest = videos(*[f"{1 + n % 5} 1" for n in range(90)])
    assert run(ONE_OF_THREE, manifest, tmp_path / "s") == ["0 -9 0"]
    assert 65 <= len(FeatureStore(tmp_path / "s")) < 90
    again = f"""
pids = [child(lambda: fill(Process(n, {ranks}, run="second launch"))) for n in range({ranks})]
print(*[code(pid) for pid in pids])
"""
    assert run(again, manifest, tmp_path / "s") == [" ".join(["0"] * ranks)]
    extract(manifest, tracked, extractor, 10.0, tmp_path / "whole", options=ExtractOptions(precision="fp32"))
    same_features(tmp_path / "s", tmp_path / "whole")
    assert not list((tmp_path / "s").glob("index-*.json"))


FULL_DISK = """
def small():
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
    fill(extractor={extractor})

print(code(child(small)))
"""


@pytest.mark.parametrize(
    ("limit", "maker"),
    [
        pytest.param(30_000, "Pixels(32)", id="in the middle of a clip"),
        pytest.param(200_000, "Pixels(32)", id="when a shard is closed"),
    ],
)
def test_a_full_disk(limit, maker, tracked, videos, tmp_path, same_features):
    from painseq.extractors import Pixels

    manifest = videos(*["3 1"] * 20, "40", *["3 1"] * 50)
    lines = run(FULL_DISK.format(limit=limit, extractor=maker), manifest, tmp_path / "s")
    assert lines[-1] == "1" and str(tmp_path / "s") in lines[0] and os.strerror(errno.EFBIG) in lines[0]
    kept = len(FeatureStore(tmp_path / "s"))
    assert 10 <= kept < 71
    summary = extract(manifest, tracked, Pixels(32), 10.0, tmp_path / "s")
    assert (summary.skipped, summary.extracted) == (kept, 71 - kept)
    extract(manifest, tracked, Pixels(32), 10.0, tmp_path / "whole")
    same_features(tmp_path / "s", tmp_path / "whole")


def test_another_launch_is_refused_while_one_is_filling(tracked, videos, tmp_path):
    script = """
ready, told = os.pipe()
first = child(lambda: fill(on_progress=lambda now: os.write(told, b".") and time.sleep(0.5)))
os.read(ready, 1)
print(code(child(fill)))
os.kill(first, signal.SIGKILL)
code(first)
print(code(child(fill)))
"""
    lines = run(script, videos(*["3"] * 200), tmp_path / "s")
    assert str(tmp_path / "s") in lines[0] and lines[1:] == ["1", "0"]
