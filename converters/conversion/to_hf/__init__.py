"""A Hugging Face directory to write: of a Megatron checkpoint, or of another one that an adapter goes into."""
