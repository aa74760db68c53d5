"""The outside witness of what is written for Hugging Face: vLLM itself, on a CPU, in an environment of its own.

    sources    tiny Hugging Face models that vLLM can run on a CPU
    forms      every form that mcore2hf writes, made of a source by way of Megatron
    prompts    text and images
    logprobs   what a model says of every token of the vocabulary: a table for each prompt
    engine     vLLM in this process

Source and form have the same numbers in another arrangement, so transformers on the source says what vLLM on the form
must say. That is no proof of Megatron's side: a wrong order of heads there comes back as it went. Megatron's side has
its witnesses in tests/mcore.
"""
