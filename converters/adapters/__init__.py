"""Low-rank adapters (LoRA): read from Megatron checkpoints and PEFT directories, merged, and written."""
