// What the Node programs share, as runner.py does for Python.
export const { BASE_URL, API_KEY, MODEL, VARIED } = process.env;
const WRONG_KEYS = { 401: "sk-inferd-wrong", 402: process.env.BROKE_KEY, 429: process.env.LIMITED_KEY };

export const HELLO = "Say hello.";
export const WEATHER = "What is the weather in Paris?";
export const JUDGE = "Judge the weather in Paris.";
export const RESULT = "21 degrees and sunny";
export const SYSTEM = "You are a keeper of a lighthouse.";
export const WEATHER_SCHEMA = {
  type: "object",
  properties: { city: { type: "string", description: "A city." } },
  required: ["city"],
  additionalProperties: false,
};
export const VERDICT_SCHEMA = {
  type: "object",
  properties: { mood: { type: "string", enum: ["good", "bad"] }, score: { type: "integer" } },
  required: ["mood", "score"],
  additionalProperties: false,
};

export function report(said) {
  console.log(JSON.stringify(said));
}

// The classes of what `call` throws with each wrong key, and its status.
export async function errors(call) {
  const found = {};
  for (const [status, key] of Object.entries(WRONG_KEYS)) {
    found[status] = [];
    try {
      await call(key);
    } catch (error) {
      for (let kind = error.constructor; kind?.name; kind = Object.getPrototypeOf(kind)) found[status].push(kind.name);
      found[status].push(`status ${error.status ?? error.statusCode}`);
    }
  }
  return found;
}

// Makes the calls, if this run is recorded. A call that fails is told on stderr and stops nothing.
export async function vary(calls) {
  if (!VARIED) return;
  for (const call of calls) {
    try {
      await call();
    } catch (error) {
      console.error(String(error));
    }
  }
}
