"""Adapters (LoRA) as Megatron's trainers save them, made from Hugging Face's side, and what merging has to give."""
