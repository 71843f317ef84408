"""A Python package that carries a model as one GGUF file, as `package:MODULE/FILE.gguf` names it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import pre_tokenizers

CONTEXT, HIDDEN = 512, 32


def write_package(folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Write a package that can be imported, with a tiny Llama in eight bits; returns the model's reference."""
    gguf = pytest.importorskip("gguf")
    module = folder / "a_package"
    module.mkdir(parents=True)
    (module / "__init__.py").touch()
    writer = gguf.GGUFWriter(module / "tiny.gguf", "llama")
    _describe(writer)
    words = _add_tokenizer(gguf, writer)
    _add_weights(gguf, writer, words)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    monkeypatch.syspath_prepend(str(folder))
    return "package:a_package/tiny.gguf"


def _describe(writer: Any) -> None:
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(HIDDEN)
    writer.add_block_count(1)
    writer.add_head_count(2)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)


def _add_tokenizer(gguf: Any, writer: Any) -> int:
    """Add a vocabulary of bytes, one longer word and the end; returns its size."""
    tokens = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "th", "the", "<end>"]
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.NORMAL] * (len(tokens) - 1) + [gguf.TokenType.CONTROL])
    writer.add_token_merges(["t h", "th e"])
    writer.add_eos_token_id(len(tokens) - 1)
    return len(tokens)


def _add_weights(gguf: Any, writer: Any, words: int) -> None:
    vectors = ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm")
    squares = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
    shapes: dict[str, tuple[int, ...]] = {"token_embd": (words, HIDDEN)}
    shapes |= dict.fromkeys(vectors, (HIDDEN,)) | {f"blk.0.{name}": (HIDDEN, HIDDEN) for name in squares}
    rng = np.random.default_rng(0)
    for name, shape in shapes.items():
        weights = rng.normal(scale=0.1, size=shape).astype(np.float32)
        kind = gguf.GGMLQuantizationType.F32 if len(shape) == 1 else gguf.GGMLQuantizationType.Q8_0
        writer.add_tensor(f"{name}.weight", gguf.quantize(weights, kind), raw_dtype=kind)
