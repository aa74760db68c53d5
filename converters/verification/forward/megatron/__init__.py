"""megatron-core's own model computes on the language model of a Megatron checkpoint: verify --forward."""
