"""A Megatron checkpoint to write: its files, and which directory it may join."""
