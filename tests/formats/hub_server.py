"""A server on this machine that speaks as much of the Hub's protocol as fetching a model or a dataset takes: what a repo holds, and its files."""

import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

INFO = re.compile(r"/api/(?:models|datasets)/(?P<repo>[^/]+/[^/]+)/revision/(?P<revision>[^?]+)")
TREE = re.compile(r"/api/(?:models|datasets)/(?P<repo>[^/]+/[^/]+)/tree/(?P<revision>[^?]+)")
FILE = re.compile(r"/(?:datasets/)?(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<file>.+)")


@dataclass
class Hub:
    """What the server has. `listed` are names that are in a repo's list beside its files; `broken` files end after so many bytes;
    `asked` are the requests that came, `sent` how many bytes of each file went out."""

    repos: dict[str, Path] = field(default_factory=dict)
    revisions: dict[str, str] = field(default_factory=lambda: {"main": "1" * 40})
    gated: set[str] = field(default_factory=set)
    token: str = "hf_right"
    status: int = 200
    listed: list[str] = field(default_factory=list)
    broken: dict[str, int] = field(default_factory=dict)
    answer: bytes | None = None
    asked: list[str] = field(default_factory=list)
    sent: dict[str, int] = field(default_factory=dict)
    url: str = ""

    def commit(self, revision: str) -> str | None:
        return revision if revision in self.revisions.values() else self.revisions.get(revision)

    def files(self, repo: str) -> list[str]:
        root = self.repos[repo]
        return sorted(p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file())

    def fetched(self) -> set[str]:
        """The names of the files that were asked for."""
        return {found["file"] for line in self.asked if (found := FILE.fullmatch(line.split(" ", 1)[1]))}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self._do(True)

    def do_HEAD(self) -> None:
        self._do(False)

    def _do(self, body: bool) -> None:
        path = unquote(self.path)
        self.hub.asked.append(f"{self.command} {path}")
        if self.hub.status != 200:
            return self._say(self.hub.status, b"", {})
        if (found := INFO.fullmatch(path)) is not None:
            return self._info(found["repo"], found["revision"])
        if (found := TREE.fullmatch(path.partition("?")[0])) is not None:
            return self._tree(found["repo"], found["revision"])
        if (found := FILE.fullmatch(path)) is not None:
            return self._file(found["repo"], found["revision"], found["file"], body)
        return self._say(404, b"", {})

    def _refused(self, repo: str, revision: str) -> bool:
        if repo not in self.hub.repos:
            self._say(404, b"", {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"})
        elif repo in self.hub.gated and self.headers.get("Authorization") != f"Bearer {self.hub.token}":
            self._say(401, b"", {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access is restricted"})
        elif self.hub.commit(revision) is None:
            self._say(404, b"", {"X-Error-Code": "RevisionNotFound", "X-Error-Message": "Invalid rev id"})
        else:
            return False
        return True

    def _info(self, repo: str, revision: str) -> None:
        if self.hub.answer is not None:
            return self._say(200, self.hub.answer, {})
        if self._refused(repo, revision):
            return None
        names = [*self.hub.files(repo), *self.hub.listed]
        tree = {
            "id": repo,
            "modelId": repo,
            "sha": self.hub.commit(revision),
            "siblings": [{"rfilename": n} for n in names],
        }
        return self._say(200, json.dumps(tree).encode(), {"Content-Type": "application/json"})

    def _tree(self, repo: str, revision: str) -> None:
        if self._refused(repo, revision):
            return None
        files = [(n, (self.hub.repos[repo] / n).read_bytes()) for n in self.hub.files(repo)]
        tree = [
            {"type": "file", "path": n, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
            for n, data in files
        ]
        return self._say(200, json.dumps(tree).encode(), {"Content-Type": "application/json"})

    def _file(self, repo: str, revision: str, file: str, body: bool) -> None:
        if self._refused(repo, revision):
            return None
        commit = str(self.hub.commit(revision))
        if file not in self.hub.files(repo):
            return self._say(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
        data = (self.hub.repos[repo] / file).read_bytes()
        heads = {
            "ETag": f'"{hashlib.sha256(data).hexdigest()}"',
            "X-Repo-Commit": commit,
            "Accept-Ranges": "bytes",
        }
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        start = int(asked[1]) if asked else 0
        if start:
            heads["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        return self._say(206 if start else 200, data[start:], heads, body, file)

    def _say(
        self, status: int, data: bytes, heads: dict[str, str], body: bool = True, file: str = ""
    ) -> None:
        self.send_response(status)
        for key, value in (heads | {"Content-Length": str(len(data))}).items():
            self.send_header(key, value)
        self.end_headers()
        if not body:
            return
        if file in self.hub.broken:
            data = data[: max(0, self.hub.broken[file] - self.hub.sent.get(file, 0))]
            self.close_connection = True
        self.wfile.write(data)
        self.hub.sent[file] = self.hub.sent.get(file, 0) + len(data)


@contextlib.contextmanager
def hub_server(hub: Hub) -> Iterator[Hub]:
    """Run it in a thread; `hub.url` is where."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join(600)
