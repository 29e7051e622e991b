"""lm-eval's `local-completions`, unchanged, against a running server.

    python lm_eval_suite.py BASE_URL KEY MODEL TASKS GOLDENS TOKENIZER

TASKS is the folder with the tasks, GOLDENS what `tests/goldens/make_evaluation.py` made with transformers on the same
weights, TOKENIZER a folder with the model's tokenizer. `tests/clients.rs` installs the client, starts the server and runs
this.

The server computes with activations rounded to 8 bits, the reference in float32. As in `tests/accuracy.rs`, the error of
bfloat16 is the yardstick and twice that error is allowed: of the mean, and of what 19 of 20 errors stay below. A choice
that is no clearer than the latter may fall the other way.
"""

import functools
import json
import os
import sys

import lm_eval
from lm_eval.tasks import TaskManager

from suite import BASE_URL, KEY, MODEL, run_tests

TASKS, GOLDENS, TOKENIZER = sys.argv[4:]
ALLOWED = 2.0

with open(GOLDENS, encoding="utf-8") as file:
    goldens = json.load(file)
os.environ["OPENAI_API_KEY"] = KEY


@functools.cache
def results(**more):
    os.chdir(TASKS)  # where the tasks look for their items
    return lm_eval.simple_evaluate(
        model="local-completions",
        model_args={"model": MODEL, "base_url": f"{BASE_URL}/completions", **more},
        tasks=["questions", "continuations"],
        task_manager=TaskManager(include_path=TASKS, include_defaults=False),
        bootstrap_iters=0,
    )


def with_the_servers_tokenizer():
    """Several prompts in a request."""
    return results(tokenizer_backend="remote", auth_token=KEY, batch_size=4)


def with_a_tokenizer_of_its_own():
    """Several requests at a time."""
    return results(tokenizer_backend="huggingface", tokenizer=TOKENIZER, num_concurrent=4)


def answers(run, task):
    items = sorted(run["samples"][task], key=lambda item: item["doc_id"])
    assert len(items) == len(goldens[task]), len(items)
    return [item["filtered_resps"] for item in items]


def served(task):
    """Answers of the server, beside the reference's."""
    return list(zip(answers(with_the_servers_tokenizer(), task), goldens[task], strict=True))


# --- likelihoods -------------------------------------------------------------------------------------------------


def likelihoods(field="loglikelihoods"):
    return [score for item in goldens["questions"] for score in item[field]]


def usual(errors):
    """What 19 of 20 of them stay below."""
    return sorted(errors)[len(errors) * 19 // 20]


BF16_ERRORS = [abs(rounded - exact) for rounded, exact in zip(likelihoods("bf16_loglikelihoods"), likelihoods(), strict=True)]


def test_likelihoods_are_those_of_transformers():
    found = [score for item, _ in served("questions") for score, _ in item]
    errors = [abs(score - exact) for score, exact in zip(found, likelihoods(), strict=True)]
    mean, bf16_mean = sum(errors) / len(errors), sum(BF16_ERRORS) / len(BF16_ERRORS)
    print(f"        mean error {mean:.4f}, bfloat16 {bf16_mean:.4f}; usually {usual(errors):.4f}, bfloat16 {usual(BF16_ERRORS):.4f}")
    assert mean <= ALLOWED * bf16_mean
    assert usual(errors) <= ALLOWED * usual(BF16_ERRORS)


def test_a_choice_is_greedy_where_it_is_in_transformers():
    pairs = [
        (exact, rounded)
        for item in goldens["questions"]
        for exact, rounded in zip(item["greedy_distances"], item["bf16_greedy_distances"], strict=True)
    ]
    allowed = ALLOWED * usual([abs(rounded - exact) for exact, rounded in pairs])
    unclear = 0
    for item, golden in served("questions"):
        for (_, is_greedy), expected, distance in zip(item, golden["is_greedy"], golden["greedy_distances"], strict=True):
            assert expected == (distance > 0), golden
            if is_greedy != expected:
                unclear += 1
                assert abs(distance) <= allowed, (item, golden, allowed)
    greedy = sum(flag for item in goldens["questions"] for flag in item["is_greedy"])
    print(f"        {greedy} of {len(pairs)} choices are greedy; {unclear} differ where it is not clear")
    assert greedy >= 10 and unclear <= 2


def best(scores):
    return max(range(len(scores)), key=lambda index: scores[index])


def lead(scores, index, other):
    return scores[index] - scores[other]


def test_the_same_answers_are_chosen():
    unclear = 0
    for item, golden in served("questions"):
        exact, rounded = golden["loglikelihoods"], golden["bf16_loglikelihoods"]
        found, expected = best([score for score, _ in item]), best(exact)
        if found != expected:
            unclear += 1
            assert lead(exact, expected, found) <= 2 * ALLOWED * usual(BF16_ERRORS), (item, golden)
    print(f"        {unclear} of {len(goldens['questions'])} answers differ where none is clearly the best")
    assert_scores("questions", "acc,none", unclear)


def assert_scores(task, metric, unclear):
    """Of the whole task: the same but for items that may fall either way."""
    found, expected = with_the_servers_tokenizer()["results"][task][metric], goldens["scores"][task][metric]
    print(f"        {metric} {found:.4f}, transformers {expected:.4f}")
    assert abs(found - expected) <= unclear / len(goldens[task]) + 1e-9, (found, expected)


# --- generation --------------------------------------------------------------------------------------------------


def first_difference(text, pieces):
    """The first of the reference's tokens that the text does not have, or `None`."""
    whole = ""
    for step, piece in enumerate(pieces):
        whole += piece
        if not text.startswith(whole):
            return step
    return None


def test_the_same_texts_are_generated():
    allowed = ALLOWED * usual([error for item in goldens["continuations"] for error in item["bf16_gap_errors"]])
    unclear = 0
    for (text,), golden in served("continuations"):
        if text != golden["text"]:
            unclear += 1
            step = first_difference(text, golden["pieces"])
            assert step is not None and golden["gaps"][step] <= allowed, (text, golden, allowed)
    print(f"        {unclear} of {len(goldens['continuations'])} texts differ where the choice is not clear")
    assert_scores("continuations", "exact_match,none", unclear)


# --- the client's ways of asking ---------------------------------------------------------------------------------


def test_results_are_the_same_bits_however_they_are_asked_for():
    for task in ("questions", "continuations"):
        assert answers(with_the_servers_tokenizer(), task) == answers(with_a_tokenizer_of_its_own(), task)


if __name__ == "__main__":
    run_tests(globals())
