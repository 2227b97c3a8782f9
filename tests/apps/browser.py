"""A page in headless Chromium: served from here, told what to do in job.json, heard when it posts its answer."""

from __future__ import annotations

import json
import mimetypes
import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

PAGES = Path(__file__).with_name("pages")
# SharedArrayBuffer, and with it WebAssembly's threads, wants a page that no other site can reach into.
ISOLATED = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
}
TYPES = {".mjs": "text/javascript", ".js": "text/javascript", ".wasm": "application/wasm"}
PAGE = """<!doctype html><meta charset="utf-8"><script type="importmap">{imports}</script>
<script type="module">
const answer = (value) => fetch("/answer", {{method: "POST", body: JSON.stringify(value)}});
try {{
  const job = await (await fetch("/job.json")).json();
  const page = await import("/pages/{page}.js");
  await answer({{value: await page.run(job)}});
}} catch (error) {{
  await answer({{error: String(error && error.stack || error)}});
}}
</script>"""


class Site:
    """What one test serves: ``/pages``, ``/node_modules``, a bundle at ``/bundle/``, and the job."""

    def __init__(self, modules: Path, bundle: Path, imports: Mapping[str, str], page: str, job: Any) -> None:
        self.roots = {"pages": PAGES, "node_modules": modules, "bundle": bundle}
        self.texts = {
            "/": PAGE.format(imports=json.dumps({"imports": imports}), page=page),
            "/job.json": json.dumps(job),
        }
        self.answer: dict[str, Any] = {}
        self.answered = threading.Event()
        self.asked: list[str] = []

    def file(self, path: str) -> Path | None:
        """The file of an address below one of the roots."""
        root, _, rest = path.lstrip("/").partition("/")
        found = self.roots.get(root, PAGES) / rest
        return found if root in self.roots and ".." not in rest and found.is_file() else None


@contextmanager
def serving(site: Site) -> Iterator[str]:
    """The site's address while it is served."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            site.asked.append(path)
            if path in site.texts:
                kind = "application/json" if path.endswith(".json") else "text/html"
                self._send(200, kind, site.texts[path].encode())
            elif (file := site.file(path)) is not None:
                kind = TYPES.get(file.suffix) or mimetypes.guess_type(file.name)[0]
                self._send(200, kind or "application/octet-stream", file.read_bytes())
            else:
                self._send(404, "text/plain", b"")

        do_HEAD = do_GET

        def do_POST(self) -> None:
            site.answer = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self._send(200, "text/plain", b"")
            site.answered.set()

        def _send(self, status: int, kind: str, content: bytes) -> None:
            self.send_response(status)
            headers = {"Content-Type": kind, "Content-Length": str(len(content)), **ISOLATED}
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        def log_message(self, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/"
    finally:
        server.shutdown()
        server.server_close()


def ask(chromium: Path, site: Site, seconds: float = 150) -> Any:
    """Open the page and wait for its answer; an error in the page, or none, is an AssertionError."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile, serving(site) as address:
        command = [str(chromium), f"--user-data-dir={profile}", address]
        process = subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        try:
            ends = time.monotonic() + seconds
            while not site.answered.wait(0.2):
                assert process.poll() is None, f"Chromium ended: {process.stderr.read()[-2000:]!r}"
                assert time.monotonic() < ends, f"no answer in {seconds:.0f} s; asked for {site.asked[-5:]}"
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    assert "error" not in site.answer, site.answer["error"]
    return site.answer["value"]
