"""Exports pushed and models fetched by the command line, huggingface_hub's own client and a Hub on loopback."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.hub_server import SIGNATURE, TOKEN, Hub, Repository, serving
from support.tiny_runs import evaluated_run

MLX_GRPO = ["-m", "mlx_grpo.cli"]


@pytest.fixture(scope="module")
def run(tiny_qwen3: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return evaluated_run(tiny_qwen3, tmp_path_factory.mktemp("hub"))


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serving() as hub:
        yield hub


def python(*arguments: str, endpoint: str, home: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Python with its Hub at `endpoint` and no login but what the environment brings."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING"))}
    settings = {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"}
    return subprocess.run(
        [sys.executable, *arguments],
        env={**kept, **settings, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


def push(
    run: Path, hub: Hub, *options: str, repo: str = "someone/ranker", token: str | None = TOKEN
) -> subprocess.CompletedProcess[str]:
    """`mlx-grpo export --hf RUN --push REPO`, whose output never shows a token or an address's signature."""
    login = {"HF_TOKEN": token} if token is not None else {}
    command = [*MLX_GRPO, "export", "--hf", str(run), "--push", repo, *options]
    done = python(*command, endpoint=hub.url, home=run.parent / "home", **login)
    for secret in {token, TOKEN, SIGNATURE} - {None, ""}:
        assert secret not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


def closed_port() -> str:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


@dataclass(frozen=True)
class Push:
    """What a push said and what the Hub then had."""

    done: subprocess.CompletedProcess[str]
    hub: Hub
    repository: Repository


@pytest.fixture(scope="module")
def pushed(run: Path) -> Push:
    with serving() as hub:
        done = push(run, hub, "--private", "--json")
        assert done.returncode == 0, done.stderr
        return Push(done, hub, hub.repositories["someone/ranker"])


