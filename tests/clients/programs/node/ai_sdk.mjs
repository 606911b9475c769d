// The AI SDK with its three providers for a server like this one: openai-compatible, openai (chat and Responses), anthropic.
import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { Output, embedMany, generateText, jsonSchema, stepCountIs, streamText, tool } from "ai";
import { API_KEY, BASE_URL, HELLO, JUDGE, MODEL, RESULT, SYSTEM, VERDICT_SCHEMA, WEATHER, WEATHER_SCHEMA, errors, report, vary } from "./runner.mjs";

globalThis.AI_SDK_LOG_WARNINGS = false;
const baseURL = `${BASE_URL}/v1`;
const compatible = (apiKey = API_KEY) =>
  createOpenAICompatible({ name: "inferd", baseURL, apiKey, includeUsage: true, supportsStructuredOutputs: true });
const openai = createOpenAI({ baseURL, apiKey: API_KEY });
const models = {
  compatible: compatible()(MODEL),
  chat: openai.chat(MODEL),
  responses: openai.responses(MODEL),
  anthropic: createAnthropic({ baseURL, apiKey: API_KEY })(MODEL),
};
const get_weather = tool({ description: "The weather.", inputSchema: jsonSchema(WEATHER_SCHEMA), execute: async () => RESULT });

const generate = (model, options = {}) => generateText({ model, prompt: HELLO, maxRetries: 0, ...options });
async function stream(model, options = {}) {
  const result = streamText({ model, prompt: HELLO, maxRetries: 0, onError: () => {}, ...options });
  return await result.text;
}
async function tools(model, options = {}) {
  return (await generate(model, { prompt: WEATHER, tools: { get_weather }, stopWhen: stepCountIs(3), ...options })).text;
}
async function judge(model, options = {}) {
  const output = Output.object({ schema: jsonSchema(VERDICT_SCHEMA) });
  return (await generate(model, { prompt: JUDGE, output, ...options })).output;
}
async function each(call) {
  const said = {};
  for (const [name, model] of Object.entries(models)) said[name] = await call(model);
  return said;
}

const whole = await generate(models.compatible);
const embedder = compatible().textEmbeddingModel(MODEL);
report({
  chat: await each(async (model) => (await generate(model)).text),
  stream: await each(stream),
  usage: [[whole.usage.inputTokens, whole.usage.outputTokens]],
  tools: await each(tools),
  structured: await each(judge),
  embeddings: (await embedMany({ model: embedder, values: ["a", "b"] })).embeddings.length,
  errors: await errors((key) => generate(compatible(key)(MODEL))),
});
const options = [
  { system: SYSTEM }, { temperature: 0.3, topP: 0.9 }, { maxOutputTokens: 8 }, { stopSequences: ["."] }, { seed: 4, topK: 5 },
  { presencePenalty: 0.1, frequencyPenalty: 0.1 }, { tools: { get_weather }, toolChoice: "none" },
  { prompt: WEATHER, tools: { get_weather }, toolChoice: "required" },
  { prompt: WEATHER, tools: { get_weather }, toolChoice: { type: "tool", toolName: "get_weather" } },
  { providerOptions: { openai: { reasoningEffort: "low", user: "ann" }, anthropic: { thinking: { type: "disabled" } } } },
  { prompt: undefined, messages: [{ role: "user", content: "Who?" }, { role: "assistant", content: "I." }, { role: "user", content: HELLO }] },
];
await vary(
  Object.values(models).flatMap((model) => [
    ...options.map((option) => () => generate(model, option)),
    ...options.slice(0, 8).map((option) => () => stream(model, option)),
    () => tools(model, { system: SYSTEM }),
    () => judge(model, { system: SYSTEM }),
  ]),
);
