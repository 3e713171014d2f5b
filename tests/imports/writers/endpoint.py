"""A model's endpoint on loopback that says what the shop's agent says, in the ways of OpenAI and Anthropic."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Value = dict[str, Any]


class Endpoint:
    """The server. `shop` holds the words (see shop_logs.words); `posted` is what was sent to any other path."""

    def __init__(self, shop: Value):
        self.shop = shop
        self.posted: list[tuple[str, bytes]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def do_GET(self) -> None:
                self.answer({})

            def do_PATCH(self) -> None:
                self.do_POST()

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                for end, reply in (
                    ("/chat/completions", outer.chat),
                    ("/responses", outer.responses),
                    ("/messages", outer.claude),
                ):
                    if self.path.endswith(end):
                        return self.answer(reply(json.loads(body)))
                outer.posted.append((self.path, body))
                self.answer({})

            def answer(self, value: Value) -> None:
                data = json.dumps(value).encode()
                self.send_response(200)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{server.server_port}"

    def said(self, turn: int, called: bool) -> tuple[str | None, list[int]]:
        """The reply and the numbers of the calls of the next action."""
        if called:
            return self.shop["replies"][turn], []
        return (None, [1, 2]) if not turn else ("One moment.", [3])

    def call(self, number: int) -> tuple[str, str, Value]:
        """Id, name and arguments of a call."""
        return f"call_{number}", "cancel_order" if number == 3 else "get_order", self.shop["arguments"][number - 1]

    def chat(self, request: Value) -> Value:
        messages = request["messages"]
        users = [i for i, message in enumerate(messages) if message["role"] == "user"]
        reply, numbers = self.said(len(users) - 1, users[-1] < len(messages) - 1)
        message: Value = {"role": "assistant", "content": reply}
        for id, name, given in map(self.call, numbers):
            function = {"name": name, "arguments": json.dumps(given)}
            message.setdefault("tool_calls", []).append({"id": id, "type": "function", "function": function})
        reason = "tool_calls" if numbers else "stop"
        usage = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
        choice = {"index": 0, "message": message, "finish_reason": reason}
        return {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": usage}

    def responses(self, request: Value) -> Value:
        items = request["input"]
        users = [i for i, item in enumerate(items) if item.get("role") == "user"]
        reply, numbers = self.said(len(users) - 1, users[-1] < len(items) - 1)
        output: list[Value] = []
        if numbers and len(users) == 1:
            summary = [{"type": "summary_text", "text": self.shop["thought"]}]
            output.append({"id": "rs", "type": "reasoning", "summary": summary})
        if reply:
            content = [{"type": "output_text", "text": reply, "annotations": []}]
            output.append(
                {"id": "m", "type": "message", "role": "assistant", "status": "completed", "content": content}
            )
        for id, name, given in map(self.call, numbers):
            one = {"id": f"fc_{id}", "type": "function_call", "call_id": id, "name": name, "status": "completed"}
            output.append(one | {"arguments": json.dumps(given)})
        details = {"input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 0}}
        usage = {"input_tokens": 5, "output_tokens": 2, "total_tokens": 7, **details}
        told = {"id": f"resp_{len(items)}", "object": "response", "created_at": 1, "status": "completed", "model": "m"}
        rest = {"parallel_tool_calls": True, "tool_choice": "auto", "tools": request.get("tools", []), "usage": usage}
        return {**told, "output": output, **rest}

    def claude(self, request: Value) -> Value:
        messages = request["messages"]
        users = [i for i, m in enumerate(messages) if m["role"] == "user" and isinstance(m["content"], str)]
        reply, numbers = self.said(len(users) - 1, users[-1] < len(messages) - 1)
        content: list[Value] = []
        if numbers and len(users) == 1:
            content.append({"type": "thinking", "thinking": self.shop["thought"], "signature": "c2ln"})
        if reply:
            content.append({"type": "text", "text": reply})
        for id, name, given in map(self.call, numbers):
            content.append({"type": "tool_use", "id": id, "name": name, "input": given})
        told = {"id": "msg", "type": "message", "role": "assistant", "model": "claude", "content": content}
        stop = {"stop_reason": "tool_use" if numbers else "end_turn", "stop_sequence": None}
        return {**told, **stop, "usage": {"input_tokens": 5, "output_tokens": 2}}