def test_a_push_is_one_commit_of_the_exports_files_and_of_nothing_else(run: Path, pushed: Push):
    told = json.loads(pushed.done.stdout)
    assert told["url"] == f"{pushed.hub.url}/someone/ranker"
    names = {"README.md", "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    names |= {path.name for path in (run / "plots").iterdir()}
    assert told["files"].keys() == names
    assert [set(paths) for paths in pushed.repository.commits] == [names]
    assert pushed.repository.files == {name: (run / "hf" / name).read_bytes() for name in names}
    assert pushed.repository.private


def test_the_card_that_arrives_names_its_repository_and_was_checked_by_the_hub_first(pushed: Push):
    card = pushed.repository.files["README.md"].decode()
    assert pushed.hub.cards == [card]
    assert card.count('from_pretrained("someone/ranker")') == 2
    assert "# ranker\n" in card


def test_large_files_go_to_storage_without_the_token_and_the_token_into_no_file(run: Path, pushed: Push):
    assert "model.safetensors" in pushed.repository.lfs
    stored = [with_token for method, _, with_token in pushed.hub.requests if method == "PUT"]
    assert len(stored) == len(pushed.repository.lfs)
    assert not any(stored)
    files = [path for path in run.parent.parent.rglob("*") if path.is_file()]
    assert not [path for path in files if TOKEN.encode() in path.read_bytes()]


def test_a_dry_run_lists_the_files_of_a_push_and_asks_nobody(run: Path, hub: Hub, pushed: Push):
    listed = push(run, hub, "--dry-run", token=None)
    assert listed.returncode == 0, listed.stderr
    names = {line.split()[1] for line in listed.stdout.splitlines() if re.match(r" +[\d,]+  ", line)}
    assert names == pushed.repository.files.keys()
    assert hub.requests == []


def test_an_existing_repository_gets_a_commit_of_what_changed(run: Path, hub: Hub):
    assert push(run, hub).returncode == 0
    repository = hub.repositories["someone/ranker"]
    assert not repository.private
    repository.files["README.md"] = b"older"
    repository.files["notes.txt"] = b"somebody's"
    assert push(run, hub).returncode == 0
    assert repository.commits[1:] == [["README.md"]]
    assert repository.files["notes.txt"] == b"somebody's"


def test_a_private_push_to_a_public_repository_is_refused_before_the_export(run: Path, hub: Hub):
    hub.repositories["someone/ranker"] = Repository(private=False)
    refused = push(run, hub, "--private")
    assert refused.returncode == 2
    assert "someone/ranker exists already and is public" in refused.stderr
    assert {method for method, _, _ in hub.requests} == {"GET"}


def test_a_connection_cut_at_each_stage_is_mended_and_leaves_one_commit(run: Path, hub: Hub):
    hub.cuts = ["create", "batch", "store", "commit", "commit answer"]
    done = push(run, hub)
    assert done.returncode == 0, done.stderr
    assert hub.cuts == []
    assert "trying again" in done.stderr
    repository = hub.repositories["someone/ranker"]
    assert len(repository.commits) == 1
    assert repository.files["model.safetensors"] == (run / "hf" / "model.safetensors").read_bytes()
    assert hub.count("/storage/") == len(repository.lfs) + 1


def test_a_hub_that_keeps_cutting_is_given_up_with_the_remedy(run: Path, hub: Hub):
    hub.cuts = ["create"] * 9
    start = time.monotonic()
    done = push(run, hub)
    assert done.returncode == 2
    assert time.monotonic() - start < 30
    assert hub.count("/repos/create") == 3
    assert "run the command again" in done.stderr


@pytest.mark.parametrize(
    ("token", "role", "told"),
    [
        (None, "write", "not logged in to the Hub; run `hf auth login`, or set HF_TOKEN"),
        ("hf_revokedSecret", "write", "the Hub refuses the token (401)"),
        (TOKEN, "read", "this token may only read"),
        ("hf_secrét\u2028", "write", "characters that no token has"),
        ("hf_sec\x01ret", "write", "characters that no token has"),
    ],
    ids=["none", "wrong", "read-only", "not-ascii", "control"],
)
def test_a_push_that_could_not_succeed_is_refused_before_the_export(
    run: Path, hub: Hub, token: str | None, role: str, told: str
):
    hub.role = role
    exports = sorted(run.glob("hf*"))
    start = time.monotonic()
    refused = push(run, hub, token=token)
    assert refused.returncode == 2
    assert told in refused.stderr
    assert "hf auth login" in refused.stderr
    assert time.monotonic() - start < 20
    assert sorted(run.glob("hf*")) == exports
    assert hub.repositories == {}


@pytest.mark.parametrize(
    ("repo", "told"),
    [
        ("ranker", "give USER/ranker"),
        ("a b/c", "give USER/NAME"),
        ("a/b/c", "give USER/NAME"),
    ],
)
def test_a_name_that_no_repository_can_have_is_refused(run: Path, hub: Hub, repo: str, told: str):
    refused = push(run, hub, repo=repo)
    assert refused.returncode == 2
    assert told in refused.stderr
    assert hub.requests == []


def test_a_namespace_of_somebody_else_is_refused_with_what_the_hub_says(run: Path, hub: Hub):
    refused = push(run, hub, repo="other/ranker")
    assert refused.returncode == 2
    assert "answers 403" in refused.stderr
    assert "under the namespace 'other'" in refused.stderr
    assert "a name under your own account" in refused.stderr


def test_a_storage_that_refuses_a_file_is_told_without_its_signed_address(run: Path, hub: Hub):
    hub.storage_full = True
    refused = push(run, hub)
    assert refused.returncode == 2
    assert "answers 403, Storage limit reached" in refused.stderr
    assert hub.repositories["someone/ranker"].commits == []


def test_options_of_a_push_without_a_push_are_a_mistake(run: Path, tmp_path: Path):
    for option in ("--private", "--dry-run"):
        done = python(*MLX_GRPO, "export", "--hf", str(run), option, endpoint=closed_port(), home=tmp_path)
        assert done.returncode == 2
        assert "add --push USER/NAME" in done.stderr


@pytest.mark.parametrize(("offline", "told"), [("0", "can't be reached"), ("1", "HF_HUB_OFFLINE is set; unset it")])
def test_a_push_to_an_absent_hub_says_so_in_seconds(run: Path, tmp_path: Path, offline: str, told: str):
    command = [*MLX_GRPO, "export", "--hf", str(run), "--push", "someone/ranker"]
    start = time.monotonic()
    done = python(*command, endpoint=closed_port(), home=tmp_path, HF_TOKEN=TOKEN, HF_HUB_OFFLINE=offline)
    assert done.returncode == 2
    assert told in done.stderr
    assert TOKEN not in done.stderr
    assert time.monotonic() - start < 20


@pytest.fixture
def cache(tiny_qwen3: Path, tmp_path: Path) -> Path:
    """A home of huggingface_hub whose cache holds someone/tiny, as a download leaves it."""
    repository = tmp_path / "home" / "hub" / "models--someone--tiny"
    snapshot = repository / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    for file in tiny_qwen3.iterdir():
        (snapshot / file.name).write_bytes(file.read_bytes())
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("a" * 40)
    return tmp_path / "home"


FIND = "from mlx_grpo.models.policy import find_model; print(find_model('someone/tiny'))"
DOWNLOAD = "from mlx_grpo.models.hub import download; print(download('someone/tiny', ('*.json', '*.safetensors')))"


@pytest.mark.parametrize(("code", "offline"), [(FIND, "0"), (DOWNLOAD, "0"), (DOWNLOAD, "1")])
def test_the_cached_model_is_used_where_the_hub_is_out_of_reach(cache: Path, code: str, offline: str):
    start = time.monotonic()
    done = python("-c", code, endpoint=closed_port(), home=cache, HF_HUB_OFFLINE=offline)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()) == cache / "hub" / "models--someone--tiny" / "snapshots" / ("a" * 40)
    assert time.monotonic() - start < 25


