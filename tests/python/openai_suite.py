"""The official client, unchanged, against a running server.

    python openai_suite.py BASE_URL KEY MODEL

`tests/openai_client.rs` installs the client, starts the server and runs this.
"""

import asyncio
import json
import re
import typing

import openai
import pydantic

from suite import BASE_URL, KEY, MODEL, expect, run_tests

client = openai.OpenAI(base_url=BASE_URL, api_key=KEY, max_retries=0, timeout=300)

HELLO = [{"role": "user", "content": "Say hello in one short sentence."}]


def chat(**fields):
    return client.chat.completions.create(**({"model": MODEL, "messages": HELLO, "max_tokens": 24} | fields))


def complete(**fields):
    return client.completions.create(**({"model": MODEL, "prompt": "The capital of France is", "max_tokens": 12} | fields))


def text_of(stream):
    return "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)


# --- models ------------------------------------------------------------------------------------------------------


def test_the_model_is_listed_and_found():
    models = client.models.list().data
    assert MODEL in [model.id for model in models], models
    found = client.models.retrieve(MODEL)
    assert found.id == MODEL and found.object == "model" and found.created > 0


# --- chat --------------------------------------------------------------------------------------------------------


def test_chat_answers():
    answer = chat(temperature=0)
    choice = answer.choices[0]
    assert answer.object == "chat.completion" and answer.model == MODEL and answer.id
    assert choice.message.role == "assistant" and choice.message.content.strip()
    assert choice.finish_reason in ("stop", "length")
    usage = answer.usage
    assert usage.prompt_tokens > 0 and 0 < usage.completion_tokens <= 24
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens


def test_a_stream_says_the_same_as_one_answer():
    whole = chat(temperature=0).choices[0]
    chunks = list(chat(temperature=0, stream=True))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
    assert len({(chunk.id, chunk.created, chunk.model) for chunk in chunks}) == 1
    assert chunks[-1].choices[0].finish_reason == whole.finish_reason
    assert [chunk for chunk in chunks[:-1] if chunk.choices[0].finish_reason] == []
    assert text_of(chunks) == whole.message.content


def test_a_stream_may_end_with_usage():
    chunks = list(chat(temperature=0, stream=True, stream_options={"include_usage": True}))
    assert chunks[-1].choices == []
    assert chunks[-1].usage == chat(temperature=0).usage or chunks[-1].usage.completion_tokens > 0
    assert all(chunk.usage is None for chunk in chunks[:-1])


def test_max_completion_tokens_bounds_the_answer():
    answer = chat(max_tokens=openai.omit, max_completion_tokens=3, extra_body={"ignore_eos": True})
    assert answer.usage.completion_tokens == 3 and answer.choices[0].finish_reason == "length"


def test_two_choices():
    answer = chat(n=2, seed=5, temperature=1.0)
    assert [choice.index for choice in answer.choices] == [0, 1]
    assert answer.choices[0].message.content != answer.choices[1].message.content
    streamed = {0: "", 1: ""}
    for chunk in chat(n=2, seed=5, temperature=1.0, stream=True):
        for choice in chunk.choices:
            streamed[choice.index] += choice.delta.content or ""
    assert [streamed[0], streamed[1]] == [choice.message.content for choice in answer.choices]


def test_a_seed_repeats_and_another_differs():
    answers = [chat(seed=seed, temperature=1.0).choices[0].message.content for seed in (1, 1, 2)]
    assert answers[0] == answers[1] != answers[2]


def test_chat_logprobs():
    choice = chat(temperature=0, logprobs=True, top_logprobs=3).choices[0]
    tokens = choice.logprobs.content
    assert b"".join(bytes(token.bytes) for token in tokens).decode().startswith(choice.message.content)
    for token in tokens:
        assert len(token.top_logprobs) == 3
        assert token.logprob <= 0 and token.top_logprobs[0].logprob == token.logprob
        assert token.top_logprobs == sorted(token.top_logprobs, key=lambda top: -top.logprob)


def test_streamed_chat_logprobs_are_the_same():
    whole = chat(temperature=0, logprobs=True, top_logprobs=2).choices[0].logprobs.content
    streamed = []
    for chunk in chat(temperature=0, logprobs=True, top_logprobs=2, stream=True):
        if chunk.choices[0].logprobs:
            streamed += chunk.choices[0].logprobs.content or []
    assert streamed == whole


def test_a_conversation_goes_on():
    messages = [
        {"role": "system", "content": "You are brief."},
        {"role": "user", "content": "Pick a colour."},
        {"role": "assistant", "content": "Blue."},
        {"role": "user", "content": [{"type": "text", "text": "Which colour was it?"}]},
    ]
    assert chat(messages=messages, temperature=0).choices[0].message.content


# --- completions -------------------------------------------------------------------------------------------------


def test_a_completion_answers():
    answer = complete(temperature=0)
    assert answer.object == "text_completion" and answer.choices[0].text
    assert "Paris" in answer.choices[0].text, answer.choices[0].text


