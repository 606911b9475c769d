// @anthropic-ai/sdk, the official client for Node.
import Anthropic from "@anthropic-ai/sdk";
import { API_KEY, BASE_URL, HELLO, JUDGE, MODEL, RESULT, SYSTEM, VERDICT_SCHEMA, WEATHER, WEATHER_SCHEMA, errors, report, vary } from "./runner.mjs";

const client = (apiKey = API_KEY) => new Anthropic({ baseURL: BASE_URL, apiKey, maxRetries: 0 });
const ask = (content) => [{ role: "user", content }];
const tool = { name: "get_weather", description: "The weather.", input_schema: WEATHER_SCHEMA };
const textOf = ({ content }) => content.filter(({ type }) => type === "text").map(({ text }) => text).join("");

const chat = (options = {}, key = API_KEY) =>
  client(key).messages.create({ model: MODEL, max_tokens: 200, messages: ask(HELLO), ...options });
const stream = (options = {}) =>
  client().messages.stream({ model: MODEL, max_tokens: 200, messages: ask(HELLO), ...options }).finalMessage();

async function tools(send = chat, options = {}) {
  const called = await send({ messages: ask(WEATHER), tools: [tool], ...options });
  const call = called.content.find(({ type }) => type === "tool_use");
  const result = [{ type: "tool_result", tool_use_id: call.id, content: RESULT }];
  const messages = [...ask(WEATHER), { role: "assistant", content: called.content }, { role: "user", content: result }];
  return textOf(await send({ messages, tools: [tool], ...options }));
}

async function structured() {
  const judge = { name: "Verdict", input_schema: VERDICT_SCHEMA };
  const called = await chat({ messages: ask(JUDGE), tools: [judge], tool_choice: { type: "tool", name: "Verdict" } });
  return called.content.find(({ type }) => type === "tool_use").input;
}

const whole = await chat(), streamed = await stream();
report({
  chat: textOf(whole),
  stream: textOf(streamed),
  usage: [whole, streamed].map(({ usage }) => [usage.input_tokens + usage.cache_read_input_tokens, usage.output_tokens]),
  tools: await tools(),
  streamed_tools: await tools(stream),
  structured: await structured(),
  errors: await errors((key) => chat({}, key)),
});
const options = [
  { system: SYSTEM }, { system: [{ type: "text", text: SYSTEM, cache_control: { type: "ephemeral" } }] }, { temperature: 0.4, top_k: 9 },
  { max_tokens: 6 }, { stop_sequences: ["."] }, { metadata: { user_id: "ann" } }, { thinking: { type: "disabled" } },
  { thinking: { type: "enabled", budget_tokens: 1024 }, max_tokens: 1500 }, { tools: [tool], tool_choice: { type: "any" } },
  { tools: [tool], tool_choice: { type: "none" } },
  { messages: [...ask("Who are you?"), { role: "assistant", content: "The keeper." }, ...ask("Of what?")] },
];
await vary([
  ...options.map((each) => () => chat(each)),
  ...options.map((each) => () => stream(each)),
  ...options.slice(0, 3).map((each) => () => tools(chat, each)),
  () => client().messages.countTokens({ model: MODEL, messages: ask(HELLO), tools: [tool] }),
  () => client().models.list(),
]);
