"""`mlx-grpo doctor`: examine this machine before the first run, and name what keeps training from working."""

from __future__ import annotations

import json as json_module
import os
import platform
import re
import shutil
import subprocess
import sys
import urllib.request
from dataclasses import asdict, dataclass
from http.client import HTTPException
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.error import HTTPError

import click
from huggingface_hub import constants
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mlx_grpo import __version__
from mlx_grpo.backend import openblas
from mlx_grpo.cli.terminal import console, errors

if TYPE_CHECKING:  # at run time its import of MLX may fail, which is a finding
    from mlx_grpo.backend.device import Device

GIB = 2**30
WANTED_DISK = 5 * GIB
"""Qwen3-0.6B takes 1.5 GB to fetch, and as much for each export in bfloat16."""
OTHER_PACKAGE = "mlx-guided-grpo"
"""On PyPI; pip writes its files over this package's, or these over its."""
HUB_TIMEOUT = 5  # seconds
TF32_FROM = {"metal": 17, "cuda": 8}
"""First GPU generations on which MLX rounds the factors of float32 products to TF32 (ml-explore/mlx#3860)."""

SPLIT = (
    "long work is split; should macOS still end a run with `Impacting Interactivity`, "
    "set AGX_RELAX_CDM_CTXSTORE_TIMEOUT=1, lower micro_batch_size, or let the display sleep; "
    "`train --supervise` resumes such a run by itself"
)
PRESSURE = {"1": "normal", "2": "warning", "4": "critical"}
"""The levels of `kern.memorystatus_vm_pressure_level`."""
WANTED_SWAP = GIB
"""Swap in use above which a run competes with other programs for memory."""
SYSCTL = ("/usr/sbin/sysctl", "-n", "kern.memorystatus_vm_pressure_level", "vm.swapusage")


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report."""

    subject: str
    status: Literal["ok", "warning", "failure"]
    """A warning costs something; with a failure, training can't work."""
    detail: str
    remedy: str | None = None


def examine() -> list[Finding]:
    """Check everything that a first run needs; takes a few seconds and sends the Hub one request."""
    findings = [check_python(), *check_other_package(), check_mlx()]
    if can_train(findings):
        from mlx_grpo.backend.device import this_device

        findings += [*check_device(this_device(), platform.mac_ver()[0]), check_speed()]
    if sys.platform == "darwin":
        findings.append(check_pressure(read_sysctl()))
    return [*findings, check_hub(constants.ENDPOINT), check_torch(), check_disk(Path.cwd())]


def can_train(findings: list[Finding]) -> bool:
    """Return True if no finding keeps training from working."""
    return all(finding.status != "failure" for finding in findings)


def print_findings(console: Console, findings: list[Finding]) -> None:
    """Print a line for each finding, with its remedy below, folded to the terminal's width."""
    colours = {"ok": "green", "warning": "yellow", "failure": "red"}
    table = Table.grid(padding=(0, 2, 0, 0))
    for overflow in ("ignore", "ignore", "fold"):
        table.add_column(overflow=overflow)
    for finding in findings:
        status = f"[{colours[finding.status]}]{finding.status}[/]"
        table.add_row(status, finding.subject, escape(finding.detail))
        if finding.remedy:
            table.add_row("", "", f"[bold]remedy:[/] {escape(finding.remedy)}")
    console.print(table, highlight=False)


def check_python() -> Finding:
    """Report the interpreter and the system."""
    place = "virtual environment" if sys.prefix != sys.base_prefix else "no virtual environment"
    return Finding("Python", "ok", f"{platform.python_version()} on {platform.system()} {platform.machine()}, {place}")


def check_other_package() -> list[Finding]:
    """Report another package whose files have the names of this one's, if it is installed too."""
    try:
        detail = f"{OTHER_PACKAGE} {version(OTHER_PACKAGE)} is installed too, and has a package mlx_grpo and a command"
    except PackageNotFoundError:
        return []
    remedy = f"pip uninstall {OTHER_PACKAGE} mlx-grpo, then install mlx-grpo again, or give each an environment"
    return [Finding("packages", "warning", f"{detail} mlx-grpo of its own; files of both may be mixed", remedy)]


def check_mlx() -> Finding:
    """Report MLX's versions and back end; a Linux wheel without a back end fails to import."""
    remedy = "pip install mlx" if sys.platform == "darwin" else "pip install 'mlx[cpu]', or 'mlx[cuda13]' for a GPU"
    try:
        import mlx.core  # noqa: F401  (the import is the check)
    except ImportError as error:
        reason = str(error).split("\n")[0]
        return Finding("MLX", "failure", f"can't be loaded: {reason}", remedy)
    from mlx_grpo.backend.device import this_device

    backend = {"metal": "Metal", "cuda": "CUDA", "cpu": "CPU"}[this_device().backend]
    detail = f"{version('mlx')} on {backend}; mlx-lm {version('mlx-lm')}; mlx-grpo {__version__}"
    if sys.platform == "darwin" and backend == "CPU":
        return Finding("MLX", "warning", detail, "this Mac's GPU is not in use; run natively on macOS 14 or newer")
    return Finding("MLX", "ok", detail)