def test_a_streamed_completion_says_the_same():
    whole = complete(temperature=0).choices[0]
    chunks = list(complete(temperature=0, stream=True))
    assert "".join(chunk.choices[0].text for chunk in chunks) == whole.text
    assert chunks[-1].choices[0].finish_reason == whole.finish_reason


def test_completions_default_to_16_tokens():
    answer = complete(max_tokens=openai.omit, extra_body={"ignore_eos": True})
    assert answer.usage.completion_tokens == 16


def test_a_stop_string_ends_the_text_before_it():
    whole = complete(temperature=0, prompt="1, 2, 3, 4,", max_tokens=40).choices[0].text
    assert "7" in whole, whole
    for stop in (" 7", [" 7", "never"]):
        answer = complete(temperature=0, prompt="1, 2, 3, 4,", max_tokens=40, stop=stop).choices[0]
        assert answer.text == whole[: whole.index(" 7")] and answer.finish_reason == "stop"
    streamed = complete(temperature=0, prompt="1, 2, 3, 4,", max_tokens=40, stop=" 7", stream=True)
    assert "".join(chunk.choices[0].text for chunk in streamed) == whole[: whole.index(" 7")]


def test_several_prompts_and_choices_are_numbered():
    answer = complete(prompt=["One", "Two"], n=2, max_tokens=4, seed=3, temperature=1.0)
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]


def test_prompts_may_be_token_ids():
    one = complete(prompt=[504, 3575, 282, 4649, 314], temperature=0).choices[0].text
    many = complete(prompt=[[504, 3575, 282, 4649, 314], [504]], temperature=0)
    assert many.choices[0].text == one and len(many.choices) == 2


def test_echo_scores_the_prompt_alone():
    answer = complete(prompt="The capital of France is", echo=True, logprobs=1, max_tokens=0, temperature=0)
    choice = answer.choices[0]
    assert choice.text == "The capital of France is" and answer.usage.completion_tokens == 0
    scores = choice.logprobs
    assert len(scores.tokens) == len(scores.token_logprobs) == len(scores.top_logprobs) == answer.usage.prompt_tokens
    assert scores.token_logprobs[0] is None and all(score <= 0 for score in scores.token_logprobs[1:])
    assert scores.text_offset[0] == 0 and "".join(scores.tokens) == choice.text


def test_a_likelihood_as_evaluation_harnesses_ask_for_it():
    answer = complete(prompt=[[504, 3575, 282, 4649, 314]], echo=True, logprobs=1, max_tokens=1, temperature=0, seed=1234)
    scores = answer.choices[0].logprobs
    for score, top in zip(scores.token_logprobs[1:-1], scores.top_logprobs[1:-1]):
        assert score is not None and max(top.values()) >= score
    assert scores.token_logprobs[-1] == max(scores.top_logprobs[-1].values())


# --- parameters --------------------------------------------------------------------------------------------------


def test_a_bias_forbids_and_forces_tokens():
    first = complete(temperature=0, max_tokens=1, logprobs=1, extra_body={"return_tokens_as_token_ids": True})
    banned = first.choices[0].logprobs.tokens[0].removeprefix("token_id:")
    assert complete(temperature=0, max_tokens=1, logit_bias={banned: -100}).choices[0].text != first.choices[0].text
    assert len(set(complete(temperature=1, max_tokens=6, logit_bias={banned: 100}).choices[0].text.split())) == 1


def test_sampling_parameters_are_taken():
    extra = {"top_k": 20, "min_p": 0.05, "repetition_penalty": 1.1, "min_tokens": 2, "ignore_eos": True}
    answer = complete(
        temperature=0.7, top_p=0.9, presence_penalty=0.5, frequency_penalty=0.5, seed=9, max_tokens=8, extra_body=extra
    )
    assert answer.usage.completion_tokens == 8


def test_top_k_1_is_greedy():
    assert complete(temperature=1.5, extra_body={"top_k": 1}).choices[0].text == complete(temperature=0).choices[0].text


# --- errors ------------------------------------------------------------------------------------------------------


def test_a_wrong_key_is_an_authentication_error():
    stranger = client.with_options(api_key="sk-wrong")
    error = expect(openai.AuthenticationError, stranger.models.list)
    assert error.status_code == 401 and error.body["message"]


def test_an_unknown_model_is_not_found():
    error = expect(openai.NotFoundError, chat, model="no-such-model")
    assert "no-such-model" in str(error)
    expect(openai.NotFoundError, client.models.retrieve, model="no-such-model")


def test_nonsense_is_a_bad_request_that_names_its_field():
    for field, value in {
        "temperature": -1,
        "top_p": 2,
        "n": 0,
        "max_tokens": -5,
        "messages": [],
        "top_logprobs": 3,
        "stop": [1],
        "presence_penalty": 9,
    }.items():
        error = expect(openai.BadRequestError, chat, **{field: value})
        assert error.param == field, f"{field}: {error.body}"


