"""FP8 weights of Hugging Face directories: what config.json and files say of them, and the form to write them in."""
