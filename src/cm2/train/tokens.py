"""Special tokens that the base model never saw: added, and started as averages of related words (method, section 6).

A fresh random vector costs the first part of training on nothing but learning what the token is; the mean of words that
mean about the same starts it in the right region of the space, for reading and (with tied embeddings) for writing.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from cm2.rollout.template import CHAT_TEMPLATE, RESPONSE_TEMPLATE, SPECIAL_TOKENS

RELATED_WORDS: dict[str, tuple[str, ...]] = {
    "<think>": ("think", "begin"),
    "</think>": ("think", "finish"),
    "<tool_call>": ("tool", "call", "start"),
    "</tool_call>": ("tool", "call", "end"),
    "<|im_start|>": ("role", "enter"),
    "<|im_end|>": ("role", "exit"),
}


def related_ids(tokenizer: Any, token: str) -> list[list[int]]:
    """The ids of each word related to a special token, as they stand inside a text (with a space before)."""
    return [tokenizer.encode(f" {word}", add_special_tokens=False) for word in RELATED_WORDS[token]]


def starting_row(embedding: np.ndarray, words: list[list[int]]) -> np.ndarray:
    """The mean over words of the mean over a word's tokens; `embedding` is (vocabulary, hidden)."""
    return np.mean([embedding[ids].mean(axis=0) for ids in words], axis=0)


def install_tokens(tokenizer: Any) -> list[str]:
    """Add our chat template and its special tokens to a tokenizer; returns the tokens that are new."""
    wanted = ("<|im_start|>", "<|im_end|>", *SPECIAL_TOKENS)
    known = tokenizer.get_vocab()
    new = [token for token in wanted if token not in known]
    from tokenizers import AddedToken

    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in new])
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.response_template = RESPONSE_TEMPLATE
    tokenizer.eos_token = "<|im_end|>"
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return new


def install(model: Any, tokenizer: Any) -> list[str]:
    """Give a model and its tokenizer our template and the tokens it needs; returns the tokens that were added.

    The embedding (and an untied output head) grows where needed; rows of known tokens keep their values.
    """
    import torch

    new = install_tokens(tokenizer)
    if len(tokenizer) > model.get_input_embeddings().weight.shape[0]:
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    tables = [model.get_input_embeddings().weight]
    head = model.get_output_embeddings()
    if head is not None and head.weight is not tables[0]:
        tables.append(head.weight)
    with torch.no_grad():
        for table in tables:
            rows = table.detach().float().numpy()
            for token in new:
                start = starting_row(rows, related_ids(tokenizer, token))
                table[tokenizer.convert_tokens_to_ids(token)] = torch.from_numpy(start).to(table.dtype)
    model.config.eos_token_id = tokenizer.eos_token_id
    model.config.pad_token_id = tokenizer.pad_token_id
    return new