def test_what_is_not_supported_is_refused_and_never_ignored():
    expect(openai.BadRequestError, chat, tools=[{"type": "web_search"}])
    expect(openai.BadRequestError, chat, functions=[{"name": "f", "parameters": {}}])
    expect(openai.BadRequestError, chat, response_format={"type": "xml"})
    expect(openai.BadRequestError, complete, best_of=3)
    expect(openai.BadRequestError, chat, messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}])


def test_unknown_fields_are_ignored():
    assert chat(extra_body={"some_future_field": True}).choices


# --- structured output -------------------------------------------------------------------------------------------


class Day(pydantic.BaseModel):
    weekday: typing.Literal["Monday", "Sunday"]
    temperatures: typing.Annotated[list[typing.Annotated[int, pydantic.Field(ge=-40, le=50)]], pydantic.Field(min_length=1, max_length=3)]
    is_rainy: bool


def form(**fields):
    return chat(**({"max_tokens": 200, "temperature": 1.0} | fields)).choices


def test_a_json_object_is_one():
    choices = form(n=2, response_format={"type": "json_object"}, max_tokens=400)
    for choice in choices:
        assert choice.finish_reason == "length" or isinstance(json.loads(choice.message.content), dict), choices


def test_a_schema_made_from_a_class_is_kept():
    for seed in range(4):
        answer = client.chat.completions.parse(
            model=MODEL, messages=HELLO, response_format=Day, max_tokens=200, temperature=1.0, seed=seed
        )
        assert isinstance(answer.choices[0].message.parsed, Day), answer


def test_a_streamed_schema_is_the_whole_one():
    fields = {"model": MODEL, "messages": HELLO, "response_format": Day, "max_tokens": 200, "seed": 5}
    with client.chat.completions.stream(**fields) as stream:
        streamed = stream.get_final_completion().choices[0].message
    whole = client.chat.completions.parse(**fields).choices[0].message
    assert streamed.content == whole.content and streamed.parsed == whole.parsed


def test_a_pattern_a_choice_and_a_grammar_are_kept():
    for field, pattern in {
        "regex": r"[0-9]{3}-[a-f]{2}",
        "choice": "red|green|light blue",
        "grammar": "(yes|no)!",
    }.items():
        value = {"regex": pattern, "choice": pattern.split("|"), "grammar": 'start: ("yes" | "no") "!"'}[field]
        for choice in form(n=3, extra_body={"structured_outputs": {field: value}}):
            assert re.fullmatch(pattern, choice.message.content), (field, choice)


# --- tools -------------------------------------------------------------------------------------------------------

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
QUESTION = [{"role": "user", "content": "What is 17 plus 25?"}]


def test_a_tool_is_called_and_its_answer_goes_back():
    first = chat(messages=QUESTION, tools=[ADD], tool_choice="required", parallel_tool_calls=False, max_tokens=100)
    choice = first.choices[0]
    assert choice.finish_reason == "tool_calls" and choice.message.content is None, first
    (call,) = choice.message.tool_calls
    arguments = json.loads(call.function.arguments)
    assert call.type == "function" and call.id and call.function.name == "add" and set(arguments) == {"a", "b"}
    answer = {"role": "tool", "tool_call_id": call.id, "content": str(arguments["a"] + arguments["b"])}
    second = chat(messages=[*QUESTION, choice.message, answer], tools=[ADD], tool_choice="none")
    assert second.choices[0].message.content and not second.choices[0].message.tool_calls, second


def test_a_streamed_call_is_put_together_by_the_client():
    named = {"type": "function", "function": {"name": "add"}}
    fields = {"model": MODEL, "messages": QUESTION, "tools": [ADD], "tool_choice": named, "max_tokens": 100, "seed": 3}
    with client.chat.completions.stream(**fields) as stream:
        events = [event.type for event in stream]
        final = stream.get_final_completion().choices[0]
    assert "tool_calls.function.arguments.delta" in events and "tool_calls.function.arguments.done" in events, events
    whole = client.chat.completions.create(**fields).choices[0]
    assert final.finish_reason == whole.finish_reason == "tool_calls"
    call, same = final.message.tool_calls[0], whole.message.tool_calls[0]
    assert (call.function.name, call.function.arguments) == (same.function.name, same.function.arguments)
    assert json.loads(call.function.arguments).keys() == {"a", "b"}


# --- streams -----------------------------------------------------------------------------------------------------


def test_a_stream_may_be_left_early():
    with chat(stream=True, max_tokens=4000, extra_body={"ignore_eos": True}) as stream:
        for number, _ in enumerate(stream):
            if number == 5:
                break
    assert chat().choices


def test_many_streams_at_a_time():
    async def run():
        async with openai.AsyncOpenAI(base_url=BASE_URL, api_key=KEY, max_retries=0, timeout=300) as many:
            async def one(seed):
                stream = await many.chat.completions.create(
                    model=MODEL, messages=HELLO, max_tokens=16, seed=seed, temperature=1.0, stream=True
                )
                return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

            return await asyncio.gather(*[one(seed) for seed in [*range(8), *range(8)]])

    texts = asyncio.run(run())
    assert texts[:8] == texts[8:] and len(set(texts[:8])) > 1


if __name__ == "__main__":
    run_tests(globals())
