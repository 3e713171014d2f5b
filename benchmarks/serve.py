"""The endpoint beside Hugging Face generate: tokens a second and waiting time at 1, 4 and 16 clients.

    python benchmarks/serve.py [--model embedded] [--tokens 48] [--rounds 2] [--clients 1,4,16] [--backend auto]

Every client asks one question after the other over HTTP, streamed. All share a system prompt and four tools; each
question is another one. The peer gets the same prompts as ids, in one padded batch of as many rows, in the fastest
number type here, in this process, without a server: it may start only when everybody has asked, and all wait for the
longest answer. Both draw at temperature 1. `first` is the time until a client's first token, `whole` until its last.
Run it on a quiet machine.
"""

from __future__ import annotations

import argparse
import os
import statistics
import threading
import time
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "0")

import httpx
import msgspec
from rich.table import Table

from cm2.rollout.template import ChatTemplate
from cm2.serve import Served, serving
from cm2.train.embedded import load_model
from peers.options import console

NAMES = ("find_room", "book_room", "cancel_booking", "list_bookings")
FIELDS = {
    "city": {"type": "string", "description": "Where"},
    "nights": {"type": "integer", "description": "How long"},
    "guest": {"type": "string", "description": "Who"},
}
TOOLS: list[dict[str, Any]] = [
    {
        "type": "function",
        "function": {
            "name": name,
            "description": f"Use it to {name.replace('_', ' ')} of our hotels, and only of ours",
            "parameters": {"type": "object", "properties": FIELDS, "required": ["city"]},
        },
    }
    for name in NAMES
]
SYSTEM = (
    "You help the guests of a chain of hotels. Look things up before you say them, ask when something is missing, "
    "book nothing that was not asked for, and be brief. "
) * 3
CITIES = ("Paris", "Lyon", "Nice", "Lille", "Brest", "Tours", "Metz", "Dijon")


class Found(msgspec.Struct):
    """One contender at one number of clients."""

    tokens: int
    seconds: float
    first: list[float]
    whole: list[float]


def question(client: int, number: int) -> list[dict[str, Any]]:
    """Another one for every client and round."""
    text = (
        f"I need a room in {CITIES[client % len(CITIES)]} for {number + 2} nights, my name is Guest {client}-{number}."
    )
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": text}]


def ask(served: Served, client: int, number: int, tokens: int, found: Found, lock: threading.Lock) -> None:
    """One request, streamed."""
    body = {
        "model": served.model,
        "messages": question(client, number),
        "tools": TOOLS,
        "max_tokens": tokens,
        "seed": client * 100 + number,
        "stream": True,
        "logprobs": True,  # so that every token is told at once, also those of a call
    }
    headers = {"authorization": f"Bearer {served.key}"}
    started, first, usage = time.perf_counter(), 0.0, {}
    with httpx.stream("POST", f"{served.base_url}/chat/completions", json=body, headers=headers, timeout=600) as answer:
        answer.raise_for_status()
        for line in answer.iter_lines():
            if not line.startswith("data: {"):
                continue
            event = msgspec.json.decode(line.removeprefix("data: "))
            if not first and event["choices"] and event["choices"][0]["logprobs"]:
                first = time.perf_counter() - started
            usage = event.get("usage") or usage
    with lock:
        found.tokens += usage["completion_tokens"]
        found.first.append(first)
        found.whole.append(time.perf_counter() - started)


def endpoint(served: Served, clients: int, rounds: int, tokens: int) -> Found:
    """All clients at once, each with one question after the other."""
    found, lock = Found(0, 0.0, [], []), threading.Lock()

    def client(i: int) -> None:
        for number in range(rounds):
            ask(served, i, number, tokens, found, lock)

    threads = [threading.Thread(target=client, args=(i,)) for i in range(clients)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found.seconds = time.perf_counter() - started
    return found


def peer(model: Any, template: ChatTemplate, clients: int, rounds: int, tokens: int) -> Found:
    """The same questions by generate, a batch a round."""
    import torch

    found, pad = Found(0, 0.0, [], []), template.tokenizer.pad_token_id
    torch.manual_seed(0)
    started = time.perf_counter()
    for number in range(rounds):
        asked = time.perf_counter()
        prompts = [template.first_prompt(TOOLS, question(i, number)) for i in range(clients)]
        width = max(map(len, prompts))
        ids = torch.tensor([[pad] * (width - len(prompt)) + prompt for prompt in prompts])
        mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
        with torch.inference_mode():
            out = model.generate(
                input_ids=ids,
                attention_mask=mask,
                max_new_tokens=tokens,
                do_sample=True,
                temperature=1.0,
                top_k=0,
                top_p=1.0,
                eos_token_id=template.stop_ids,
                pad_token_id=pad,
            )
        spent = time.perf_counter() - asked
        for row in out[:, width:].tolist():
            ends = [i for i, token in enumerate(row) if token in template.stop_ids]
            found.tokens += ends[0] + 1 if ends else len(row)
            found.first.append(spent)  # nothing is told before everything is
            found.whole.append(spent)
    found.seconds = time.perf_counter() - started
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="embedded", help='"embedded" or a model folder')
    parser.add_argument("--tokens", type=int, default=48, help="of an answer, at most")
    parser.add_argument("--rounds", type=int, default=2, help="questions of each client")
    parser.add_argument("--clients", default="1,4,16", help="how many at once")
    parser.add_argument("--backend", default="auto", help="who decodes: auto, cm2, vllm, sglang")
    options = parser.parse_args()
    numbers = [int(one) for one in options.clients.split(",")]

    ours: dict[int, Found] = {}
    settings = {"slots": max(numbers), "backend": options.backend, "max_choices": 1}
    with serving(options.model, thinking="keep", **settings) as served:
        backend = served.backend
        endpoint(served, 2, 1, 4)  # warm
        for clients in numbers:
            ours[clients] = endpoint(served, clients, options.rounds, options.tokens)

    from cm2.rollout.decode import native_dtype
    from cm2.train.progress import hush

    hush()
    model, tokenizer = load_model(options.model, dtype=native_dtype())
    template = ChatTemplate(tokenizer)
    peer(model, template, 2, 1, 4)
    table = Table(title=f"cm2 serve ({backend}) and generate, {options.tokens} tokens an answer at most")
    for name in ("clients", "contender", "tokens", "tokens/s", "first, s", "whole, s", "ours is"):
        table.add_column(name, justify="left" if name == "contender" else "right")
    for clients in numbers:
        theirs = peer(model, template, clients, options.rounds, options.tokens)
        for name, found in (("cm2 serve", ours[clients]), ("Hugging Face generate", theirs)):
            speed = found.tokens / found.seconds
            ratio = (ours[clients].tokens / ours[clients].seconds) / speed
            first, whole = statistics.median(found.first), statistics.median(found.whole)
            row = (
                str(clients),
                name,
                str(found.tokens),
                f"{speed:.1f}",
                f"{first:.2f}",
                f"{whole:.2f}",
                f"{ratio:.2f} x",
            )
            table.add_row(*row)
    console().print(table)


if __name__ == "__main__":
    main()
