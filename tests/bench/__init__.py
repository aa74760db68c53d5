"""`make bench`: how fast vlconv is, beside `cp` and beside what one would run instead, and how much memory it takes.

    checkout            which vlconv is measured
    asked               the command line
    geometry, making    the checkpoints, of random weights; by_megatron_core, chunked: two ways to write torch_dist
    scratch, cache      room on the disk, what is left of it, and what of a file lies in memory
    process             a process, run and measured
    comparisons, rounds what is run beside what, and the running of it; rivals and rival: other programs
    starts, curves      starting times and planning; what grows with what
    summary, fit        figures out of what was measured
    table, plot, show   what is shown of a bench.json

docs/bench.md says what is measured, and how.
"""
