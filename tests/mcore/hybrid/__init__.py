"""The part of the witness that knows hybrids: Qwen3.5 and Qwen3-Next, where most layers are a Gated DeltaNet.

tiny       small configs of them
hub        their names and shapes on the Hub, and values that suit them
names      their canonical mcore names
formulas   what their own parameters hold on a rank
specs      megatron-core's config and layer specs
"""
