// The official client for JavaScript, unchanged, against a running server.
//
//     node openai_suite.mjs BASE_URL KEY MODEL
//
// `tests/clients.rs` installs what package.json names, starts the server and runs this.

import assert from "node:assert/strict";
import OpenAI from "openai";
import { zodFunction, zodResponseFormat } from "openai/helpers/zod";
import { z } from "zod";
import { BASE_URL, KEY, MODEL, expect, runTests } from "./suite.mjs";

const client = new OpenAI({ baseURL: BASE_URL, apiKey: KEY, maxRetries: 0, timeout: 300_000 });

const HELLO = [{ role: "user", content: "Say hello in one short sentence." }];
const FRANCE = "The capital of France is";

const chat = (fields, options) =>
  client.chat.completions.create({ model: MODEL, messages: HELLO, max_tokens: 16, ...fields }, options);
const complete = (fields) => client.completions.create({ model: MODEL, prompt: FRANCE, max_tokens: 8, ...fields });

async function collect(stream) {
  const chunks = [];
  for await (const chunk of stream) {
    chunks.push(chunk);
  }
  return chunks;
}

const textOf = (chunks) => chunks.map((chunk) => chunk.choices[0]?.delta.content ?? "").join("");

// --- models ---------------------------------------------------------------------------------------------------------

async function the_model_is_listed_and_found() {
  const listed = [];
  for await (const model of client.models.list()) {
    listed.push(model.id);
  }
  assert.deepEqual(listed, [MODEL]);
  assert.equal((await client.models.retrieve(MODEL)).object, "model");
}

// --- chat -----------------------------------------------------------------------------------------------------------

async function chat_answers() {
  const { data, response, request_id } = await chat({ temperature: 0 }).withResponse();
  assert.equal(response.status, 200);
  assert.ok(request_id, "every answer has an x-request-id");
  const [choice] = data.choices;
  assert.equal(choice.message.role, "assistant");
  assert.ok(choice.message.content.trim());
  assert.equal(data.usage.total_tokens, data.usage.prompt_tokens + data.usage.completion_tokens);
}

async function a_stream_says_the_same_and_ends_with_usage() {
  const whole = await chat({ temperature: 0 });
  const chunks = await collect(await chat({ temperature: 0, stream: true, stream_options: { include_usage: true } }));
  assert.equal(textOf(chunks), whole.choices[0].message.content);
  const last = chunks.pop();
  assert.deepEqual(last.choices, []);
  assert.equal(last.usage.prompt_tokens, whole.usage.prompt_tokens);
  assert.equal(last.usage.completion_tokens, whole.usage.completion_tokens);
  assert.ok(chunks.every((chunk) => chunk.usage === null));
  assert.equal(chunks.at(-1).choices[0].finish_reason, whole.choices[0].finish_reason);
}

async function the_stream_helper_puts_an_answer_together() {
  const whole = await chat({ temperature: 0 });
  const stream = client.chat.completions.stream({ model: MODEL, messages: HELLO, max_tokens: 16, temperature: 0 });
  let seen = "";
  stream.on("content", (delta) => (seen += delta));
  const final = await stream.finalChatCompletion();
  assert.equal(final.choices[0].message.content, whole.choices[0].message.content);
  assert.equal(seen, whole.choices[0].message.content);
}

async function log_probabilities_come_streamed_and_whole() {
  const fields = { temperature: 0, logprobs: true, top_logprobs: 2 };
  const whole = (await chat(fields)).choices[0].logprobs.content;
  assert.ok(whole.length > 0 && whole.every((token) => token.top_logprobs.length === 2 && token.logprob <= 0));
  const chunks = await collect(await chat({ ...fields, stream: true }));
  assert.deepEqual(chunks.flatMap((chunk) => chunk.choices[0].logprobs?.content ?? []), whole);
}

// --- completions ----------------------------------------------------------------------------------------------------

async function a_completion_answers_whole_and_streamed() {
  const whole = await complete({ temperature: 0 });
  assert.equal(whole.object, "text_completion");
  assert.match(whole.choices[0].text, /Paris/);
  const chunks = await collect(await complete({ temperature: 0, stream: true }));
  assert.equal(chunks.map((chunk) => chunk.choices[0].text).join(""), whole.choices[0].text);
}

async function several_prompts_and_choices_are_numbered() {
  const answer = await complete({ prompt: ["One", "Two"], n: 2, max_tokens: 2, temperature: 1 });
  assert.deepEqual(answer.choices.map((choice) => choice.index), [0, 1, 2, 3]);
}

// --- structured output ----------------------------------------------------------------------------------------------

const Day = z.object({
  weekday: z.enum(["Monday", "Sunday"]),
  temperatures: z.array(z.number().int().min(-40).max(50)).min(1).max(3),
  is_rainy: z.boolean(),
  wind: z.union([z.literal("calm"), z.null()]),
});

async function a_schema_made_by_zod_is_kept() {
  const fields = {
    model: MODEL,
    messages: HELLO,
    response_format: zodResponseFormat(Day, "day"),
    max_tokens: 120,
    temperature: 1,
    seed: 4,
  };
  const whole = (await client.chat.completions.parse(fields)).choices[0].message;
  assert.deepEqual(Day.parse(whole.parsed), JSON.parse(whole.content));
  const streamed = await client.chat.completions.stream(fields).finalMessage();
  assert.deepEqual(streamed.parsed, whole.parsed);
}

