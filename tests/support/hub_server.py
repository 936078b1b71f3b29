"""A Hub on loopback: as much of its HTTP API as huggingface_hub's client speaks when it pushes a model.

Who is it, make a repository, check a card, how to upload each file, LFS's batch and storage, commit. A test can have it
refuse the token, or cut the connection once at a named stage.
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
class Hub:
    """What the server knows and what it was asked; `cuts` names the stages whose connection breaks, each once."""

    url: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
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
        # A storage's address is signed instead; the token is none of its business.
        if name != "store" and self.headers.get("Authorization") != f"Bearer {TOKEN}":
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
]
