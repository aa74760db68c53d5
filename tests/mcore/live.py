"""On a rank: megatron-core's own model against vlconv.converters.live. Called by tests/live."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed

from vlconv.converters.live import Rank, export_rank, live_model, load_rank, placements, rank_at

from . import model
from .fill import fill
from .formulas import Tensors, padding_rows
from .job import Job, Part


def _chunks(job: Job) -> list[tuple[Rank, model.Chunk]]:
    """This rank's model chunks with their coordinates, those that vlconv works out of the global rank."""
    config, topology, spec, grouped, padded, _, bare = job
    chunks = model.build(config, topology, spec, grouped, padded, bare)
    number, world = torch.distributed.get_rank(), torch.distributed.get_world_size()
    ranks = [rank_at(number, world, job.sizes, vp) for vp in range(len(chunks))]
    place = model.place(topology)
    assert {(r.tp, r.ep, r.etp) for r in ranks} == {(place.tp_rank, place.ep_rank, place.etp_rank)}
    return list(zip(ranks, chunks, strict=True))


def exported(job: Job, hf: Tensors, replicas: bool) -> list[Part]:
    """What `export_rank` gives of this rank's chunks, filled by the formulas."""
    found = []
    for rank, chunk in _chunks(job):
        fill(chunk, model.place(job.topology), job.config, hf)
        state = {f"module.module.{name}": value for name, value in chunk.named_parameters()}
        known = live_model(job.config, job.layout)
        how: dict[str, Any] = {"make_vocab_size_divisible_by": job.divisor}
        where = placements(known, None, job.sizes, rank, names=state, **how)
        first = {(p.hf_name, p.hf_box) for listed in where.values() for p in listed if not p.replica}
        for part in export_rank(state, known, None, job.sizes, rank, replicas=replicas, **how):
            again = (part.name, part.box) not in first
            found.append(Part(part.name, part.box.offsets, part.tensor.clone(), again))
    return found


def loaded(job: Job, hf: Tensors, directory: str) -> list[str]:
    """What differs between this rank's parameters by the formulas and what `load_rank` reads."""
    faults = []
    for rank, chunk in _chunks(job):
        place = model.place(job.topology)
        fill(chunk, place, job.config, hf)
        own = dict(chunk.named_parameters())
        read = load_rank(
            directory, None, job.layout, job.sizes, rank, names=own, make_vocab_size_divisible_by=job.divisor
        )
        tensors = dict(read)
        faults += sorted(own.keys() ^ tensors.keys())
        for name in own.keys() & tensors.keys():
            rows = own[name].shape[0] - padding_rows(name, place, job.config, own[name].shape[0])
            same = tensors[name].dtype == own[name].dtype and torch.equal(tensors[name][:rows], own[name].data[:rows])
            faults += [] if same and not tensors[name][rows:].any() else [name]
    return faults
