"""A tokenizer of single bytes and random Llama models small enough for a test."""

from __future__ import annotations

from typing import Any

LIKELY = {"<|im_end|>": 3.0, "<tool_call>": 2.5, "</tool_call>": 2.5, "<think>": 1.0, "</think>": 2.0}


def byte_tokenizer() -> Any:
    """256 bytes and an end token; no chat template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {token: i for i, token in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|endoftext|>", pad_token="<|endoftext|>")


def tiny_llama(vocabulary: int = 97, seed: int = 0, **changes: Any) -> Any:
    """A random Llama with grouped queries whose logits differ enough to tell positions and rows apart."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = {
        "hidden_size": 96,
        "intermediate_size": 80,
        "num_hidden_layers": 3,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "max_position_embeddings": 2048,
    }
    torch.manual_seed(seed)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=vocabulary, **(shape | changes))).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def talkative() -> tuple[Any, Any]:
    """A random model that likes to end its actions and to call tools, badly: rollouts of several steps and turns."""
    import torch

    model, tokenizer = tiny_chat()
    bias = torch.zeros(len(tokenizer))
    for token, value in LIKELY.items():
        bias[tokenizer.convert_tokens_to_ids(token)] = value
    model.lm_head.bias = torch.nn.Parameter(bias)
    return model, tokenizer


def tiny_chat(seed: int = 0, **changes: Any) -> tuple[Any, Any]:
    """A tiny Llama and its tokenizer with our chat template."""
    from cm2.train.tokens import install

    tokenizer = byte_tokenizer()
    model = tiny_llama(len(tokenizer), seed, **changes)
    install(model, tokenizer)
    return model, tokenizer
