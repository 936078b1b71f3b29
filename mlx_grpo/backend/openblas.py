"""On Linux without a GPU, give MLX's CPU back end a fast BLAS and a malloc that keeps its pages.

libmlx looks up the functions of BLAS by name (`cblas_sgemm`), so a library loaded earlier into the global scope
replaces the reference BLAS that the wheel links: measured on two cores, a 1024 x 1024 fp32 product goes from 2 to
182 GFLOP/s. It must be loaded before `mlx.core`, which `mlx_grpo/__init__.py` does.
"""

from __future__ import annotations

import _ctypes
import ctypes
import ctypes.util
import os
import sys
from collections.abc import Collection
from importlib.metadata import PackageNotFoundError, PackagePath, files

# glibc's mallopt: allocate below 1 GiB from the heap, grow it by 64 MiB,
# never give its top back, and have every thread use it: other arenas hold no large blocks.
MALLOC_OPTIONS = {
    "M_MMAP_THRESHOLD": (-3, 2**30),
    "M_TRIM_THRESHOLD": (-1, 2**31 - 1),
    "M_TOP_PAD": (-2, 2**26),
    "M_ARENA_MAX": (-8, 1),
}

BLAS_THREAD_TIMEOUT = "16"
"""Cycles that OpenBLAS's threads spin for more work, as a power of two. For the default of 2^26 they take the core
that MLX's other operations need (a training step took 13% longer)."""

AVX512 = {"avx512f", "avx512dq", "avx512bw", "avx512vl", "avx512cd"}
WIDE_KERNELS = {"Haswell", "Zen", "SkylakeX", "Cooperlake", "SapphireRapids"}
"""OpenBLAS's names for its kernels of AVX2 and AVX-512."""

REMEDY = (
    "No OpenBLAS found: MLX will compute 20 to 40 times slower on this CPU. "
    "Install one with `pip install opencv-python-headless` or `apt-get install libopenblas0-pthread`."
)

BLAS: str | None = None
"""Path of the OpenBLAS loaded in place of MLX's reference BLAS; None if none was needed or found."""


def prepare_linux_cpu() -> None:
    """Load an OpenBLAS and keep freed pages if MLX's CPU back end on Linux is in use; set `BLAS`."""
    global BLAS
    if on_linux_cpu():
        BLAS = load_openblas()
        keep_freed_pages()


def load_openblas() -> str | None:
    """Load an OpenBLAS into the global symbol scope and return its path; None if there is none to load.

    The order is: the path in MLX_GRPO_BLAS, the system's library, the copy inside opencv's wheel.
    """
    os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", BLAS_THREAD_TIMEOUT)
    for path in _candidates():
        try:
            library = _load(path)
        except OSError:
            continue
        if hasattr(library, "cblas_sgemm"):
            return path
    return None


def kernels_for(chosen: str, flags: Collection[str]) -> str | None:
    """Return the wider kernels that the CPU's instructions allow; None if the `chosen` ones are right.

    An OpenBLAS older than the CPU takes SSE3 kernels (`Prescott`, `Barcelona`). The copy in opencv's wheel, of 2021,
    does so on Xeons of 2023, where a training step then took 2.4 times as long.
    """
    if chosen in WIDE_KERNELS or not {"avx2", "fma"} <= set(flags):
        return None
    return "SkylakeX" if set(flags) >= AVX512 else "Haswell"


def keep_freed_pages() -> None:
    """Make glibc reuse large freed blocks instead of returning them to the kernel.

    MLX's CPU back end allocates each result anew. By default the kernel zeroes every page of it again, which
    took a quarter of a training step's CPU time.
    """
    mallopt = ctypes.CDLL(None).mallopt
    for option, value in MALLOC_OPTIONS.values():
        mallopt(option, value)


def on_linux_cpu() -> bool:
    """Return True if MLX's CPU back end is in use: on Linux, with the `mlx-cpu` wheel installed."""
    return sys.platform == "linux" and _wheel_files("mlx-cpu") != []


def _load(path: str) -> ctypes.CDLL:
    """Load a library into the global scope, again with wider kernels if it is an OpenBLAS older than this CPU."""
    library = ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)
    kernels = kernels_for(core_name(library), _cpu_flags()) if hasattr(library, "openblas_get_corename") else None
    if kernels is None or "OPENBLAS_CORETYPE" in os.environ:
        return library
    _ctypes.dlclose(library._handle)  # it reads the variable when it is loaded, and only then
    os.environ["OPENBLAS_CORETYPE"] = kernels
    try:
        return ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)
    finally:
        del os.environ["OPENBLAS_CORETYPE"]  # PyTorch's and NumPy's own copies are newer, and choose for themselves


def core_name(library: ctypes.CDLL) -> str:
    """Return the name of the kernels that a loaded OpenBLAS uses."""
    library.openblas_get_corename.restype = ctypes.c_char_p
    return library.openblas_get_corename().decode()


def _cpu_flags() -> set[str]:
    try:
        with open("/proc/cpuinfo") as lines:
            return set(next((line for line in lines if line.startswith("flags")), "").split())
    except OSError:
        return set()


def _candidates() -> list[str]:
    chosen = os.environ.get("MLX_GRPO_BLAS")
    system = ctypes.util.find_library("openblas")
    bundled = [str(f.locate()) for f in _wheel_files("opencv-python-headless") if f.name.startswith("libopenblas")]
    return [path for path in (chosen, system, *bundled) if path]


def _wheel_files(distribution: str) -> list[PackagePath]:
    try:
        return files(distribution) or []
    except PackageNotFoundError:
        return []