def test_a_hub_that_accepts_and_says_nothing_is_waited_for_ten_seconds(cache: Path):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        start = time.monotonic()
        done = python("-c", DOWNLOAD, endpoint=f"http://127.0.0.1:{silent.getsockname()[1]}", home=cache)
    assert done.returncode == 0, done.stderr
    assert 10 < time.monotonic() - start < 30


def test_a_model_that_is_nowhere_says_what_to_do_in_seconds(tmp_path: Path):
    start = time.monotonic()
    done = python(*MLX_GRPO, "train", "qwen3", endpoint=closed_port(), home=tmp_path, HF_TOKEN=TOKEN)
    assert done.returncode == 2
    assert "can't be reached" in done.stderr
    assert "the cache lacks it" in done.stderr
    assert "or give a local folder" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert time.monotonic() - start < 25


def test_a_token_that_can_not_be_sent_is_not_shown_when_a_model_is_asked_for(tmp_path: Path):
    done = python("-c", DOWNLOAD, endpoint=closed_port(), home=tmp_path, HF_TOKEN="hf_sec\x01ret")
    assert "characters that no token has" in done.stderr
    assert "sec" not in done.stderr.replace("second", "")


def test_a_model_asked_for_with_a_token_that_the_hub_refuses_says_so_without_it(hub: Hub, tmp_path: Path):
    command = [*MLX_GRPO, "train", "qwen3", "model=someone/tiny"]
    done = python(*command, endpoint=hub.url, home=tmp_path, HF_TOKEN="hf_wrongSecret")
    assert done.returncode == 2
    assert "the Hub refuses the token (401)" in done.stderr
    assert "hf_wrongSecret" not in done.stderr


def push_space(run: Path, hub: Hub, *options: str) -> subprocess.CompletedProcess[str]:
    """`mlx-grpo export --space RUN --push someone/page`."""
    command = [*MLX_GRPO, "export", "--space", str(run), "--push", "someone/page", *options]
    return python(*command, endpoint=hub.url, home=run.parent / "home", HF_TOKEN=TOKEN)


def test_space_is_pushed_as_a_gradio_space_that_names_its_model(run: Path, hub: Hub, tmp_path: Path):
    run = shutil.copytree(run, tmp_path / "runs" / "run")
    inputs = json.loads((run / "inputs.json").read_text()) | {"form": "compact"}  # its prompts are cut
    (run / "inputs.json").write_text(json.dumps(inputs))
    hub.repositories["someone/ranker"] = Repository()
    done = push_space(run, hub, "--model", "someone/ranker", "--json")
    assert done.returncode == 0, done.stderr
    told, space = json.loads(done.stdout), hub.repositories["spaces/someone/page"]
    assert space.sdk == "gradio"
    assert [set(paths) for paths in space.commits] == [set(told["files"])]
    assert {"app.py", "requirements.txt", "README.md", "reward/strict.py"} < set(told["files"])
    assert b"models:\n- someone/ranker\n" in space.files["README.md"]
    assert json.loads(space.files["settings.json"])["model"] == "someone/ranker"
    assert not [name for name, data in space.files.items() if TOKEN.encode() in data or str(run).encode() in data]
    assert (run / "space" / "local.json").is_file()  # for this machine alone


def test_space_whose_model_is_not_on_the_hub_is_refused_before_it_is_written(run: Path, hub: Hub, tmp_path: Path):
    done = push_space(run, hub, "--out", str(tmp_path / "space"))
    assert done.returncode == 2
    assert "the Hub has no model someone/page" in done.stderr
    assert "`mlx-grpo export --hf --push someone/page` first" in done.stderr
    assert not (tmp_path / "space").exists()
    assert hub.repositories == {}