// --- tools ----------------------------------------------------------------------------------------------------------

const QUESTION = [{ role: "user", content: "What is 17 plus 25?" }];
const Sum = z.object({ a: z.number().int().min(0).max(99), b: z.number().int().min(0).max(99) });

/** A tool as `runTools` takes it; what it was called with lands in `calls`. */
const adder = (calls) =>
  zodFunction({
    name: "add",
    description: "The sum of two numbers.",
    parameters: Sum,
    function: ({ a, b }) => {
      calls.push({ a, b });
      return String(a + b);
    },
  });

/** One call by force, the tool run by the client, its answer sent back: with a named choice the runner ends there. */
const runTheTool = (calls, fields) =>
  client.chat.completions.runTools({
    model: MODEL,
    messages: QUESTION,
    tools: [adder(calls)],
    tool_choice: { type: "function", function: { name: "add" } },
    parallel_tool_calls: false,
    max_tokens: 80,
    seed: 3,
    ...fields,
  });

async function a_tool_is_run_by_the_client_whole_and_streamed() {
  const [whole, streamed] = [[], []];
  const result = await runTheTool(whole, {}).finalFunctionToolCallResult();
  assert.equal(whole.length, 1);
  assert.equal(result, String(whole[0].a + whole[0].b));
  const runner = runTheTool(streamed, { stream: true });
  const fragments = [];
  runner.on("chunk", (chunk) => fragments.push(...(chunk.choices[0]?.delta.tool_calls ?? [])));
  assert.equal(await runner.finalFunctionToolCallResult(), result);
  assert.deepEqual(streamed, whole);
  assert.ok(fragments.length > 1 && fragments.every((fragment) => fragment.index === 0));
}

async function the_answer_of_a_tool_goes_back_to_the_model() {
  const runner = client.chat.completions.runTools({
    model: MODEL,
    messages: [
      ...QUESTION,
      { role: "assistant", tool_calls: [{ id: "call_1", type: "function", function: { name: "add", arguments: '{"a":17,"b":25}' } }] },
      { role: "tool", tool_call_id: "call_1", content: "42" },
    ],
    tools: [adder([])],
    tool_choice: "none",
    max_tokens: 200,
    temperature: 0,
    stop: ".",
  });
  assert.ok(await runner.finalContent());
  assert.equal((await runner.finalChatCompletion()).choices[0].finish_reason, "stop");
}

async function several_calls_may_be_made_in_one_answer() {
  const answer = await chat({
    messages: QUESTION,
    tools: [zodFunction({ name: "add", parameters: Sum })],
    tool_choice: "required",
    max_tokens: 200,
    seed: 3,
  });
  const [choice] = answer.choices;
  const calls = choice.message.tool_calls;
  // So small a model may not come to an end by itself: the last call is cut off then.
  const whole = choice.finish_reason === "length" ? calls.slice(0, -1) : calls;
  assert.ok(whole.length > 1, JSON.stringify(choice));
  assert.equal(new Set(calls.map((call) => call.id)).size, calls.length);
  for (const call of whole) {
    Sum.parse(JSON.parse(call.function.arguments));
  }
}

// --- errors ---------------------------------------------------------------------------------------------------------

async function errors_have_their_types() {
  const stranger = client.withOptions({ apiKey: "sk-wrong" });
  assert.equal((await expect(OpenAI.AuthenticationError, stranger.models.list())).status, 401);
  assert.equal((await expect(OpenAI.NotFoundError, chat({ model: "no-such-model" }))).code, "model_not_found");
  const error = await expect(OpenAI.BadRequestError, chat({ temperature: -1 }));
  assert.equal(error.param, "temperature");
  assert.equal(error.type, "invalid_request_error");
  assert.ok(error.requestID);
}

// --- streams --------------------------------------------------------------------------------------------------------

async function a_stream_may_be_aborted() {
  const controller = new AbortController();
  const stream = await chat({ stream: true, max_tokens: 4000, ignore_eos: true }, { signal: controller.signal });
  let chunks = 0;
  for await (const chunk of stream) {
    assert.ok(chunk.choices);
    chunks += 1;
    if (chunks === 4) {
      controller.abort();
    }
    assert.ok(chunks < 1000, "it goes on after the abort");
  }
  assert.ok((await chat()).choices, "and the server goes on serving");
}

async function many_streams_at_a_time_repeat_themselves() {
  const one = async (seed) => textOf(await collect(await chat({ max_tokens: 8, seed, temperature: 1, stream: true })));
  const seeds = [0, 1, 2, 3, 4, 5];
  const texts = await Promise.all([...seeds, ...seeds].map(one));
  assert.deepEqual(texts.slice(0, 6), texts.slice(6));
  assert.ok(new Set(texts).size > 1);
}

await runTests([
  the_model_is_listed_and_found,
  chat_answers,
  a_stream_says_the_same_and_ends_with_usage,
  the_stream_helper_puts_an_answer_together,
  log_probabilities_come_streamed_and_whole,
  a_completion_answers_whole_and_streamed,
  several_prompts_and_choices_are_numbered,
  a_schema_made_by_zod_is_kept,
  a_tool_is_run_by_the_client_whole_and_streamed,
  the_answer_of_a_tool_goes_back_to_the_model,
  several_calls_may_be_made_in_one_answer,
  errors_have_their_types,
  a_stream_may_be_aborted,
  many_streams_at_a_time_repeat_themselves,
]);
