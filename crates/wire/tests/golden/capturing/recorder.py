"""A service that answers what it was told to answer, and keeps what it was asked."""

import contextlib
import json
import os
import sys
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

MASKED = str(Path(__file__).parent / "masked")


class Recorder:
    """Clients reach it as `http://localhost:5000`, which they know by themselves, because it is their proxy.

    Its environment is also that of the programs which a part starts.
    """

    def __init__(self):
        recorder = self
        self.asked = []
        self.answers = {}
        self.lock = threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self):
                target = urlsplit(self.path)
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                status, content = recorder.take(self.command, target, body, self.headers)
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_PUT = do_DELETE = answer

            def log_message(self, *arguments):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.environment = {
            "GLOBUS_SDK_ENVIRONMENT": "local",
            "GLOBUS_SDK_SERVICE_URL_AUTH": "http://localhost:5000/",
            "http_proxy": f"http://127.0.0.1:{self.server.server_port}",
            "PYTHONPATH": MASKED,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "GLOBUS_COMPUTE_USER_DIR": tempfile.mkdtemp(prefix="capture-"),
        }
        for name in ("no_proxy", "NO_PROXY"):
            os.environ.pop(name, None)
        os.environ.update(self.environment)
        sys.path.insert(0, MASKED)
        import sitecustomize  # noqa: F401

    def will(self, method, path, answer, status=200):
        """Answers so from now on. A list of `(status, answer)` is used up but for its last."""
        answers = answer if isinstance(answer, Answers) else Answers([(status, answer)])
        self.answers[method, path] = answers

    def take(self, method, target, body, headers):
        with self.lock:
            self.asked.append(Asked(method, target.path, target.query, body, headers))
            answers = self.answers.get((method, target.path))
            if answers is None:
                print(f"nobody said what to answer to {method} {target.path}")
                return 404, b'{"code": "UNKNOWN_ERROR", "message": "not expected"}'
            status, answer = answers.pop(0) if len(answers) > 1 else answers[0]
            return status, json.dumps(answer).encode()

    @contextlib.contextmanager
    def asking(self):
        """The list of what is asked within."""
        with self.lock:
            start = len(self.asked)
        heard = []
        yield heard
        with self.lock:
            heard.extend(self.asked[start:])

    def close(self):
        self.server.shutdown()


class Answers(list):
    pass


class Asked:
    def __init__(self, method, path, query, body, headers):
        self.method = method
        self.path = path
        self.query = query
        self.body = body
        self.content_type = headers.get("Content-Type", "")

    def __repr__(self):
        return f"{self.method} {self.path}?{self.query} {self.content_type} {self.body[:2000]!r}"


def document(value):
    """An answer as it is kept: as it was sent, in one line."""
    return json.dumps(value).encode()
