"""langchain-openai, unchanged, against a running server.

    python langchain_suite.py BASE_URL KEY MODEL

`tests/clients.rs` installs the client, starts the server and runs this.
"""

import asyncio
import typing

import openai
import pydantic
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAI

from suite import BASE_URL, KEY, MODEL, expect, run_tests

SERVER = {"base_url": BASE_URL, "api_key": KEY, "model": MODEL, "max_retries": 0, "timeout": 300}
HELLO = "Say hello in one short sentence."
QUESTION = "What is 17 plus 25?"


def chat(**fields):
    return ChatOpenAI(**(SERVER | {"temperature": 0, "max_tokens": 12} | fields))


# --- chat --------------------------------------------------------------------------------------------------------


def test_chat_answers():
    answer = chat().invoke([SystemMessage("You are brief."), HumanMessage(HELLO)])
    assert answer.content.strip() and answer.response_metadata["finish_reason"] in ("stop", "length")
    assert answer.response_metadata["model_name"] == MODEL
    usage = answer.usage_metadata
    assert usage["input_tokens"] > 0 and usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]


def test_a_stream_says_the_same():
    whole = chat().invoke(HELLO)
    chunks = list(chat().stream(HELLO))
    assert len(chunks) > 2 and "".join(chunk.content for chunk in chunks) == whole.content


def test_a_stream_gives_usage_on_demand():
    whole = chat().invoke(HELLO)
    total = None
    for chunk in chat(stream_usage=True).stream(HELLO):
        total = chunk if total is None else total + chunk
    assert total.content == whole.content
    for count in ("input_tokens", "output_tokens", "total_tokens"):
        assert total.usage_metadata[count] == whole.usage_metadata[count], (total, whole)
    assert total.response_metadata["finish_reason"] == whole.response_metadata["finish_reason"]


def test_a_batch_is_answered_in_order():
    words = ["one", "two", "three"]
    prompts = [f"Repeat the word {word}." for word in words]
    alone = [chat().invoke(prompt).content for prompt in prompts]
    assert [answer.content for answer in chat().batch(prompts)] == alone


def test_async_calls_say_the_same():
    async def run():
        model = chat()
        whole = (await model.ainvoke(HELLO)).content
        streamed = "".join([chunk.content async for chunk in model.astream(HELLO)])
        batch = [answer.content for answer in await model.abatch([HELLO, HELLO])]
        return {whole, streamed, *batch}

    assert asyncio.run(run()) == {chat().invoke(HELLO).content}


def test_log_probabilities_and_a_seed_arrive():
    answer = chat(logprobs=True, top_logprobs=2).invoke(HELLO)
    tokens = answer.response_metadata["logprobs"]["content"]
    assert len(tokens) == answer.usage_metadata["output_tokens"] or len(tokens) == answer.usage_metadata["output_tokens"] - 1
    assert all(len(token["top_logprobs"]) == 2 for token in tokens)
    texts = [chat(temperature=1.0, seed=seed).invoke(HELLO).content for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2], texts


# --- tools -------------------------------------------------------------------------------------------------------

Number = typing.Annotated[int, pydantic.Field(ge=0, le=99)]


@tool
def add(a: Number, b: Number) -> int:
    """The sum of two numbers."""
    return a + b


def test_a_bound_tool_is_called_and_its_answer_goes_back():
    model = chat(max_tokens=80, seed=3, temperature=1.0)
    calling = model.bind_tools([add], tool_choice="add")
    first = calling.invoke(QUESTION)
    (call,) = first.tool_calls
    assert call["name"] == "add" and set(call["args"]) == {"a", "b"} and not first.invalid_tool_calls, first
    answer = add.invoke(call)
    assert isinstance(answer, ToolMessage) and answer.content == str(call["args"]["a"] + call["args"]["b"])
    second = model.bind_tools([add], tool_choice="none").invoke([HumanMessage(QUESTION), first, answer])
    assert isinstance(second, AIMessage) and second.content and not second.tool_calls, second


def test_a_streamed_call_is_put_together():
    calling = chat(max_tokens=80, seed=3, temperature=1.0).bind_tools([add], tool_choice="any", parallel_tool_calls=False)
    total = None
    for chunk in calling.stream(QUESTION):
        total = chunk if total is None else total + chunk
    (streamed,) = total.tool_calls
    (whole,) = calling.invoke(QUESTION).tool_calls
    assert (streamed["name"], streamed["args"]) == (whole["name"], whole["args"]), (total, whole)


# --- structured output -------------------------------------------------------------------------------------------


class Day(pydantic.BaseModel):
    """What a day is like."""

    weekday: typing.Literal["Monday", "Sunday"]
    is_rainy: bool


def test_structured_output_of_every_method():
    default = chat(max_tokens=120, temperature=1.0, seed=5).with_structured_output(Day)
    assert isinstance(default.invoke(HELLO), Day)
    for method in ("json_schema", "function_calling"):
        structured = chat(max_tokens=120, temperature=1.0, seed=5).with_structured_output(Day, method=method, include_raw=True)
        answer = structured.invoke(HELLO)
        assert isinstance(answer["parsed"], Day) and answer["parsing_error"] is None, (method, answer)


def test_structured_output_is_streamed():
    structured = chat(max_tokens=120, temperature=1.0, seed=5).with_structured_output(Day)
    assert list(structured.stream(HELLO))[-1] == structured.invoke(HELLO)


# --- completions -------------------------------------------------------------------------------------------------


def test_completions_answer_whole_streamed_and_several_at_a_time():
    model = OpenAI(**(SERVER | {"temperature": 0, "max_tokens": 8}))
    prompts = ["The capital of France is", "One, two, three,"]
    whole = [model.invoke(prompt) for prompt in prompts]
    assert "Paris" in whole[0], whole
    assert "".join(model.stream(prompts[0])) == whole[0]
    together = model.generate(prompts)
    assert [generations[0].text for generations in together.generations] == whole
    usage = together.llm_output["token_usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"] and usage["completion_tokens"] == 16


# --- errors ------------------------------------------------------------------------------------------------------


def test_errors_keep_their_types():
    from langchain_openai.chat_models.base import OpenAIContextOverflowError

    expect(openai.AuthenticationError, chat(api_key="sk-wrong").invoke, input=HELLO)
    expect(openai.NotFoundError, chat(model="no-such-model").invoke, input=HELLO)
    expect(openai.BadRequestError, chat(temperature=-1).invoke, input=HELLO)
    expect(OpenAIContextOverflowError, chat().invoke, input="word " * 9000)


if __name__ == "__main__":
    run_tests(globals())
