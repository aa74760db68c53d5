"""A Hub on this machine: the part of its HTTP API that huggingface_hub uses to read and to commit, in a thread.

    with Hub({"Org/Model": {"main": {"config.json": b"{}"}}}) as hub:
        subprocess.run([...], env=hub.env(tmp_path))

A commit's content arrives as it does there: small files inside the commit, large ones as LFS objects before it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any, Self
from urllib.parse import unquote, urlsplit

Files = dict[str, bytes]


class Hub:
    """Its repositories, and what it was asked.

    Attributes:
        repos: name -> branch -> files.
        commits: of each commit what was added and what deleted.
        asked: "METHOD /path" of every request.
        private: repositories that were created, and whether as private ones.
        objects: LFS objects that arrived, by their SHA-256.
        refuse: a pattern of requests that are answered with 403.
        meanwhile: files that somebody else commits to a main branch while another commit is prepared.
        stop_at: a pattern of a request that is answered once `go_on` is set; `stopped` is set when it came.
    """

    def __init__(self, repos: dict[str, dict[str, Files]] | None = None) -> None:
        self.repos = repos or {}
        self.commits: list[tuple[list[str], list[str]]] = []
        self.asked: list[str] = []
        self.private: dict[str, bool] = {}
        self.objects: dict[str, bytes] = {}
        self.refuse = self.stop_at = ""
        self.meanwhile: Files = {}
        self.stopped, self.go_on = Event(), Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def env(self, home: Path, **more: str) -> dict[str, str]:
        """The environment of a process that knows this Hub and a cache of its own."""
        plain = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "TRANSFORMERS_"))}
        return {
            **plain,
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_XET": "1",
            "HF_TOKEN": "hf_x",
            **more,
        }

    def sha(self, repo: str, revision: str) -> str:
        """The commit that a branch is at."""
        files = self.repos[repo][revision]
        text = json.dumps({name: hashlib.sha1(data).hexdigest() for name, data in files.items()})
        return hashlib.sha1(text.encode()).hexdigest()

    def at(self, repo: str, revision: str) -> Files | None:
        """The files of a branch or of the commit that it is at."""
        branches = self.repos.get(repo, {})
        return next((files for name, files in branches.items() if revision in (name, self.sha(repo, name))), None)

    def commit(self, repo: str, lines: list[dict[str, Any]]) -> None:
        """What one commit does, all of it or nothing."""
        files = dict(self.repos[repo]["main"])
        added, deleted = [], []
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
                added.append(value["path"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.objects[value["oid"]]
                added.append(value["path"])
            elif line["key"] == "deletedFile":
                del files[value["path"]]
                deleted.append(value["path"])
        self.repos[repo]["main"] = files
        self.commits.append((sorted(added), sorted(deleted)))


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def answer(self, code: int, document: Any = None, data: bytes | None = None, **headers: str) -> None:
            body = json.dumps(document).encode() if data is None else data
            self.send_response(code)
            headers = {"Content-Length": str(len(body)), **{k.replace("_", "-"): v for k, v in headers.items()}}
            for key, value in headers.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def serve(self) -> None:
            path = unquote(urlsplit(self.path).path)
            hub.asked.append(f"{self.command} {path}")
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if hub.refuse and re.search(hub.refuse, hub.asked[-1]):
                self.answer(403, {"error": "not allowed"}, X_Error_Message="not allowed")
                return
            if hub.stop_at and re.search(hub.stop_at, hub.asked[-1]):
                hub.stopped.set()
                hub.go_on.wait(60)
                self.close_connection = True
                return
            for pattern, method in ROUTES:
                if found := re.fullmatch(pattern, path):
                    method(self, body, *found.groups())
                    return
            self.answer(404, {"error": "no such page"})

        do_GET = do_HEAD = do_POST = do_PUT = serve

        def info(self, body: bytes, repo: str, revision: str | None) -> None:
            files = hub.at(repo, revision or "main")
            if repo not in hub.repos:
                self.answer(404, {}, X_Error_Code="RepoNotFound", X_Error_Message="Repository not found")
            elif files is None:
                self.answer(404, {}, X_Error_Code="RevisionNotFound", X_Error_Message="Invalid rev id")
            else:
                branch = next(name for name, held in hub.repos[repo].items() if held is files)
                listed = [{"rfilename": name, "size": len(data)} for name, data in files.items()]
                self.answer(200, {"id": repo, "sha": hub.sha(repo, branch), "siblings": listed})

        def tree(self, body: bytes, repo: str, revision: str) -> None:
            files = hub.at(repo, revision) or {}
            entries = [
                {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                for name, data in files.items()
            ]
            self.answer(200, entries)

        def file(self, body: bytes, repo: str, revision: str, name: str) -> None:
            files = hub.at(repo, revision) or {}
            if name not in files:
                self.answer(404, {}, X_Error_Code="EntryNotFound", X_Error_Message="Entry not found")
                return
            etag = f'"{hashlib.sha1(files[name]).hexdigest()}"'
            commit = next(hub.sha(repo, b) for b, held in hub.repos[repo].items() if held is files)
            self.answer(200, data=files[name], ETag=etag, X_Repo_Commit=commit)

        def whoami(self, body: bytes) -> None:
            self.answer(200, {"type": "user", "name": "me", "orgs": [], "auth": {}})

        def create(self, body: bytes) -> None:
            asked = json.loads(body)
            repo = f"{asked['organization']}/{asked['name']}"
            if repo in hub.repos:
                self.answer(409, {"error": "exists", "url": f"{hub.url}/{repo}"})
                return
            hub.repos[repo] = {"main": {".gitattributes": b""}}
            hub.private[repo] = asked.get("private", asked.get("visibility") == "private")
            self.answer(200, {"url": f"{hub.url}/{repo}"})

        def preupload(self, body: bytes, repo: str) -> None:
            files = json.loads(body)["files"]
            hub.repos[repo]["main"] |= hub.meanwhile
            modes = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                    "shouldIgnore": False,
                }
                for file in files
            ]
            self.answer(200, {"files": modes})

        def batch(self, body: bytes, repo: str) -> None:
            found = []
            for wanted in json.loads(body)["objects"]:
                action = {"upload": {"href": f"{hub.url}/lfs/{wanted['oid']}"}}
                known = wanted["oid"] in hub.objects
                found.append({"oid": wanted["oid"], "size": wanted["size"], **({} if known else {"actions": action})})
            self.answer(200, {"transfer": "basic", "objects": found})

        def upload(self, body: bytes, oid: str) -> None:
            assert hashlib.sha256(body).hexdigest() == oid
            hub.objects[oid] = body
            self.answer(200, {})

        def commit(self, body: bytes, repo: str) -> None:
            lines = [json.loads(line) for line in body.splitlines()]
            if lines[0]["value"].get("parentCommit") not in (None, hub.sha(repo, "main")):
                self.answer(412, {"error": "A commit has happened since."})
                return
            hub.commit(repo, lines[1:])
            at = hub.sha(repo, "main")
            self.answer(200, {"commitUrl": f"{hub.url}/{repo}/commit/{at}", "commitOid": at, "success": True})

    ROUTES = [
        (r"/api/models/([\w.-]+/[\w.-]+)(?:/revision/([^?]+))?", Handler.info),
        (r"/api/models/([\w.-]+/[\w.-]+)/tree/([^/]+)", Handler.tree),
        (r"/([\w.-]+/[\w.-]+)/resolve/([^/]+)/(.+)", Handler.file),
        (r"/api/whoami-v2", Handler.whoami),
        (r"/api/repos/create", Handler.create),
        (r"/api/models/([\w.-]+/[\w.-]+)/preupload/main", Handler.preupload),
        (r"/([\w.-]+/[\w.-]+)\.git/info/lfs/objects/batch", Handler.batch),
        (r"/lfs/(\w+)", Handler.upload),
        (r"/api/models/([\w.-]+/[\w.-]+)/commit/main", Handler.commit),
    ]
    return Handler
