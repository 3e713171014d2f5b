"""Special tokens: started as averages of related words, known rows untouched (method, section 6)."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("transformers")
pytestmark = pytest.mark.train

import torch  # noqa: E402

from cm2.rollout.template import CHAT_TEMPLATE, ChatTemplate  # noqa: E402
from cm2.train.tokens import RELATED_WORDS, install, install_tokens, related_ids, starting_row  # noqa: E402
from rollout.tiny_models import byte_tokenizer, tiny_llama  # noqa: E402

WORDS = "think begin finish tool call start end role enter exit".split()  # noqa: SIM905


def word_tokenizer(extra: tuple[str, ...] = ()):
    """One token a word, with the space before it, beside single bytes."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges, pieces = [], dict.fromkeys(letters)
    for word in WORDS:
        text = f"Ġ{word}"
        for cut in range(1, len(text)):
            if (text[:cut], text[cut]) not in merges:
                merges.append((text[:cut], text[cut]))
            pieces[text[: cut + 1]] = None
    core = Tokenizer(models.BPE(vocab={piece: i for i, piece in enumerate(pieces)}, merges=merges))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|endoftext|>")
    tokenizer.add_tokens(list(extra))
    return tokenizer


def row(table: torch.Tensor, tokenizer, word: str) -> torch.Tensor:
    (id,) = tokenizer.encode(f" {word}", add_special_tokens=False)
    return table[id]


def test_every_new_token_starts_as_the_average_that_the_method_names():
    tokenizer = word_tokenizer()
    model = tiny_llama(len(tokenizer))
    assert sorted(install(model, tokenizer)) == sorted(RELATED_WORDS)
    for table in (model.get_input_embeddings().weight.detach(), model.get_output_embeddings().weight.detach()):
        for token, words in {
            "<think>": ("think", "begin"),
            "</think>": ("think", "finish"),
            "<tool_call>": ("tool", "call", "start"),
            "</tool_call>": ("tool", "call", "end"),
            "<|im_start|>": ("role", "enter"),
            "<|im_end|>": ("role", "exit"),
        }.items():
            expected = torch.stack([row(table, tokenizer, word) for word in words]).mean(0)
            assert torch.allclose(table[tokenizer.convert_tokens_to_ids(token)], expected, atol=1e-6), token


def test_a_word_of_several_tokens_counts_once():
    embedding = np.arange(12, dtype=np.float32).reshape(4, 3)
    assert starting_row(embedding, [[0, 1, 2], [3]]).tolist() == [6.0, 7.0, 8.0]  # not the mean of the four rows
    tokenizer = byte_tokenizer()
    ids = related_ids(tokenizer, "<think>")
    assert [tokenizer.decode(word) for word in ids] == [" think", " begin"]


def test_rows_of_known_tokens_keep_their_values():
    tokenizer = word_tokenizer(("<think>", "<|im_end|>"))
    model = tiny_llama(len(tokenizer))
    before = [
        model.get_input_embeddings().weight.detach().clone(),
        model.get_output_embeddings().weight.detach().clone(),
    ]
    new = install(model, tokenizer)
    assert sorted(new) == ["</think>", "</tool_call>", "<tool_call>", "<|im_start|>"]
    for old, table in zip(before, (model.get_input_embeddings(), model.get_output_embeddings()), strict=True):
        assert torch.equal(table.weight[: len(old)], old)


def test_installing_twice_changes_nothing_the_second_time():
    tokenizer = word_tokenizer()
    model = tiny_llama(len(tokenizer))
    install(model, tokenizer)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert install(model, tokenizer) == []
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_tied_embeddings_stay_tied_and_a_low_precision_model_keeps_its_type():
    tokenizer = word_tokenizer()
    model = tiny_llama(len(tokenizer), tie_word_embeddings=True).to(torch.bfloat16)
    install(model, tokenizer)
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert model.get_input_embeddings().weight.dtype == torch.bfloat16


def test_a_model_with_spare_rows_is_not_shrunk():
    tokenizer = word_tokenizer()
    model = tiny_llama(len(tokenizer) + 64)
    install(model, tokenizer)
    assert model.get_input_embeddings().weight.shape[0] == len(word_tokenizer()) + 64


def test_the_tokens_are_one_id_each_inside_a_text_and_survive_decoding():
    tokenizer = byte_tokenizer()
    install_tokens(tokenizer)
    text = '<|im_start|>assistant\n<think>a</think><tool_call>{"name":"f"}</tool_call><|im_end|>'
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert all(ids.count(tokenizer.convert_tokens_to_ids(token)) == 1 for token in RELATED_WORDS)
    assert tokenizer.decode(ids, skip_special_tokens=False) == text


def test_the_end_of_a_message_is_the_models_end():
    tokenizer = byte_tokenizer()
    model = tiny_llama(len(tokenizer))
    install(model, tokenizer)
    assert tokenizer.eos_token == "<|im_end|>" and model.config.eos_token_id == tokenizer.eos_token_id
    assert tokenizer.pad_token == "<|endoftext|>" and model.config.pad_token_id != tokenizer.eos_token_id
    assert tokenizer.chat_template == CHAT_TEMPLATE
    assert ChatTemplate(tokenizer).stop_ids == [tokenizer.eos_token_id]
