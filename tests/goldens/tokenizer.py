#!/usr/bin/env python3
"""The tokenizer in a GGUF file as Hugging Face's libraries know it: tokenizer.py FILE.gguf FOLDER

Needs `gguf` and `tokenizers` alone.
"""

import json
import pathlib
import sys

import gguf
import tokenizers


def main():
    path, folder = map(pathlib.Path, sys.argv[1:])
    write(path, folder)


def write(path, folder):
    fields = gguf.GGUFReader(path).fields
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer_of(fields).save(str(folder / "tokenizer.json"))
    settings = json.dumps(settings_of(fields), indent=2)
    (folder / "tokenizer_config.json").write_text(settings + "\n", encoding="utf-8")


def tokenizer_of(fields):
    """Byte-level BPE built from the file's own vocabulary and merges, not by transformers' conversion.

    transformers 5 turns a GGUF `gpt2` vocabulary into GPT-2's pre-tokenizer alone. SmolLM2 was trained with digits
    split one by one before it, which `pre = smollm` in the file says. For the digits 0 to 9 that makes no difference,
    because no merge joins them; it does for other numerals: 2 of the strings in `prompts.py` (with ½, ①, Ⅻ) get other
    ids from transformers.
    """
    pieces = fields["tokenizer.ggml.tokens"].contents()
    merges = [tuple(line.split(" ")) for line in fields["tokenizer.ggml.merges"].contents()]
    assert fields["tokenizer.ggml.pre"].contents() == "smollm"
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(
        [
            tokenizers.pre_tokenizers.Digits(individual_digits=True),
            tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    special = [tokenizers.AddedToken(piece, special=True, normalized=False) for piece in control_tokens(fields)]
    tokenizer.add_special_tokens(special)
    return tokenizer


def control_tokens(fields):
    pieces = fields["tokenizer.ggml.tokens"].contents()
    kinds = fields["tokenizer.ggml.token_type"].contents()
    return [piece for piece, kind in zip(pieces, kinds) if kind == int(gguf.TokenType.CONTROL)]


def settings_of(fields):
    """What `tokenizer_config.json` says."""
    pieces = fields["tokenizer.ggml.tokens"].contents()
    names = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}
    ids = {name: fields.get(f"tokenizer.ggml.{key}_token_id") for name, key in names.items()}
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **{name: pieces[field.contents()] for name, field in ids.items() if field},
        "model_max_length": fields["llama.context_length"].contents(),
        "clean_up_tokenization_spaces": False,
        "chat_template": fields["tokenizer.chat_template"].contents(),
    }


if __name__ == "__main__":
    main()
