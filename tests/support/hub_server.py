"""A Hub on loopback: as much of its HTTP API as huggingface_hub's client speaks.

For a model that is pushed: who is it, make a repository, check a card, how to upload each file, LFS's batch and
storage, commit. For a data set that is fetched: its info, its tree, its files. A test can have it refuse the token, or
cut the connection once at a named stage.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

TOKEN = "hf_loopbackSecret0123456789"
SIGNATURE = "X-Amz-Signature=loopbackSignature"
LFS_SUFFIXES = (".safetensors", ".png")


@dataclass
class Repository:
    """A model repository and every commit's paths, oldest first."""

    private: bool = False
    sdk: str | None = None
    """What a Space runs by; None for a model."""
    files: dict[str, bytes] = field(default_factory=dict)
    lfs: set[str] = field(default_factory=set)
    commits: list[list[str]] = field(default_factory=list)


@dataclass
class Dataset:
    """A data set: the files of each revision, by branch."""

    revisions: dict[str, dict[str, bytes]]
    gated: bool = False
    private: bool = False

    def commit(self, revision: str) -> str | None:
        """Return the commit of a branch, or of itself."""
        commits = {branch: commit_of(files) for branch, files in self.revisions.items()}
        return revision if revision in commits.values() else commits.get(revision)

    def files(self, commit: str) -> dict[str, bytes]:
        """Return the files of a commit."""
        return next(files for files in self.revisions.values() if commit_of(files) == commit)


@dataclass
class Hub:
    """What the server knows and what it was asked; `cuts` names the stages whose connection breaks, each once."""

    url: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    datasets: dict[str, Dataset] = field(default_factory=dict)
    storage: dict[str, bytes] = field(default_factory=dict)
    requests: list[tuple[str, str, bool]] = field(default_factory=list)
    """(method, path, whether it carried the token)."""
    cards: list[str] = field(default_factory=list)
    role: str = "write"
    writable: str = "someone"
    storage_full: bool = False
    cuts: list[str] = field(default_factory=list)

    def count(self, part: str) -> int:
        """How many requests had `part` in their path."""
        return sum(part in path for _, path, _ in self.requests)


