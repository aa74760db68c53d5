"""vlconv: Qwen checkpoints between Megatron and Hugging Face, without a lost or moved element."""

__version__ = "0.1.0"
