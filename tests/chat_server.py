"""A small server of the OpenAI chat protocol for tests: it answers as told, and can misbehave."""

import json
import socket
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class ChatServer:
    """Answers a request with `answer(messages)`; `faults` are used up one a request.

    A fault is a status, `hang`, `drop`, `cut` (half a body), `page`, `nonsense`, `empty` or `null`.
    """

    def __init__(self, answer):
        self.answer, self.faults, self.seen, self.headers = answer, [], [], []
        self.hang, self.lock = 0.6, threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                server.serve(self, body)

            def log_message(self, *args):
                pass

        self.httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.httpd.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.httpd.server_port}/v1"

    @contextmanager
    def running(self):
        """Serve within the block."""
        threading.Thread(target=self.httpd.serve_forever, args=(0.02,), daemon=True).start()
        try:
            yield self
        finally:
            self.httpd.shutdown()
            self.httpd.server_close()

    def serve(self, handler, body):
        """Misbehave as told, else answer."""
        with self.lock:
            assert handler.path == "/v1/chat/completions" and body["messages"]
            self.seen.append(body)
            self.headers.append(dict(handler.headers))
            fault = self.faults.pop(0) if self.faults else None
        try:
            if fault == "drop":
                handler.connection.shutdown(socket.SHUT_RDWR)
                return
            if fault == "hang":
                time.sleep(self.hang)
            self.send(handler, *self.found(body, fault))
            if fault == "cut":
                handler.connection.shutdown(socket.SHUT_RDWR)
        except (BrokenPipeError, ConnectionError):
            pass  # the client gave up

    def found(self, body, fault):
        """Status, body, and how many bytes of it are sent."""
        if isinstance(fault, int):
            return fault, json.dumps({"error": {"message": "out of luck"}}), None
        if fault == "page":
            return 200, "<html>hello", None
        if fault == "nonsense":
            return 200, json.dumps({"choices": [{"message": 3}]}), None
        text = {"empty": "  ", "null": None}.get(fault, 0)
        text = self.answer(body["messages"]) if text == 0 else text
        choice = {"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 11, "completion_tokens": 7}
        whole = json.dumps({"choices": [choice], "usage": usage})
        return 200, whole, len(whole) // 2 if fault == "cut" else None

    @staticmethod
    def send(handler, status, text, sent):
        data = text.encode()
        handler.send_response(status)
        handler.send_header("content-type", "application/json")
        handler.send_header("content-length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data[:sent])
        handler.wfile.flush()
