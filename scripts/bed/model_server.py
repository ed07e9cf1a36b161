# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A model that proves what it was sent: it echoes the last user text, and recalls the earlier ones when asked to.

OpenAI-compatible: /v1/models, /v1/chat/completions and /v1/responses, streaming or not. The answer depends on the
request alone. Asked to "recall", it lists every earlier user text of the conversation that it was given.
"""

from __future__ import annotations

import argparse
import hashlib
import http.server
import json
import pathlib
import socket
import threading
import time
import typing as t

MODEL = "stub"
Json = dict[str, t.Any]


def text_of(content: t.Any) -> str:
    """The text of a message's content, which is a string or a list of parts."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "\n".join(part.get("text") or "" for part in parts if isinstance(part, dict)).strip()


# OpenClaw adds turns of its own in the name of the user.
BY_THE_MACHINE = "<<<BEGIN_OPENCLAW_INTERNAL_CONTEXT>>>"


def user_texts(body: Json) -> list[str]:
    """What the user said, oldest first, in either API's form."""
    messages: t.Any = body.get("messages", body.get("input")) or []
    if isinstance(messages, str):
        return [messages]
    texts = [text_of(one.get("content")) for one in messages if isinstance(one, dict) and one.get("role") == "user"]
    return [text for text in texts if not text.startswith(BY_THE_MACHINE)]


def answer(body: Json) -> str:
    """The whole intelligence of this model."""
    *earlier, last = user_texts(body) or [""]
    if "recall" not in last.lower():
        return f"echo: {last}"
    return "\n".join([f"recalled {len(earlier)}:", *(f"{number}. {text}" for number, text in enumerate(earlier, 1))])


def usage(body: Json, text: str) -> tuple[int, int]:
    """Token counts, four characters each."""
    return sum(map(len, user_texts(body))) // 4 + 1, len(text) // 4 + 1


def chat(body: Json, ident: str) -> tuple[Json, list[tuple[str, Json]]]:
    """The chat completion, whole and as events."""
    text = answer(body)
    sent, made = usage(body, text)
    base: Json = {"id": f"chatcmpl-{ident}", "created": 1700000000, "model": body.get("model", MODEL)}
    count = {"prompt_tokens": sent, "completion_tokens": made, "total_tokens": sent + made}
    message = {"role": "assistant", "content": text}
    whole = {"index": 0, "message": message, "finish_reason": "stop"}

    def chunk(delta: Json, finish: str | None) -> Json:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return {**base, "object": "chat.completion.chunk", "choices": [choice]}

    events = [chunk({"role": "assistant", "content": ""}, None)]
    events += [chunk({"content": piece}, None) for piece in pieces(text)]
    events += [chunk({}, "stop"), {**base, "object": "chat.completion.chunk", "choices": [], "usage": count}]
    reply = {**base, "object": "chat.completion", "choices": [whole], "usage": count}
    return reply, [("", event) for event in events]


def respond(body: Json, ident: str) -> tuple[Json, list[tuple[str, Json]]]:
    """The response of the newer API, whole and as events."""
    text = answer(body)
    sent, made = usage(body, text)
    part = {"type": "output_text", "text": text, "annotations": []}
    item: Json = {"type": "message", "id": f"msg_{ident}", "role": "assistant"}
    item |= {"status": "completed", "content": [part]}
    base: Json = {"id": f"resp_{ident}", "object": "response", "created_at": 1700000000, "error": None}
    base |= {"model": body.get("model", MODEL), "status": "in_progress", "output": []}
    count = {"input_tokens": sent, "output_tokens": made, "total_tokens": sent + made}
    done = {**base, "status": "completed", "output": [item], "usage": count}
    here = {"item_id": item["id"], "output_index": 0, "content_index": 0}
    events: list[Json] = [
        {"type": "response.created", "response": base},
        {"type": "response.in_progress", "response": base},
        {
            "type": "response.output_item.added",
            "output_index": 0,
            "item": {**item, "status": "in_progress", "content": []},
        },
        {"type": "response.content_part.added", **here, "part": {**part, "text": ""}},
        *({"type": "response.output_text.delta", **here, "delta": piece} for piece in pieces(text)),
        {"type": "response.output_text.done", **here, "text": text},
        {"type": "response.content_part.done", **here, "part": part},
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": "response.completed", "response": done},
    ]
    return done, [(event["type"], {**event, "sequence_number": number}) for number, event in enumerate(events)]


def pieces(text: str) -> t.Iterator[str]:
    """The text in the bites of a stream."""
    return (text[start : start + 40] for start in range(0, len(text), 40))


APIS = {"/v1/chat/completions": chat, "/v1/responses": respond}


class Handler(http.server.BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    journal: pathlib.Path
    writing = threading.Lock()

    def do_GET(self) -> None:
        """The list of models, and health."""
        if self.path == "/v1/models":
            self.reply(200, {"object": "list", "data": [{"id": MODEL, "object": "model", "owned_by": "clawops"}]})
        elif self.path == "/healthz":
            self.reply(200, {"ok": True})
        else:
            self.refuse(404, f"no such path: {self.path}")

    def do_POST(self) -> None:
        """A turn."""
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        api = APIS.get(self.path)
        if not api:
            return self.refuse(404, f"no such path: {self.path}")
        try:
            body = json.loads(raw)
        except ValueError:
            body = None
        if not isinstance(body, dict):
            return self.refuse(400, "the body is not a JSON object")
        self.note(body)
        whole, events = api(body, hashlib.sha256(raw).hexdigest()[:24])
        if not body.get("stream"):
            return self.reply(200, whole)
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        for name, event in events:
            head = f"event: {name}\n" if name else ""
            self.wfile.write(f"{head}data: {json.dumps(event)}\n\n".encode())
        if api is chat:
            self.wfile.write(b"data: [DONE]\n\n")
        self.close_connection = True
        return None

    def refuse(self, code: int, message: str) -> None:
        """An error in the API's form."""
        self.reply(code, {"error": {"message": message, "type": "invalid_request_error", "code": code}})

    def reply(self, code: int, body: Json) -> None:
        """One JSON answer."""
        data = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def note(self, body: Json) -> None:
        """A line in the journal; of the key only what recognises it."""
        key = self.headers.get("Authorization", "")
        texts = user_texts(body)
        line: Json = {"time": time.time(), "client": self.client_address[0], "path": self.path}
        line |= {"model": body.get("model"), "stream": bool(body.get("stream")), "turns": len(texts)}
        line |= {"last": (texts or [""])[-1][:500], "key_sha256": hashlib.sha256(key.encode()).hexdigest()[:12]}
        with self.writing, self.journal.open("a") as out:
            out.write(json.dumps(line) + "\n")

    def log_message(self, format: str, *args: t.Any) -> None:
        """The journal says enough."""


class Server(http.server.ThreadingHTTPServer):
    """A server on a socket that is there already."""

    daemon_threads = True

    def __init__(self, listener: socket.socket) -> None:
        super().__init__(listener.getsockname()[:2], Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--listen", required=True, help="address:port")
    parser.add_argument("--inherit", type=int, help="descriptor of one more listening socket")
    parser.add_argument("--log", required=True, type=pathlib.Path, help="journal of requests, JSON lines")
    args = parser.parse_args()
    Handler.journal = args.log
    host, port = args.listen.rsplit(":", 1)
    listeners = [socket.create_server((host, int(port)))]
    if args.inherit is not None:
        listeners.append(socket.socket(fileno=args.inherit))
    threads = [threading.Thread(target=Server(listener).serve_forever) for listener in listeners]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