@contextmanager
def serving() -> Iterator[Hub]:
    """A Hub that answers while the block runs."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Answers", (Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


class Handler(BaseHTTPRequestHandler):
    """One request: `ROUTES` says which method answers it."""

    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None:
        """Keep quiet."""

    def do_GET(self) -> None:
        self._route()

    def do_HEAD(self) -> None:
        self._route()

    def do_POST(self) -> None:
        self._route()

    def do_PUT(self) -> None:
        self._route()

    def _route(self) -> None:
        path = self.path.partition("?")[0]
        self.hub.requests.append((self.command, self.path, "Authorization" in self.headers))
        for method, pattern, answer in ROUTES:
            match = re.fullmatch(pattern, path)
            if match and method == self.command:
                return self._answer_with(answer, match.groups())
        self._json(404, {"error": "no such route"})

    def _answer_with(self, answer: Callable[..., None], groups: tuple[str, ...]) -> None:
        name = answer.__name__
        if name in self.hub.cuts:
            self.hub.cuts.remove(name)
            self.rfile.read(int(self.headers.get("Content-Length") or 0) // 2)
            return self._cut()
        body = self._body()
        # A storage's address is signed instead; the token is none of its business. Data sets may be public.
        free = name == "store" or (name.startswith("dataset") and "Authorization" not in self.headers)
        if not free and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            said = f"Invalid credentials: {self.headers.get('Authorization')}"
            return self._json(401, {"error": said}, {"X-Error-Message": said})
        answer(self, body, *groups)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _cut(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def _json(self, status: int, value: Any, headers: dict[str, str] | None = None) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        for key, text in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(key, text)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def whoami(self, body: bytes) -> None:
        self._json(200, {"name": "someone", "auth": {"accessToken": {"displayName": "t", "role": self.hub.role}}})

    def create(self, body: bytes) -> None:
        asked = json.loads(body)
        space = "spaces/" if asked.get("type") == "space" else ""
        repo = f"{space}{asked['organization']}/{asked['name']}"
        answer = {"url": f"{self.hub.url}/{repo}", "id": repo, "name": repo}
        if asked["organization"] != self.hub.writable:
            said = f"You don't have the rights to create a model under the namespace {asked['organization']!r}"
            said += f" with {self.headers.get('Authorization')}"  # as careless as a server can be
            return self._json(403, {"error": said}, {"X-Error-Message": said})
        if repo in self.hub.repositories:
            return self._json(409, {**answer, "error": "You already created this model repo"})
        self.hub.repositories[repo] = Repository(asked.get("visibility") == "private", asked.get("sdk"))
        self._json(200, answer)

    def info(self, body: bytes, repo: str) -> None:
        found = self.hub.repositories.get(repo)
        if found is None:
            return self._json(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
        self._json(200, {"id": repo, "modelId": repo, "private": found.private, "sha": oid(len(found.commits))})

    def validate(self, body: bytes) -> None:
        self.hub.cards.append(json.loads(body)["content"])
        self._json(200, {"errors": [], "warnings": []})

    def preupload(self, body: bytes, repo: str) -> None:
        found = self.hub.repositories[repo]
        answers = []
        for file in json.loads(body)["files"]:
            path = file["path"]
            answer = {"path": path, "shouldIgnore": False, "uploadMode": "regular"}
            if path.endswith(LFS_SUFFIXES):
                answer["uploadMode"] = "lfs"
            if path in found.files:
                data = found.files[path]
                git = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
                answer["oid"] = hashlib.sha256(data).hexdigest() if path in found.lfs else git
            answers.append(answer)
        self._json(200, {"files": answers})

    def batch(self, body: bytes, repo: str) -> None:
        objects = json.loads(body)["objects"]
        for item in objects:
            if item["oid"] not in self.hub.storage:
                item["actions"] = {"upload": {"href": f"{self.hub.url}/storage/{item['oid']}?{SIGNATURE}"}}
        self._json(200, {"transfer": "basic", "objects": objects})

    def store(self, body: bytes, sha256: str) -> None:
        if self.hub.storage_full:
            return self._json(403, {"error": "Storage limit reached"})
        if hashlib.sha256(body).hexdigest() != sha256:
            return self._json(400, {"error": "another content was announced"})
        self.hub.storage[sha256] = body
        self._json(200, {})

    def commit(self, body: bytes, repo: str) -> None:
        found = self.hub.repositories[repo]
        _, *entries = [json.loads(line) for line in body.splitlines()]
        for entry in entries:
            value = entry["value"]
            if entry["key"] == "lfsFile":
                found.files[value["path"]] = self.hub.storage[value["oid"]]
                found.lfs.add(value["path"])
            else:
                found.files[value["path"]] = base64.b64decode(value["content"])
        found.commits.append([entry["value"]["path"] for entry in entries])
        if "commit answer" in self.hub.cuts:
            self.hub.cuts.remove("commit answer")
            return self._cut()
        made = oid(len(found.commits))
        self._json(200, {"commitUrl": f"{self.hub.url}/{repo}/commit/{made}", "commitOid": made})

    def dataset_info(self, body: bytes, repo: str, revision: str | None) -> None:
        found = self._dataset(repo, revision or "main")
        if found:
            files = [{"rfilename": name} for name in found[1]]
            self._json(200, {"id": repo, "sha": found[0], "private": False, "siblings": files})

    def dataset_tree(self, body: bytes, repo: str, revision: str) -> None:
        found = self._dataset(repo, revision)
        if found:
            entries = [
                {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                for name, data in found[1].items()
            ]
            self._json(200, entries)

    def dataset_file(self, body: bytes, repo: str, revision: str, name: str) -> None:
        found = self._dataset(repo, revision)
        if found is None:
            return
        if self.hub.datasets[repo].gated and "Authorization" not in self.headers:
            said = {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access is restricted. You must log in."}
            return self._json(401, {"error": "restricted"}, said)
        data = found[1][unquote(name)]
        self.send_response(200)
        for key, value in {
            "ETag": f'"{hashlib.sha1(data).hexdigest()}"',
            "X-Repo-Commit": found[0],
            "Content-Length": str(len(data)),
        }.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _dataset(self, repo: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        """Return a data set's commit and files; answer 404 and return None where there are none to see."""
        found = self.hub.datasets.get(repo)
        if found is None or (found.private and "Authorization" not in self.headers):
            self._json(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
            return None
        commit = found.commit(unquote(revision))
        if commit is None:
            self._json(404, {"error": f"Invalid rev id: {revision}"}, {"X-Error-Code": "RevisionNotFound"})
            return None
        return commit, found.files(commit)


def commit_of(files: dict[str, bytes]) -> str:
    """The name of a commit by its content."""
    return hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()


def oid(number: int) -> str:
    """The name of a repository's commit by its number."""
    return hashlib.sha1(str(number).encode()).hexdigest()


REPO = r"((?:spaces/)?[\w.-]+/[\w.-]+)"
"""A model's name, or a Space's after `spaces/`."""
API = rf"/api/(?:models/|(?=spaces/)){REPO}"
ROUTES = [
    ("GET", "/api/whoami-v2", Handler.whoami),
    ("POST", "/api/repos/create", Handler.create),
    ("POST", "/api/validate-yaml", Handler.validate),
    ("GET", rf"{API}(?:/revision/main)?", Handler.info),
    ("POST", rf"{API}/preupload/main", Handler.preupload),
    ("POST", rf"/{REPO}\.git/info/lfs/objects/batch", Handler.batch),
    ("PUT", r"/storage/([0-9a-f]{64})", Handler.store),
    ("POST", rf"{API}/commit/main", Handler.commit),
    ("GET", rf"/api/datasets/{REPO}(?:/revision/([^/]+))?", Handler.dataset_info),
    ("GET", rf"/api/datasets/{REPO}/tree/([^/]+)", Handler.dataset_tree),
    ("GET", rf"/datasets/{REPO}/resolve/([^/]+)/(.+)", Handler.dataset_file),
    ("HEAD", rf"/datasets/{REPO}/resolve/([^/]+)/(.+)", Handler.dataset_file),
]
