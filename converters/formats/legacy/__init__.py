"""Megatron's legacy checkpoint: a torch.save file per rank."""
