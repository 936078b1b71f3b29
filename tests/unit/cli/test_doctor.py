"""`mlx-grpo doctor` reports a machine's equipment, the settings chosen on it, and remedies for what is missing."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from huggingface_hub import constants
from rich.console import Console
from support.devices import CPU, H100, M1, M5_MAX
from support.paths import ROOT

from mlx_grpo.backend import openblas
from mlx_grpo.backend.device import describe
from mlx_grpo.backend.openblas import on_linux_cpu
from mlx_grpo.cli import doctor


@pytest.fixture
def endpoint() -> Iterator[str]:
    """A server on loopback in the Hub's place."""

    class Hub(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def run_doctor(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mlx_grpo.cli", "doctor", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, env=environment)


def by_subject(done: subprocess.CompletedProcess[str]) -> dict[str, dict]:
    return {finding["subject"]: finding for finding in json.loads(done.stdout)["findings"]}


def test_doctor_exits_with_0_and_shows_the_measured_speed(endpoint: str, tmp_path: Path):
    (tmp_path / "hub/models--some--model/snapshots/abc").mkdir(parents=True)
    (tmp_path / "hub/models--some--model/snapshots/abc/config.json").write_text("{}")
    (tmp_path / "hub/models--tokenizer--alone/snapshots").mkdir(parents=True)
    done = run_doctor("--json", HF_ENDPOINT=endpoint, HF_HOME=str(tmp_path), HF_HUB_OFFLINE="0")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["can_train"]
    findings = by_subject(done)
    assert findings["Hub"] == {
        "subject": "Hub",
        "status": "ok",
        "detail": f"{endpoint} reachable; cached: some/model",
        "remedy": None,
    }
    speed = findings["BLAS" if on_linux_cpu() else "speed"]
    assert float(speed["detail"].split()[0]) > 1
    assert {"Python", "MLX", "device", "dtype", "PyTorch", "disk"} <= findings.keys()


def test_unreachable_or_switched_off_hub_is_a_warning_that_offers_a_local_folder(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    away = doctor.check_hub("http://127.0.0.1:9")
    assert away.status == "warning"
    assert "can't be reached" in away.detail
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    offline = doctor.check_hub("http://127.0.0.1:9")
    assert offline.status == "warning"
    assert "HF_HUB_OFFLINE" in offline.detail
    assert "local folder" in away.remedy and "local folder" in offline.remedy


def test_report_fits_80_columns_and_shows_remedies_whole():
    output = io.StringIO()
    remedy = "pip install 'mlx[cpu]'"
    findings = [*doctor.check_device(describe(M5_MAX), "26.0"), doctor.Finding("PyTorch", "warning", "absent", remedy)]
    doctor.print_findings(Console(file=output, width=80), findings)
    assert all(len(line.rstrip()) <= 80 for line in output.getvalue().splitlines())
    assert remedy in output.getvalue()


def test_missing_back_end_is_a_failure_whose_remedy_names_the_extra(tmp_path: Path):
    (tmp_path / "mlx").mkdir()
    (tmp_path / "mlx/__init__.py").write_text("")  # MLX as it is on Linux without a back end: no mlx.core to load
    done = run_doctor("--json", PYTHONPATH=f"{tmp_path}:{ROOT}", HF_HUB_OFFLINE="1")
    assert done.returncode == 1, done.stderr
    assert not json.loads(done.stdout)["can_train"]
    mlx = by_subject(done)["MLX"]
    assert mlx["status"] == "failure"
    assert "pip install" in mlx["remedy"]


def test_device_check_on_a_mac_reports_limits_dtype_and_split_work():
    device, dtype, display = doctor.check_device(describe(M1), "15.3")
    assert device == doctor.Finding("device", "ok", "Apple M1, 16 GB; wired limit 10.7 GB, cache limit 5.3 GB")
    assert dtype.detail.startswith("auto = float16")
    assert "AGX_RELAX_CDM_CTXSTORE_TIMEOUT=1, lower micro_batch_size" in display.detail
    assert "train --supervise" in display.detail
    assert doctor.check_device(describe(M1), "14.7")[0].status == "warning"  # where MLX ignores the wired limit


@pytest.mark.parametrize(
    ("level", "used", "status", "detail"),
    [
        (1, "0.00M", "ok", "pressure normal, 0.0 GB of swap in use"),
        (1, "3072.50M", "warning", "pressure normal, 3.0 GB of swap in use"),
        (2, "512.00M", "warning", "pressure warning, 0.5 GB of swap in use"),
        (4, "0.00M", "warning", "pressure critical, 0.0 GB of swap in use"),
    ],
)
def test_memory_pressure_or_swap_on_a_mac_is_a_warning(level: int, used: str, status: str, detail: str):
    printed = f"{level}\ntotal = 4096.00M  used = {used}  free = 1024.00M  (encrypted)\n"
    finding = doctor.check_pressure(printed)
    assert (finding.status, finding.detail) == (status, detail)
    assert (finding.remedy is None) is (status == "ok")
    assert doctor.check_pressure("").status == "warning"


@pytest.mark.parametrize(("info", "rounded"), [(M1, False), (M5_MAX, True), (H100, True), (CPU, False)])
def test_tf32_rounding_is_reported_only_where_it_happens(info: dict, rounded: bool, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("MLX_ENABLE_TF32", raising=False)
    assert ("TF32" in doctor.check_device(describe(info), "15.0")[1].detail) is rounded
    monkeypatch.setenv("MLX_ENABLE_TF32", "0")
    assert "TF32" not in doctor.check_device(describe(info), "15.0")[1].detail


@pytest.mark.skipif(not on_linux_cpu(), reason="concerns MLX's CPU back end on Linux")
def test_missing_openblas_is_a_warning_with_a_remedy(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(openblas, "BLAS", None)
    finding = doctor.check_speed()
    assert finding.status == "warning"
    assert "pip install" in finding.remedy


def test_package_with_the_same_names_is_a_warning_only_where_it_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    assert doctor.check_other_package() == []
    installed = tmp_path / "mlx_guided_grpo-2.1.1.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: mlx-guided-grpo\nVersion: 2.1.1\n")
    monkeypatch.syspath_prepend(tmp_path)
    [finding] = doctor.check_other_package()
    assert finding.status == "warning" and "mlx-guided-grpo 2.1.1 is installed too" in finding.detail
    assert "pip uninstall mlx-guided-grpo" in finding.remedy
    monkeypatch.setattr(doctor, "check_mlx", lambda: doctor.Finding("MLX", "failure", "stop here"))
    monkeypatch.setattr(doctor, "check_hub", lambda endpoint: doctor.Finding("Hub", "ok", endpoint))
    assert finding in doctor.examine()


def test_little_disk_space_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert doctor.check_disk(tmp_path).detail.endswith(str(tmp_path))
    monkeypatch.setattr(doctor, "WANTED_DISK", 2**60)
    assert doctor.check_disk(tmp_path).status == "warning"
