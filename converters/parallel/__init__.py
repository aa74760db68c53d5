"""What one rank of a Megatron model holds."""
