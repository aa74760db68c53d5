"""Adapters (LoRA) of checkpoints: beside their base, alone, and what is said of them."""
