"""Adapters (LoRA) alone: out of a PEFT directory, and into one."""
