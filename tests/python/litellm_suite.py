"""litellm, unchanged, with the two prefixes by which people reach a server of their own.

    python litellm_suite.py BASE_URL KEY MODEL

`tests/clients.rs` installs the client, starts the server and runs this.
"""

import asyncio
import json

import litellm
import pydantic

from suite import BASE_URL, KEY, MODEL, expect, run_tests

PREFIXES = ("openai", "hosted_vllm")
HELLO = [{"role": "user", "content": "Say hello in one short sentence."}]
QUESTION = [{"role": "user", "content": "What is 17 plus 25?"}]
SERVER = {"api_base": BASE_URL, "api_key": KEY, "max_retries": 0, "timeout": 300}


def fields_of(prefix, fields):
    return {"model": f"{prefix}/{MODEL}", "messages": HELLO, "max_tokens": 12} | SERVER | fields


def chat(prefix, **fields):
    return litellm.completion(**fields_of(prefix, fields))


def each(test):
    """The same test with every prefix."""

    def run():
        for prefix in PREFIXES:
            test(prefix)

    return run


# --- chat --------------------------------------------------------------------------------------------------------


@each
def test_chat_answers_with_usage(prefix):
    answer = chat(prefix, temperature=0)
    assert answer.choices[0].message.content.strip() and answer.choices[0].finish_reason in ("stop", "length")
    usage = answer.usage
    assert usage.prompt_tokens > 0 and 0 < usage.completion_tokens <= 12
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens


@each
def test_a_stream_says_the_same_and_ends_with_usage(prefix):
    whole = chat(prefix, temperature=0)
    chunks = list(chat(prefix, temperature=0, stream=True, stream_options={"include_usage": True}))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    (usage,) = [chunk.usage for chunk in chunks if getattr(chunk, "usage", None)]
    assert usage.prompt_tokens == whole.usage.prompt_tokens, (usage, whole.usage)
    assert usage.completion_tokens == whole.usage.completion_tokens, (usage, whole.usage)
    built = litellm.stream_chunk_builder(chunks, messages=HELLO)
    assert built.choices[0].message.content == text
    assert built.choices[0].finish_reason == whole.choices[0].finish_reason


@each
def test_stream_options_without_a_stream_harm_nothing(prefix):
    plain = chat(prefix, temperature=0).choices[0].message.content
    assert chat(prefix, temperature=0, stream_options={"include_usage": True}).choices[0].message.content == plain


@each
def test_sampling_parameters_arrive(prefix):
    answers = [chat(prefix, seed=seed, temperature=1.0, top_p=0.9).choices[0].message.content for seed in (1, 1, 2)]
    assert answers[0] == answers[1] != answers[2], answers
    greedy = chat(prefix, temperature=0).choices[0].message.content
    assert chat(prefix, temperature=1.5, extra_body={"top_k": 1}).choices[0].message.content == greedy
    long = chat(prefix, max_tokens=None, max_completion_tokens=3, extra_body={"ignore_eos": True})
    assert long.usage.completion_tokens == 3 and long.choices[0].finish_reason == "length"


@each
def test_many_at_a_time_each_get_their_own_answer(prefix):
    async def one(seed):
        return (await litellm.acompletion(**fields_of(prefix, {"seed": seed, "temperature": 1.0}))).choices[0].message.content

    async def run():
        return await asyncio.gather(*[one(seed) for seed in [*range(3), *range(3)]])

    texts = asyncio.run(run())
    assert texts[:3] == texts[3:] and len(set(texts)) > 1, texts


# --- forms and tools ---------------------------------------------------------------------------------------------


class Day(pydantic.BaseModel):
    weekday: str = pydantic.Field(max_length=12)
    is_rainy: bool


@each
def test_a_schema_made_from_a_class_is_kept(prefix):
    answer = chat(prefix, response_format=Day, max_tokens=80, temperature=1.0, seed=7)
    Day.model_validate_json(answer.choices[0].message.content)


@each
def test_a_json_object_is_one(prefix):
    choice = chat(prefix, response_format={"type": "json_object"}, max_tokens=200).choices[0]
    assert choice.finish_reason == "length" or isinstance(json.loads(choice.message.content), dict), choice


ADD = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "The sum of two numbers.",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "integer", "minimum": 0, "maximum": 99}, "b": {"type": "integer", "minimum": 0, "maximum": 99}},
            "required": ["a", "b"],
            "additionalProperties": False,
        },
    },
}
NAMED = {"type": "function", "function": {"name": "add"}}


def only_call(message):
    (call,) = message.tool_calls
    assert call.id and call.function.name == "add"
    return call, json.loads(call.function.arguments)


@each
def test_a_tool_is_called_and_its_answer_goes_back(prefix):
    asked = {"messages": QUESTION, "tools": [ADD], "tool_choice": NAMED, "max_tokens": 80, "seed": 3}
    choice = chat(prefix, **asked).choices[0]
    assert choice.finish_reason == "tool_calls", choice
    call, arguments = only_call(choice.message)
    assert set(arguments) >= {"a", "b"}, arguments
    chunks = list(chat(prefix, **asked, stream=True))
    streamed = litellm.stream_chunk_builder(chunks).choices[0]
    assert only_call(streamed.message)[1] == arguments and streamed.finish_reason == "tool_calls", streamed
    answer = {"role": "tool", "tool_call_id": call.id, "content": "42"}
    messages = [*QUESTION, choice.message.model_dump(), answer]
    assert chat(prefix, messages=messages, tools=[ADD], tool_choice="none", temperature=0).choices[0].message.content


# --- completions -------------------------------------------------------------------------------------------------


def complete(**fields):
    fields = {"model": f"text-completion-openai/{MODEL}", "prompt": "The capital of France is", "max_tokens": 8} | fields
    return litellm.text_completion(**(SERVER | fields))


def test_a_completion_answers_whole_and_streamed():
    whole = complete(temperature=0)
    assert "Paris" in whole.choices[0].text and whole.usage.completion_tokens == 8, whole
    chunks = list(complete(temperature=0, stream=True))
    assert "".join(chunk.choices[0].text or "" for chunk in chunks) == whole.choices[0].text


def test_a_completion_gives_log_probabilities():
    scores = complete(temperature=0, logprobs=1).choices[0].logprobs
    assert len(scores.token_logprobs) == 8 and all(score <= 0 for score in scores.token_logprobs), scores


@each
def test_a_chat_provider_completes_text(prefix):
    answer = complete(model=f"{prefix}/{MODEL}", temperature=0)
    assert answer.choices[0].text and answer.usage.completion_tokens == 8, answer


# --- errors ------------------------------------------------------------------------------------------------------


@each
def test_errors_become_its_exceptions(prefix):
    error = expect(litellm.AuthenticationError, chat, prefix=prefix, api_key="sk-wrong")
    assert error.status_code == 401
    error = expect(litellm.NotFoundError, litellm.completion, **fields_of(prefix, {"model": f"{prefix}/no-such-model"}))
    assert "no-such-model" in str(error)
    error = expect(litellm.BadRequestError, chat, prefix=prefix, temperature=-1)
    assert "temperature" in str(error), error
    expect(litellm.ContextWindowExceededError, chat, prefix=prefix, messages=[{"role": "user", "content": "word " * 9000}])


if __name__ == "__main__":
    run_tests(globals())
