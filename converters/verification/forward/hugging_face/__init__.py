"""transformers runs a Hugging Face directory."""
