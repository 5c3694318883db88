"""What the processor can multiply and add at most: what a network's speed is measured against."""

import ctypes
import shutil
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from painseq.features.network import has_bf16

# Independent sums, so that each instruction can start before the last one's result is there; volatile, so that the
# compiler cannot know them to be equal.
_LOOPS = """
#include <stdint.h>
#if defined(__AVX512BF16__)
#include <immintrin.h>
#endif
#if defined(__AVX512F__)
#define BYTES 64
#elif defined(__AVX__)
#define BYTES 32
#else
#define BYTES 16
#endif
#define SUMS 12
typedef float lanes __attribute__((vector_size(BYTES)));
volatile float sink;

double loop_fp32(int64_t rounds) {
    lanes sums[SUMS], factor = {0}, step = {0};
    for (int i = 0; i < BYTES / 4; i++) { factor[i] = 0.999f; step[i] = 0.001f; }
    for (int i = 0; i < SUMS; i++) sums[i] = step * sink;
    for (int64_t round = 0; round < rounds; round++) {
        #pragma GCC unroll 12
        for (int i = 0; i < SUMS; i++) sums[i] = sums[i] * factor + step;
    }
    for (int i = 0; i < SUMS; i++) sink += sums[i][0];
    return 2.0 * (BYTES / 4) * SUMS * rounds;
}

double loop_bf16(int64_t rounds) {
#if defined(__AVX512BF16__)
    __m512 sums[SUMS];
    __m512bh a = _mm512_cvtne2ps_pbh(_mm512_set1_ps(0.5f), _mm512_set1_ps(0.5f)), b = a;
    for (int i = 0; i < SUMS; i++) sums[i] = _mm512_set1_ps(sink);
    for (int64_t round = 0; round < rounds; round++) {
        #pragma GCC unroll 12
        for (int i = 0; i < SUMS; i++) sums[i] = _mm512_dpbf16_ps(sums[i], a, b);
    }
    for (int i = 0; i < SUMS; i++) sink += _mm512_reduce_add_ps(sums[i]);
    return 2.0 * 32 * SUMS * rounds;
#else
    return 0.0;
#endif
}
"""
_MATRIX = 2048

Kind = Literal["fp32", "bf16"]


@dataclass(frozen=True)
class Ceiling:
    """The fastest known multiply-adds of one number format, on all threads of torch.

    Args:
        kind: number format.
        how: "multiply-add loop" where a compiler is there, else "matrix product".
    """

    kind: Kind
    how: str
    _loop: Any
    _rounds: int

    def rate(self) -> float:
        """GFLOP/s of one run."""
        threads = torch.get_num_threads()
        if self._loop is None:
            matrix = torch.randn(_MATRIX, _MATRIX).to(torch.bfloat16 if self.kind == "bf16" else torch.float32)
            start = time.perf_counter()
            torch.mm(matrix, matrix)
            return 2e-9 * _MATRIX**3 / (time.perf_counter() - start)
        with ThreadPoolExecutor(threads) as pool:
            start = time.perf_counter()
            # ctypes lets go of the interpreter's lock while the loop runs.
            flop = sum(pool.map(self._loop, [self._rounds] * threads))
            return 1e-9 * flop / (time.perf_counter() - start)


def ceilings(folder: Path, seconds: float = 0.3) -> list[Ceiling]:
    """A ceiling for fp32, and one for bf16 where the processor multiplies it.

    Args:
        folder: for what is compiled.
        seconds: one run of a loop takes about this long.
    """
    library = _compiled(folder)
    found = []
    for kind in get_args(Kind):
        # Matrix tiles beat what the loop uses.
        tiles = kind == "bf16" and torch.cpu._is_amx_tile_supported()
        loop = None if library is None or tiles else library[f"loop_{kind}"]
        rounds = 1 << 20
        if loop is not None:
            loop.argtypes, loop.restype = [ctypes.c_int64], ctypes.c_double
            start = time.perf_counter()
            flop = loop(rounds)
            if not flop:
                continue
            rounds = max(1, int(rounds * seconds / (time.perf_counter() - start)))
        elif kind == "bf16" and not has_bf16("cpu"):
            continue
        found.append(Ceiling(kind, "matrix product" if loop is None else "multiply-add loop", loop, rounds))
    return found


def _compiled(folder: Path) -> ctypes.CDLL | None:
    compiler = shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        return None
    source, library = folder / "loops.c", folder / "loops.so"
    source.write_text(_LOOPS, encoding="utf-8")
    flags = ["-O3", "-march=native", "-ffp-contract=fast", "-shared", "-fPIC"]
    done = subprocess.run([compiler, *flags, str(source), "-o", str(library)], capture_output=True, text=True)
    return ctypes.CDLL(str(library)) if done.returncode == 0 else None
