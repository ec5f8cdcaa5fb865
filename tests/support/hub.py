"""An imitation of the Hugging Face hub: the parts of its HTTP interface that downloads, uploads and faults need."""

import base64
import hashlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

Files = dict[str, bytes]
TOKEN = "hf_secret"  # the one that may write, and read what is private


@dataclass
class Repository:
    """Commits (hash to files), and branches (name to hash)."""

    private: bool = False
    commits: dict[str, Files] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)

    def commit(self, files: Files, branch: str = "main") -> str:
        text = json.dumps([branch, *sorted((name, _sum(data)) for name, data in files.items())])
        number = f"{len(self.commits)}{hashlib.sha1(text.encode()).hexdigest()}"[:40]
        self.commits[number] = dict(files)
        self.branches[branch] = number
        return number

    def at(self, revision: str) -> str | None:
        return self.branches.get(revision, revision if revision in self.commits else None)


@dataclass
class Hub:
    """A server's repositories, and what it does wrong.

    Attributes:
        address: of the server.
        repositories: by ORG/NAME.
        requests: methods and paths, in order.
        truncated: names of files of which only a half is sent.
        garbled: names of files that are sent with other bytes of the same number.
        broken: answer every request with status 500.
        objects: uploaded large files, by their SHA-256.
        messages: of commits.
        large: suffixes of files that are not sent within a commit.
    """

    address: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    truncated: set[str] = field(default_factory=set)
    garbled: set[str] = field(default_factory=set)
    broken: bool = False
    objects: dict[str, bytes] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)
    large: tuple[str, ...] = (".safetensors", ".png", ".jpg")

    def create(self, name: str, files: Files, **options) -> Repository:
        self.repositories[name] = Repository(**options)
        self.repositories[name].commit(files)
        return self.repositories[name]


def _sum(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub

    def log_message(self, *_):
        """Say nothing."""

    def do_HEAD(self):
        self._answer()

    def do_GET(self):
        self._answer()

    def do_POST(self):
        self._answer()

    def do_PUT(self):
        self._answer()

    def _answer(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = urlsplit(self.path).path.strip("/")
        self.hub.requests.append(f"{self.command} {path}")
        parts = list(map(unquote, path.split("/")))
        if self.hub.broken:
            return self._send(500, b"")
        if parts[:2] == ["api", "repos"]:
            return self._create(json.loads(body))
        if parts[0] == "api" and parts[1] == "models":
            return self._api("/".join(parts[2:4]), parts[4:], body)
        if parts[:2] == ["api", "validate-yaml"]:
            return self._json({"errors": [], "warnings": []})
        if parts[0] == "objects":
            self.hub.objects[parts[1]] = body
            return self._send(200, b"")
        if parts[2:] == ["info", "lfs", "objects", "batch"]:
            asked = json.loads(body)["objects"]
            return self._json({"objects": [{**one, **self._place(one["oid"])} for one in asked], "transfer": "basic"})
        if len(parts) == 5 and parts[2] == "resolve":
            return self._file("/".join(parts[:2]), parts[3], parts[4])
        return self._send(404, b"")

    @property
    def _known(self):
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _place(self, oid):
        if oid in self.hub.objects:
            return {}
        return {"actions": {"upload": {"href": f"{self.hub.address}/objects/{oid}"}}}

    def _create(self, asked):
        if not self._known:
            return self._send(401, b"{}")
        name = "/".join(filter(None, (asked.get("organization") or asked.get("namespace"), asked["name"])))
        if name in self.hub.repositories:
            return self._json({"error": "exists", "url": f"{self.hub.address}/{name}"}, 409)
        self.hub.repositories[name] = made = Repository(
            bool(asked.get("private") or asked.get("visibility") == "private")
        )
        made.commit({})
        return self._json({"url": f"{self.hub.address}/{name}"})

    def _api(self, name, parts, body):
        repository = self.hub.repositories.get(name)
        if repository is None:
            return self._fault("RepoNotFound")
        if self.command == "GET":
            return self._json({"id": name, "private": repository.private, "sha": repository.branches["main"]})
        if not self._known:
            return self._send(403, b"{}")
        if parts[0] == "branch":
            if parts[1] in repository.branches:
                return self._send(409, b"{}")
            repository.branches[parts[1]] = repository.branches["main"]
            return self._send(200, b"{}")
        if repository.at(parts[1]) is None:
            return self._fault("RevisionNotFound")
        if parts[0] == "preupload":
            modes = [self._mode(file["path"]) for file in json.loads(body)["files"]]
            return self._json({"files": modes})
        files = dict(repository.commits[repository.at(parts[1])])
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "header":
                self.hub.messages.append(value["summary"])
            elif line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.objects[value["oid"]]
        number = repository.commit(files, parts[1])
        return self._json({"commitUrl": f"{self.hub.address}/{name}/commit/{number}", "commitOid": number})

    def _mode(self, path):
        mode = "lfs" if path.endswith(self.hub.large) else "regular"
        return {"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": None}

    def _file(self, name, revision, path):
        repository = self.hub.repositories.get(name)
        if repository is None or (repository.private and not self._known):
            return self._fault("RepoNotFound", 401)
        number = repository.at(revision)
        if number is None:
            return self._fault("RevisionNotFound")
        data = repository.commits[number].get(path)
        if data is None:
            return self._fault("EntryNotFound", commit=number)
        etag = _sum(data)
        if self.command == "GET" and path in self.hub.garbled:
            data = bytes(byte ^ 1 for byte in data)
        if self.command == "GET" and path in self.hub.truncated:
            data = data[: len(data) // 2]
        return self._send(200, data, {"X-Repo-Commit": number, "ETag": f'"{etag}"'})

    def _fault(self, code, status=404, commit=None):
        return self._send(status, b"", {"X-Error-Code": code, **({"X-Repo-Commit": commit} if commit else {})})

    def _json(self, content, status=200):
        return self._send(status, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def _send(self, status, data, headers=None):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


@contextmanager
def serve() -> Iterator[Hub]:
    """A hub on this machine, until the block ends."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def in_place(folder: Path) -> Iterator[Hub]:
    """A hub in place of the real one: an empty cache in `folder`, no token, no waiting between attempts."""
    constants = pytest.importorskip("huggingface_hub").constants
    with serve() as hub, pytest.MonkeyPatch.context() as patch:
        template = hub.address + "/{repo_id}/resolve/{revision}/{filename}"
        patch.setattr(constants, "ENDPOINT", hub.address)
        patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        patch.setattr(constants, "HF_HUB_CACHE", str(folder / "cache"))
        patch.setattr(constants, "HF_TOKEN_PATH", str(folder / "token"))
        patch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        patch.delenv("HF_TOKEN", raising=False)
        patch.setattr(time, "sleep", lambda seconds: None)
        yield hub
