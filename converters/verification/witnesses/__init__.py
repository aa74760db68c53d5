"""Foreign readers that read a checkpoint a second time: megatron-core and transformers themselves."""
