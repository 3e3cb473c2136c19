"""A small Hugging Face Hub on this machine: the endpoints that pushing and downloading use."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlparse

TOKEN = "hf_alice"
READ_TOKEN = "hf_reader"


class Repo:
    """A repository: its commits by hash, and the commit of each branch."""

    def __init__(self, private: bool = False) -> None:
        self.private = private
        self.commits: dict[str, dict[str, bytes]] = {}
        self.branches: dict[str, str] = {}
        self.commit({}, "main")

    def commit(self, files: dict[str, bytes], branch: str = "main") -> str:
        """Store files as the newest commit of a branch."""
        digest = hashlib.sha1(f"{len(self.commits)} {branch}".encode())
        sha = digest.hexdigest()
        self.commits[sha] = files
        self.branches[branch] = sha
        return sha

    def files(self, revision: str) -> tuple[str, dict[str, bytes]] | None:
        """Return the commit and the files of a branch or a commit."""
        sha = self.branches.get(revision, revision)
        return (sha, self.commits[sha]) if sha in self.commits else None


class Hub:
    """The state of the server.

    Attributes:
        repos: repositories by ``user/name``.
        downloaded: paths of the files that were sent.
        sizes: sizes to report instead of the real ones, by file.
        siblings: names to list beside the real files.
    """

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.downloaded: list[str] = []
        self.sizes: dict[str, int] = {}
        self.siblings: list[str] = []
        self.url = ""


@contextmanager
def serving() -> Iterator[Hub]:
    """Serve a hub on a free port of this machine."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), lambda *a: Handler(hub, *a))
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Handler(BaseHTTPRequestHandler):
    """Answers one connection."""

    protocol_version = "HTTP/1.1"

    def __init__(self, hub: Hub, *arguments) -> None:
        self.hub = hub
        super().__init__(*arguments)

    def log_message(self, *arguments) -> None:
        """Print nothing."""

    def do_HEAD(self) -> None:
        """Describe a file."""
        self.do_GET()

    def do_GET(self) -> None:
        """Answer questions about repositories, and send files."""
        words = self.words()
        if words[:2] == ["api", "models"]:
            repo = self.readable("/".join(words[2:4]))
            if repo is not None:
                self.describe(repo, words[4:])
        elif len(words) > 4 and words[2] == "resolve":
            repo = self.readable("/".join(words[:2]))
            if repo is not None:
                self.send_file(repo, words[3], "/".join(words[4:]))
        else:
            self.answer(404, {"error": f"no such endpoint: {self.path}"})

    def do_POST(self) -> None:
        """Create repositories and branches, and take commits."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        words = self.words()
        if words == ["api", "validate-yaml"]:
            self.answer(200, {"errors": [], "warnings": []})
        elif self.token() not in (TOKEN, READ_TOKEN):
            self.answer(401, {"error": "Invalid username or password."})
        elif self.token() == READ_TOKEN:
            self.answer(403, {"error": "You don't have the rights to write"})
        elif words == ["api", "repos", "create"]:
            self.create(json.loads(body))
        elif words[:2] == ["api", "models"] and "/".join(words[2:4]) in self.hub.repos:
            repo = self.hub.repos["/".join(words[2:4])]
            self.write(repo, words[4], unquote(words[5]), body)
        else:
            self.answer(404, {"error": "Repository not found"}, "RepoNotFound")

    def words(self) -> list[str]:
        """Split the path of the request."""
        return [unquote(word) for word in urlparse(self.path).path.strip("/").split("/")]

    def token(self) -> str:
        """Return the token of the request."""
        return self.headers.get("Authorization", "").removeprefix("Bearer ")

    def readable(self, name: str) -> Repo | None:
        """Find a repository, or answer that there is none, as the Hub does for private ones."""
        repo = self.hub.repos.get(name)
        if repo is None or (repo.private and self.token() not in (TOKEN, READ_TOKEN)):
            self.answer(401, {"error": "Repository not found"}, "RepoNotFound")
            return None
        return repo

    def create(self, body) -> None:
        """Create a repository."""
        name = f"{body.get('organization') or 'alice'}/{body['name']}"
        if name in self.hub.repos:
            self.answer(409, {"error": "exists", "url": f"{self.hub.url}/{name}"})
            return
        private = bool(body.get("private")) or body.get("visibility") == "private"
        self.hub.repos[name] = Repo(private)
        self.answer(200, {"url": f"{self.hub.url}/{name}"})

    def describe(self, repo: Repo, rest: list[str]) -> None:
        """Send the commit, the files and their sizes."""
        revision = rest[1] if len(rest) > 1 else "main"
        found = repo.files(revision)
        if found is None:
            self.answer(404, {"error": f"Invalid rev id: {revision}"}, "RevisionNotFound")
            return
        sha, files = found
        sizes = {name: self.hub.sizes.get(name, len(data)) for name, data in files.items()}
        sizes |= dict.fromkeys(self.hub.siblings, 1)
        if rest[:1] == ["tree"]:
            entries = [
                {"type": "file", "path": name, "size": size, "oid": "0" * 40}
                for name, size in sizes.items()
            ]
            self.answer(200, entries)
            return
        siblings = [{"rfilename": name, "size": size} for name, size in sizes.items()]
        name = next(key for key, value in self.hub.repos.items() if value is repo)
        content = {"id": name, "sha": sha, "private": repo.private, "siblings": siblings}
        self.answer(200, content)

    def send_file(self, repo: Repo, revision: str, name: str) -> None:
        """Send a file, or only its headers."""
        found = repo.files(revision)
        if found is None or name not in found[1]:
            self.answer(404, {"error": "Entry not found"}, "EntryNotFound")
            return
        sha, files = found
        if self.command == "GET":
            self.hub.downloaded.append(name)
        etag = hashlib.sha1(files[name]).hexdigest()
        headers = {"X-Repo-Commit": sha, "ETag": f'"{etag}"'}
        self.send(200, files[name], "application/octet-stream", headers)

    def write(self, repo: Repo, action: str, revision: str, body: bytes) -> None:
        """Take a commit, or what precedes it."""
        if action == "branch":
            repo.branches.setdefault(revision, repo.branches["main"])
            self.answer(200, {})
        elif action == "preupload":
            paths = [file["path"] for file in json.loads(body)["files"]]
            files = [{"path": p, "uploadMode": "regular", "shouldIgnore": False} for p in paths]
            self.answer(200, {"files": files})
        elif action == "commit":
            files = dict(repo.commits[repo.branches[revision]])
            for line in map(json.loads, body.splitlines()):
                value = line["value"]
                if line["key"] == "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "deletedFile":
                    del files[value["path"]]
            sha = repo.commit(files, revision)
            name = next(key for key, value in self.hub.repos.items() if value is repo)
            url = f"{self.hub.url}/{name}/commit/{sha}"
            self.answer(200, {"commitUrl": url, "commitOid": sha})

    def answer(self, status: int, content, code: str = "") -> None:
        """Send JSON, with the error code of the Hub."""
        headers = {"X-Error-Code": code} if code else {}
        self.send(status, json.dumps(content).encode(), "application/json", headers)

    def send(self, status: int, data: bytes, kind: str, headers: dict[str, str]) -> None:
        """Send an answer; its body is left out for HEAD."""
        self.send_response(status)
        for name, value in {"Content-Type": kind, **headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)
