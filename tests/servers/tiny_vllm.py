"""TinyVllm: what cm2 uses of a vLLM server, computed by a tiny model in the test's own process.

It samples as it is told, token by token, from the whole forward pass; loads weights from a folder when it is told; and
does nothing else of what it is not told: a request that leaves something to the server's defaults fails.
"""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import torch

NEEDED = ("temperature", "seed", "top_k", "top_p", "stop_token_ids", "ignore_eos", "repetition_penalty", "min_p")


class TinyVllm:
    """Serves a copy of a model; use it as a context manager.

    Args:
        model: a causal language model; its weights are copied.
        tokenizer: what /tokenize answers with; None: there is no such service.
        raw: tell log-probabilities before the temperature, as vLLM does by default.
        dev: whether weights can be loaded.

    Attributes:
        loads: the folders that were loaded, `resets` how often the cache was emptied.
        prompts: ids of every request; `down` answers 503 to so many requests from now on.
    """

    def __init__(self, model: Any, tokenizer: Any, *, raw: bool = False, dev: bool = True, name: str = "policy"):
        self.model = type(model)(model.config).eval()
        self.model.load_state_dict(model.state_dict())
        self.start = {key: value.clone() for key, value in self.model.state_dict().items()}
        self.tokenizer, self.raw, self.dev, self.name = tokenizer, raw, dev, name
        self.length = model.config.max_position_embeddings
        self.loads: list[str] = []
        self.resets, self.down, self.refuse_resets = 0, 0, 0
        self.prompts: list[list[int]] = []
        self.bodies: list[dict[str, Any]] = []
        self.before_answer: Any = None
        self._lock = threading.RLock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    def __enter__(self) -> TinyVllm:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Nobody listens any more."""
        self._server.shutdown()
        self._server.server_close()

    def restart(self) -> None:
        """The weights of the start, as a supervisor would bring it back."""
        with self._lock:
            self.model.load_state_dict(self.start)

    def answer(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        """Status and JSON of a request."""
        with self._lock:
            if self.down > 0:
                self.down -= 1
                return 503, {"error": {"message": "overloaded"}}
            if path == "/v1/models":
                return 200, {"data": [{"id": self.name, "max_model_len": self.length}]}
            if path == "/tokenize" and self.tokenizer is not None:
                ids = self.tokenizer(body["prompt"], add_special_tokens=body["add_special_tokens"])["input_ids"]
                return 200, {"tokens": ids, "count": len(ids)}
            if path == "/collective_rpc" and self.dev:
                return self._load(body)
            if path == "/reset_prefix_cache" and self.dev:
                self.refuse_resets -= 1
                self.resets += self.refuse_resets < 0
                return 200, {"success": self.refuse_resets < 0}
            if path == "/v1/completions":
                return self._complete(body)
            return 404, {"detail": "Not Found"}

    def _load(self, body: dict[str, Any]) -> tuple[int, Any]:
        from safetensors.torch import load_file

        assert body["method"] == "reload_weights"
        folder = Path(body["kwargs"]["weights_path"])
        if not (folder / "model.safetensors").exists():
            return 500, {"error": {"message": f"no weights in {folder}"}}
        weights = load_file(folder / "model.safetensors")
        wanted = {key for key, value in self.model.state_dict().items()}
        if any(key not in wanted or weights[key].shape != self.model.state_dict()[key].shape for key in weights):
            return 500, {"error": {"message": "the weights do not fit the model"}}
        self.model.load_state_dict({key: value.float() for key, value in weights.items()}, strict=False)
        self.loads.append(str(folder))
        return 200, {"results": [None]}

    @torch.inference_mode()
    def _complete(self, body: dict[str, Any]) -> tuple[int, Any]:
        if body["model"] != self.name:
            return 404, {"error": {"message": f"The model {body['model']} does not exist."}}
        if not 0 <= body["temperature"] <= 2:
            return 400, {"error": {"message": "temperature must be in [0, 2]"}}
        probing = "prompt_logprobs" in body or body["logprobs"] > 0
        if missing := [name for name in NEEDED if name not in body and not probing]:
            return 400, {"error": {"message": f"the server's own default of {missing} would be used"}}
        ids, tokens, logprobs, tops = list(body["prompt"]), [], [], []
        if not probing:
            self.prompts.append(list(ids))
            self.bodies.append(body)
        told = None
        if "prompt_logprobs" in body:
            every = torch.log_softmax(self.model(input_ids=torch.tensor([ids])).logits[0].float(), -1)
            told = [None] + [{str(b): {"logprob": float(every[i, b])}} for i, b in enumerate(ids[1:])]
        draw = torch.Generator().manual_seed(body.get("seed", 0))
        reason = "length"
        while len(tokens) < body["max_tokens"]:
            logits = self.model(input_ids=torch.tensor([ids + tokens])).logits[0, -1].float()
            heated = logits / body["temperature"] if body["temperature"] else logits
            token = int(torch.multinomial(heated.softmax(-1), 1, generator=draw)) if body["temperature"] else None
            token = int(logits.argmax()) if token is None else token
            tokens.append(token)
            every = torch.log_softmax(logits if self.raw else heated, -1)
            logprobs.append(float(every[token]))
            tops.append({"sampled": logprobs[-1]} | ({"best": float(every.max())} if body["logprobs"] else {}))
            if token in body.get("stop_token_ids", ()):
                reason = "stop"
                break
        if self.before_answer is not None:
            self.before_answer(self)
        choice = {"token_ids": tokens, "finish_reason": reason, "text": "?", "prompt_logprobs": told}
        choice["logprobs"] = {"token_logprobs": logprobs, "top_logprobs": tops}
        return 200, {"choices": [choice], "usage": {"prompt_tokens": len(ids), "completion_tokens": len(tokens)}}

    def _handler(server) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._say({})

            def do_POST(self) -> None:
                size = int(self.headers.get("Content-Length") or 0)
                self._say(json.loads(self.rfile.read(size)) if size else {})

            def _say(self, body: dict[str, Any]) -> None:
                status, value = server.answer(self.path, body)
                data = json.dumps(value).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                """Say nothing on standard error."""

        return Handler
