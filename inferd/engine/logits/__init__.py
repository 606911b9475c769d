"""What is read from a step's logits: sampled tokens and log-probabilities."""
