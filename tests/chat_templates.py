"""Chat templates of model families, written for these tests, with small tokenizers to fit.

The texts in ``tests/agents/templates`` do what the originals do (tests compare some of them with
originals that installed packages ship). A tokenizer has the family's control tokens, marked as the
family marks them, and its way with blanks; its other tokens are bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

FOLDER = Path(__file__).parent / "agents" / "templates"


@dataclass(frozen=True, slots=True)
class Family:
    """What a tokenizer of the family has."""

    special: tuple[str, ...] = ()
    """Tokens that are marked special."""
    added: tuple[str, ...] = ()
    """Added tokens that are not."""
    named: dict[str, str] = field(default_factory=dict)
    """Special tokens by name (``bos_token``)."""
    blanks: str = "bytes"
    """"bytes": as GPT-2; "first": as Mistral, a blank before a text; "every": as Phi-3, a blank
    before each piece of text, and special tokens that swallow blanks after them."""


_CHATML = ("<|im_start|>",)
_THINK = ("<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>")
_LLAMA = ("<|start_header_id|>", "<|end_header_id|>", "<|end_of_text|>")
_DEEPSEEK = ("<｜User｜>", "<｜Assistant｜>", "<｜tool▁outputs▁begin｜>", "<｜tool▁sep｜>")
_S = {"bos_token": "<s>", "eos_token": "</s>"}
_LLAMA_NAMED = {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"}
_DEEPSEEK_NAMED = {"bos_token": "<｜begin▁of▁sentence｜>", "eos_token": "<｜end▁of▁sentence｜>"}

FAMILIES = {
    "smollm2": Family(_CHATML, named={"eos_token": "<|im_end|>"}),
    "qwen2.5": Family(
        (*_CHATML, "<|endoftext|>"), ("<tool_call>", "</tool_call>"), {"eos_token": "<|im_end|>"}
    ),
    "qwen3": Family(
        (*_CHATML, "<|endoftext|>"),
        (*_THINK, "</tool_response>", "<|fim_prefix|>"),
        {"eos_token": "<|im_end|>"},
    ),
    "llama-3": Family(_LLAMA, named=_LLAMA_NAMED),
    "llama-3.2": Family((*_LLAMA, "<|python_tag|>"), named=_LLAMA_NAMED),
    "gemma-2": Family(
        ("<start_of_turn>", "<end_of_turn>"),
        ("\n\n",),
        {"bos_token": "<bos>", "eos_token": "<eos>"},
    ),
    "gemma-3": Family(
        ("<start_of_turn>", "<end_of_turn>"),
        ("\n\n", "\n\n\n", "[multimodal]"),
        {"bos_token": "<bos>", "eos_token": "<end_of_turn>"},
    ),
    "mistral-v0.3": Family(("[INST]", "[/INST]", "[TOOL_CALLS]"), named=_S, blanks="first"),
    "mistral-nemo": Family(("[INST]", "[/INST]", "[TOOL_CALLS]"), named=_S),
    "mistral-small-3": Family(
        ("[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"), named=_S
    ),
    "phi-3": Family(
        ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
        named={"bos_token": "<s>", "eos_token": "<|endoftext|>"},
        blanks="every",
    ),
    "phi-4": Family((*_CHATML, "<|im_sep|>", "<|endoftext|>"), named={"eos_token": "<|im_end|>"}),
    "phi-4-mini": Family(
        ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<|tool_call|>"),
        named={"eos_token": "<|endoftext|>"},
    ),
    "deepseek-v3": Family(("<｜▁pad▁｜>",), _DEEPSEEK, _DEEPSEEK_NAMED),
    "deepseek-v3.1": Family(("<｜▁pad▁｜>",), (*_DEEPSEEK, "<think>", "</think>"), _DEEPSEEK_NAMED),
    "deepseek-r1": Family(("<｜▁pad▁｜>",), (*_DEEPSEEK, "<think>", "</think>"), _DEEPSEEK_NAMED),
}


@cache
def template_text(name: str) -> str:
    """The template of a family."""
    return (FOLDER / f"{name}.jinja").read_text(encoding="utf-8")


def made_tokenizer(name: str, template: str | None = None) -> PreTrainedTokenizerFast:
    """A new tokenizer of a family; with ``template`` instead of our own text."""
    family = FAMILIES[name]
    made = _bytes() if family.blanks == "bytes" else _pieces(every=family.blanks == "every")
    swallows = family.blanks == "every"
    made.add_special_tokens(
        [AddedToken(t, special=True, rstrip=swallows, normalized=False) for t in family.special]
    )
    made.add_tokens([AddedToken(t, normalized=False) for t in family.added])
    fast = PreTrainedTokenizerFast(tokenizer_object=made, **family.named)
    fast.chat_template = template or template_text(name)
    fast.name_or_path = name
    return fast


def _bytes() -> Tokenizer:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE(vocab={s: i for i, s in enumerate(alphabet)}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    return made


def _pieces(*, every: bool) -> Tokenizer:
    """As SentencePiece: blanks are written as "▁", unknown characters in bytes."""
    letters = [chr(code) for code in range(33, 127)]
    words = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *letters]
    words += [f"▁{letter}" for letter in letters]
    made = Tokenizer(
        models.BPE(
            vocab={word: number for number, word in enumerate(words)},
            merges=[("▁", letter) for letter in letters],
            unk_token="<unk>",
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    if every:
        made.normalizer = normalizers.Sequence(
            [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        )
    else:
        made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    made.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return made
