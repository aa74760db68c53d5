"""The outside witness: checkpoints that megatron-core itself writes and reads, on CPU.

Nothing here uses vlconv, except for the dataclass of a model's integers. Megatron-core lives in processes of its own
(`ranks`), so that
the test process imports none of it and keeps its torch unpatched.

    save      megatron-core writes a checkpoint of known Hugging Face tensors, at any topology and in any key form
    legacy    both for the legacy format of one file for each rank
    load      megatron-core loads a checkpoint strictly; every local parameter is compared with the formula
    fill      the formulas: what a rank's parameter holds, given the Hugging Face tensors
    forward   megatron-core's forward pass on given mcore tensors
    tiny      small configs and random Hugging Face tensors for them
    hybrid    what is peculiar to Qwen3.5 and Qwen3-Next, and the forward pass of an MTP head
"""
