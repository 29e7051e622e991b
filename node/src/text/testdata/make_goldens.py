"""Makes goldens.json: small byte-level BPE tokenizers trained here, and what Hugging Face makes of some texts with them.

    pip install transformers tokenizers && python make_goldens.py

Each entry holds what a GGUF file would say of the tokenizer (tokens, token_types, merges, pre) and the expected ids.
"""

import json
import pathlib

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

GPT2 = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
WORDS = {
    "smollm": pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), GPT2]),
    "default": GPT2,
    "llama-bpe": pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(LLAMA3), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    ),
}
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CORPUS = [
    "The quick brown fox jumps over the lazy dog. It's what they'll do, isn't it? We've seen 1234 and 5678 times.",
    "def main():\n    for index in range(100):\n        print(index, 'hello world')\n\n\n\treturn None\r\n",
    "Die Größe der Straße: 20 €. Ça va être très bien. Привет, мир! 漢字とかな、テスト。 🙂🙃",
] * 3
TEXTS = [
    "",
    " ",
    "a",
    "Hello, world!",
    "  two leading, two trailing  ",
    "It's they'll WE'VE isn'T 'sup",
    "1234567 12 3a4 x1y22z333 ½ ² Ⅷ ٣٤",
    "for index in range(100):\n        print(index)\n\n\n\treturn\r\n  \r\n end",
    "tab\there \t mixed \n\n  lines\n",
    "Größe Straße ÇA Привет 漢字とかな 🙂🙃👩‍👩‍👧 e\u0301 \u00a0nbsp\u3000wide",
    "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n",
    "a<|endoftext|><|endoftext|> b <|im_sta",
    "!!!???...---___ $%&/()= `~^|\\ \"quotes\"",
    "x" * 300,
    "^" * 700 + "\n",
    " " * 257 + "end",
    "\n" * 64,
    "no" + " space" * 40,
    "ไทยภาษา हिन्दी עִבְרִית العربية",
    "\u0004\u007f\u0000control",
]


def trained(pre):
    tokenizer = Tokenizer(models.BPE(ignore_merges=pre == "llama-bpe"))
    tokenizer.pre_tokenizer = WORDS[pre]
    tokenizer.decoder = decoders.ByteLevel()
    # Without an initial alphabet, so that some bytes are missing, as in SmolLM2.
    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=SPECIAL, show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def entry(pre):
    tokenizer = trained(pre)
    model = json.loads(tokenizer.to_str())["model"]
    by_id = sorted(model["vocab"], key=model["vocab"].get)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer)
    encode = lambda text: fast(text, add_special_tokens=False)["input_ids"]
    decode = lambda ids: fast.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    cases = [{"text": text, "ids": encode(text), "decoded": decode(encode(text))} for text in TEXTS]
    return {
        "pre": pre,
        "tokens": by_id,
        "token_types": [3 if token in SPECIAL else 1 for token in by_id],
        "merges": [" ".join(merge) for merge in model["merges"]],
        "cases": cases,
    }


if __name__ == "__main__":
    goldens = [entry(pre) for pre in WORDS]
    lines = ",\n".join(json.dumps(golden, ensure_ascii=False) for golden in goldens)
    pathlib.Path(__file__).with_name("goldens.json").write_text(f"[\n{lines}\n]\n")
