"""Whatever a file holds, its reader succeeds or raises its own error: no traceback, no hang, no wild allocation.

`FUZZ=5000 pytest tests/integration/test_fuzz.py` draws more examples than the quick profile does.
"""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from support.paths import ROOT

from mlx_grpo.config.files import load_config, parse_yaml
from mlx_grpo.config.schema import Config, DataConfig
from mlx_grpo.data.dataset import context_of, dataset_files, read_rows, read_text
from mlx_grpo.errors import UserError
from mlx_grpo.tasks.shortlist.jd import read_job
from mlx_grpo.tasks.shortlist.pool import load_pool
from reward import RUBRICS

EXAMPLES = int(os.environ.get("FUZZ", "120"))
quick = settings(
    max_examples=EXAMPLES,
    deadline=10_000,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    derandomize=True,
)
text = st.text(st.characters(), max_size=30)
scalar = st.none() | st.booleans() | st.integers() | st.floats() | text | st.just(10**400)
value = st.recursive(
    scalar, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3), max_leaves=6
)
CONFIG = (ROOT / "configs" / "smollm2.yaml").read_bytes()
LINES = read_text(dataset_files(DataConfig(train="shortlist"))[0]).encode().split(b"\n")[:3]
POOL = json.dumps(
    [
        {
            "candidate_id": "C1",
            "profile": {"current_title": "Analyst", "years_of_experience": 4, "summary": "Calm."},
            "skills": [{"name": "Python", "proficiency": "advanced", "duration_months": 30}],
            "career_history": [{"title": "A", "company": "B", "duration_months": 2, "start_date": "2024-03-08"}],
        }
    ]
).encode()
POOLS = [POOL, gzip.compress(POOL, mtime=0), POOL.decode().encode("utf-16")]


@st.composite
def mutated(draw: st.DrawFn, original: bytes) -> bytes:
    """A file cut short, with bytes flipped, a stretch repeated or something else put in."""
    data = bytearray(original[: draw(st.integers(0, len(original)))] if draw(st.booleans()) else original)
    for _ in range(draw(st.integers(0, 4))):
        at, end = sorted(draw(st.tuples(st.integers(0, len(data)), st.integers(0, len(data)))))
        filling = st.binary(max_size=6) | st.sampled_from(
            [b"[" * 2000, b"{" * 99, b"9" * 5000, b"&a *a", b"\xed\xa0\x80"]
        )
        data[at : min(end, at + draw(st.integers(0, 20)))] = draw(filling)
    return bytes(data)


def as_json(anything: Any) -> bytes:
    """JSON where Python can write it."""
    try:
        return json.dumps(anything).encode()
    except ValueError:
        return b'{"prompt": ' + b"9" * 5000 + b"}"


keys = st.sampled_from([*sorted(Config.model_fields), "unknown"])


@quick
@given(content=mutated(CONFIG) | st.binary(max_size=60))
@example(content=b"a: " + b"- " * 5000)
@example(content=b"? " * 5000)
def test_a_config_of_any_bytes(content: bytes, tmp_path: Path):
    path = tmp_path / "c.yaml"
    path.write_bytes(content)
    try:
        load_config(str(path))
    except UserError as error:
        assert len(str(error)) < 100_000


@quick
@given(values=st.dictionaries(keys, value, max_size=5))
def test_a_config_of_any_values(values: dict[str, Any], tmp_path: Path):
    path = tmp_path / "c.yaml"
    try:
        path.write_text(yaml.safe_dump(values), encoding="utf-8")
    except (ValueError, yaml.YAMLError):  # what YAML cannot write, no file holds
        return
    try:
        load_config(str(path), ["seed=1"])
    except UserError as error:
        assert all(len(problem) < 2000 for problem in error.problems)


