"""Readers of a step's logits: sampled tokens and log-probabilities."""
