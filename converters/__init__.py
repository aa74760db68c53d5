"""Qwen-VL checkpoints between Megatron and Hugging Face."""