@quick
@given(
    content=text | st.sampled_from(["{" * 3000, "!!binary x", "2024-99-99", "0x" + "f" * 9000, "<<: 1", "- &a [*a]"])
)
def test_an_override_of_any_text(content: str):
    try:
        parse_yaml(content, "override")
    except UserError as error:
        assert str(error).startswith("override")


@quick
@given(content=mutated(b"\n".join(LINES)) | value.map(as_json))
def test_a_dataset_of_any_bytes(content: bytes, tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    try:
        rows = read_rows(path)
    except UserError as error:
        assert str(path) in str(error)
        return
    json.dumps(rows, ensure_ascii=False).encode("utf-8")  # what is read can be rendered and written


@quick
@given(content=st.one_of(map(mutated, POOLS)) | value.map(lambda v: as_json([v])))
@example(content=b"[" * 990 + b"]" * 990)
def test_a_pool_and_a_description_of_any_bytes(content: bytes, tmp_path: Path):
    for name in ("pool.json", "pool.jsonl", "job.txt", "job.yaml"):
        (tmp_path / name).write_bytes(content)
        try:
            if name.startswith("job"):
                read_job(tmp_path / name, ["Python"], ["SQL"])
            else:
                "\n".join(load_pool(tmp_path / name)[1]).encode("utf-8")
        except UserError as error:
            str(error).encode("utf-8")


@quick
@given(completion=mutated(json.loads(LINES[0])["completion"].encode()), name=st.sampled_from(sorted(RUBRICS)))
def test_a_damaged_gold_completion_is_graded(completion: bytes, name: str):
    row = json.loads(LINES[0])
    row["context"] = context_of(row)
    rubric = RUBRICS[name]
    gold = {column: row[column] for column in rubric.columns}
    assert 0 <= rubric(completion.decode("utf-8", "surrogateescape"), **gold).total <= 1


GGUF_WORKER = """
import random, resource, struct, sys, time
from pathlib import Path
from convert.gguf import convert_gguf
from mlx_grpo.errors import UserError

source, out, count = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
whole, draw = source.read_bytes(), random.Random(1)
header = whole.index(b"output_norm.weight") + 200
convert_gguf([source], out / "whole")  # imports everything once
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 512 * 2**20,) * 2)
for number in range(count):
    broken = bytearray(whole)
    for _ in range(draw.choice([1, 1, 2, 4])):
        at = draw.randrange(0, header)
        kind = draw.randrange(4)
        if kind == 0:
            broken[at] = draw.randrange(256)
        elif kind == 1:
            broken[at : at + 8] = struct.pack("<Q", draw.choice([0, 2**31, 2**32, 2**40, 2**60, 2**63, 2**64 - 1]))
        elif kind == 2:
            broken[at : at + 4] = struct.pack("<I", draw.choice([0, 8, 9, 2**16, 2**31, 2**32 - 1]))
        else:
            del broken[draw.randrange(4, len(broken)) :]
    source.write_bytes(broken)
    started = time.monotonic()
    try:
        convert_gguf([source], out / str(number))
    except UserError as error:
        assert str(error).isprintable(), number
    assert time.monotonic() - started < 20, number
"""


@pytest.mark.skipif(not Path("/proc/self/statm").is_file(), reason="reads its memory from /proc, to limit it")
@pytest.mark.parametrize("architecture", ["llama", "qwen2"])
def test_gguf_of_mutated_counts_is_refused_or_read_within_half_a_gigabyte(architecture: str, tmp_path: Path):
    pytest.importorskip("gguf")
    pytest.importorskip("torch")
    from support.gguf_cases import random_model, tensors_of, write_gguf

    tensors = tensors_of(random_model(architecture))
    source = write_gguf(tmp_path / "x.gguf", tensors, arch=architecture, pre="qwen2")
    worker = [sys.executable, "-c", GGUF_WORKER, str(source), str(tmp_path), str(EXAMPLES // 2)]
    done = subprocess.run(worker, capture_output=True, text=True, timeout=300, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]
