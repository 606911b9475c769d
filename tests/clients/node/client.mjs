// What test_openai_node.py runs: the official Node client against the server. Prints one JSON object.
import assert from "node:assert/strict";
import OpenAI from "openai";

const { BASE_URL: baseURL, API_KEY: apiKey, MODEL: model, PARAMETERS } = process.env;
const client = new OpenAI({ baseURL, apiKey, maxRetries: 0 });
const messages = [{ role: "user", content: "What is the weather in Paris?" }];
const tools = [{ type: "function", function: { name: "get_weather", parameters: JSON.parse(PARAMETERS) } }];
const verdict = {
  type: "object",
  properties: { mood: { enum: ["good", "bad"] } },
  required: ["mood"],
  additionalProperties: false,
};

async function chat() {
  const done = await client.chat.completions.create({ model, messages, max_tokens: 12 });
  return done.choices[0].message.content;
}

async function stream() {
  const chunks = [];
  const stream = await client.chat.completions.create({
    model, messages, max_tokens: 12, stream: true, stream_options: { include_usage: true },
  });
  for await (const chunk of stream) chunks.push(chunk);
  assert.ok(chunks.at(-1).usage.completion_tokens <= 12);
  return chunks.map((chunk) => chunk.choices[0]?.delta.content ?? "").join("");
}

async function toolCall() {
  const runner = client.chat.completions.stream({ model, messages, tools, tool_choice: "required", parallel_tool_calls: false, max_tokens: 200 });
  const { choices: [choice] } = await runner.finalChatCompletion();
  assert.equal(choice.finish_reason, "tool_calls");
  return choice.message.tool_calls[0].function;
}

async function structured() {
  const done = await client.chat.completions.parse({
    model, messages, max_tokens: 60,
    response_format: { type: "json_schema", json_schema: { name: "verdict", strict: true, schema: verdict } },
  });
  return JSON.parse(done.choices[0].message.content);
}

async function errors() {
  const codes = [];
  for (const wrong of [{ model: "no/model" }, { temperature: 9 }]) {
    try {
      await client.chat.completions.create({ model, messages, ...wrong });
    } catch (error) {
      codes.push([error.constructor.name, error.param]);
    }
  }
  return codes;
}

console.log(JSON.stringify({
  chat: await chat(), stream: await stream(), call: await toolCall(), structured: await structured(), errors: await errors(),
}));