def check_device(device: Device, macos: str) -> list[Finding]:
    """Report a device's memory and the settings chosen for it; `macos` is the system's version on a Mac."""
    from mlx_grpo.backend.device import auto_dtype, memory_limits, physical_memory, splits_evaluations

    memory = device.memory or physical_memory()
    detail, limits, remedy = f"{device.name}, {memory / GIB:.0f} GB", memory_limits(device), None
    if limits is not None:
        detail += f"; wired limit {limits.wired / GIB:.1f} GB, cache limit {limits.cache / GIB:.1f} GB"
        if int(macos.partition(".")[0]) < 15:
            remedy = "from macOS 15 on the wired limit keeps weights in memory; older systems may page them out"
    findings = [Finding("device", "warning" if remedy else "ok", detail, remedy)]
    name, reason = auto_dtype(device)
    detail = f"auto = {name}: {reason}"
    rounds = device.generation is not None and device.generation >= TF32_FROM[device.backend]
    if rounds and os.environ.get("MLX_ENABLE_TF32") != "0":
        detail += "; float32 products are rounded to TF32 here unless MLX_ENABLE_TF32=0"
    findings.append(Finding("dtype", "ok", detail))
    if splits_evaluations(device):
        findings.append(Finding("display", "ok", SPLIT))
    return findings


def check_pressure(sysctl: str) -> Finding:
    """Report a Mac's memory pressure and swap, from what SYSCTL prints."""
    level, _, usage = sysctl.strip().partition("\n")
    match = re.search(r"used = ([\d.]+)M", usage)
    if level not in PRESSURE or match is None:
        return Finding("memory", "warning", "macOS does not say its memory pressure", "see Activity Monitor")
    swap = float(match[1]) * 2**20
    detail = f"pressure {PRESSURE[level]}, {swap / GIB:.1f} GB of swap in use"
    if level == "1" and swap < WANTED_SWAP:
        return Finding("memory", "ok", detail)
    return Finding("memory", "warning", detail, "close other programs, or lower micro_batch_size; swap slows a run")


def read_sysctl() -> str:
    """Return what SYSCTL prints, "" where it can't be run."""
    try:
        return subprocess.run(SYSCTL, capture_output=True, text=True, timeout=5, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""


def check_speed() -> Finding:
    """Measure the speed of a matrix product; on Linux's CPU back end it depends on the BLAS."""
    import mlx.core as mx

    from mlx_grpo.planning.flops import MATRIX, matrix_speed

    missing = openblas.on_linux_cpu() and openblas.BLAS is None
    side = 256 if missing else MATRIX  # the reference BLAS would take a minute
    measured = f"{matrix_speed(mx.float32, side) / 1e9:.0f} GFLOP/s in float32 products of {side}"
    if missing:
        return Finding("BLAS", "warning", measured, openblas.REMEDY)
    if openblas.BLAS is not None:
        return Finding("BLAS", "ok", f"{measured}, by {Path(openblas.BLAS).name}")
    return Finding("speed", "ok", measured)


def check_hub(endpoint: str) -> Finding:
    """Report if models can be fetched, and which ones are cached."""
    cached = sorted(
        folder.name.removeprefix("models--").replace("--", "/")
        for folder in Path(constants.HF_HUB_CACHE).glob("models--*")
        if any(folder.glob("snapshots/*/config.json"))
    )
    here = f"cached: {', '.join(cached)}" if cached else "nothing cached"
    remedy = "name a local folder as `model`" + (", or a cached one" if cached else "")
    if constants.HF_HUB_OFFLINE:
        return Finding("Hub", "warning", f"switched off by HF_HUB_OFFLINE; {here}", f"{remedy}, or unset it")
    try:
        urllib.request.urlopen(urllib.request.Request(endpoint, method="HEAD"), timeout=HUB_TIMEOUT).close()
    except HTTPError as error:
        if error.code >= 500:
            return Finding("Hub", "warning", f"{endpoint} answers {error.code}; {here}", remedy)
    except (OSError, HTTPException, ValueError) as error:  # URLError is an OSError; ValueError: no URL at all
        return Finding("Hub", "warning", f"{endpoint} can't be reached ({error}); {here}", remedy)
    return Finding("Hub", "ok", f"{endpoint} reachable; {here}")


def check_torch() -> Finding:
    """Report PyTorch, which only the evaluation of exports needs."""
    try:
        return Finding("PyTorch", "ok", version("torch"))
    except PackageNotFoundError:
        remedy = "pip install torch, or `mlx-grpo eval --backend mlx`"
        return Finding("PyTorch", "warning", "not installed; `mlx-grpo eval` completes with it", remedy)


def check_disk(folder: Path) -> Finding:
    """Report if there is room for a model, a run and its export."""
    free = shutil.disk_usage(folder).free
    detail = f"{free / GIB:.0f} GB free in {folder}"
    if free < WANTED_DISK:
        return Finding("disk", "warning", detail, f"a run with its export wants about {WANTED_DISK / GIB:.0f} GB")
    return Finding("disk", "ok", detail)


@click.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
@click.pass_context
def doctor_command(context: click.Context, as_json: bool) -> None:
    """Examine this machine before the first run: back end, speed, memory, dtype, Hub, disk.

    Exits with 1 if training can't work.

    \b
    mlx-grpo doctor
    mlx-grpo doctor --json
    """
    with errors.status("examining", spinner="line"):
        findings = examine()
    if as_json:
        click.echo(json_module.dumps({"can_train": can_train(findings), "findings": [asdict(f) for f in findings]}))
    else:
        print_findings(console, findings)
    context.exit(0 if can_train(findings) else 1)
