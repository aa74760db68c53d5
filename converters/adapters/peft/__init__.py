"""A directory as peft saves it: adapter_config.json and adapter_model.safetensors, read and written."""
