// openai, the official client for Node.
import OpenAI from "openai";
import { API_KEY, BASE_URL, HELLO, JUDGE, MODEL, RESULT, SYSTEM, VERDICT_SCHEMA, WEATHER, WEATHER_SCHEMA, errors, report, vary } from "./runner.mjs";

const client = (apiKey = API_KEY) => new OpenAI({ baseURL: `${BASE_URL}/v1`, apiKey, maxRetries: 0 });
const ask = (content) => [{ role: "user", content }];
const tool = { type: "function", function: { name: "get_weather", description: "The weather.", parameters: WEATHER_SCHEMA } };
const form = { type: "json_schema", json_schema: { name: "verdict", strict: true, schema: VERDICT_SCHEMA } };

const chat = (options = {}, key = API_KEY) =>
  client(key).chat.completions.create({ model: MODEL, messages: ask(HELLO), ...options });

async function stream(options = {}) {
  const runner = client().chat.completions.stream({ model: MODEL, messages: ask(HELLO), stream_options: { include_usage: true }, ...options });
  return await runner.finalChatCompletion();
}

async function tools(options = {}) {
  const runner = client().chat.completions.runTools({
    model: MODEL, messages: ask(WEATHER), ...options,
    tools: [{ type: "function", function: { ...tool.function, function: () => RESULT, parse: JSON.parse } }],
  });
  return await runner.finalContent();
}

const response = (options = {}) => client().responses.create({ model: MODEL, input: HELLO, ...options });
async function responseStream(options = {}) {
  return (await client().responses.stream({ model: MODEL, input: HELLO, ...options }).finalResponse()).output_text;
}

const whole = await chat(), streamed = await stream();
const judged = await client().chat.completions.parse({ model: MODEL, messages: ask(JUDGE), response_format: form });
report({
  chat: whole.choices[0].message.content,
  stream: streamed.choices[0].message.content,
  usage: [whole, streamed].map(({ usage }) => [usage.prompt_tokens, usage.completion_tokens]),
  tools: await tools(),
  structured: JSON.parse(judged.choices[0].message.content),
  embeddings: (await client().embeddings.create({ model: MODEL, input: ["a", "b"] })).data.length,
  responses: [(await response()).output_text, await responseStream()],
  errors: await errors((key) => chat({}, key)),
});
const options = [
  { temperature: 0.2, top_p: 0.9 }, { max_tokens: 7, seed: 3 }, { max_completion_tokens: 8 }, { stop: ["."] }, { n: 2 },
  { logprobs: true, top_logprobs: 1 }, { user: "ann" }, { reasoning_effort: "low" }, { tools: [tool], tool_choice: "required" },
  { tools: [tool], tool_choice: "none" }, { response_format: { type: "json_object" } }, { response_format: form },
  { messages: [{ role: "developer", content: SYSTEM }, ...ask(HELLO)] },
  { messages: [...ask("Who are you?"), { role: "assistant", content: "The keeper." }, ...ask("Of what?")] },
];
await vary([
  ...options.map((each) => () => chat(each)),
  ...options.map((each) => () => stream(each)),
  ...options.slice(0, 3).map((each) => () => tools(each)),
  () => response({ instructions: SYSTEM, max_output_tokens: 20 }),
  () => response({ reasoning: { effort: "low", summary: "auto" }, store: false }),
  () => responseStream({ text: { format: { type: "json_schema", name: "v", schema: VERDICT_SCHEMA, strict: true } } }),
  () => client().completions.create({ model: MODEL, prompt: "Once", max_tokens: 4 }),
  () => client().models.list(),
]);
