"""Receivers of alerts on this machine: one for webhooks, one for mail."""

import contextlib
import email
import email.policy
import json
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

from aiosmtpd.controller import Controller


@contextlib.contextmanager
def webhook(refusals=0):
    """A webhook receiver: ``port``, ``got`` (JSON bodies) and ``refusals``, how many it still refuses."""
    one = SimpleNamespace(got=[], refusals=refusals)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if one.refusals > 0:
                one.refusals -= 1
                self.send_response(503)
            else:
                one.got.append(json.loads(body))
                self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        one.port = server.server_address[1]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield one
        finally:
            server.shutdown()


@contextlib.contextmanager
def mailbox():
    """A mail server: ``port`` and ``got``, for each mail its subject and text."""
    one = SimpleNamespace(got=[], port=free_port())

    class Handler:
        async def handle_DATA(self, _server, _session, envelope):
            message = email.message_from_bytes(envelope.content, policy=email.policy.default)
            text = message.get_body(("plain",)).get_content()
            one.got.append({"title": message["Subject"], "message": text, "to": envelope.rcpt_tos})
            return "250 OK"

    controller = Controller(Handler(), hostname="127.0.0.1", port=one.port)
    controller.start()
    try:
        yield one
    finally:
        controller.stop()


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def awaited(find, what, patience=120.0):
    """Return what ``find`` finds, once it finds something."""
    deadline = time.monotonic() + patience
    while True:
        found = find()
        if found:
            return found
        assert time.monotonic() < deadline, f"{what}: not within {patience:.0f} s"
        time.sleep(0.25)
