"""The same episodes whatever the batch, and the same log-probabilities whatever the engine.

    python benchmarks/agreement.py batches     # some minutes on 2 cores
    python benchmarks/agreement.py engines     # needs `make vllm`

`batches`: episodes of the invented world in float32, sampled 32 at a time, and again 7 at a time,
each batch in another order. Where two differ, the first token that does must lie at an edge:
`margins` are how far the random number that chose between them is from where the probability passes
from one branch to the next (`agents/sampling.py`). `engines`: absolute differences between the
log-probabilities of sampled tokens and those of one full forward by transformers, for vLLM and for
transformers' own cached sampling. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import statistics
import sys
from collections.abc import Sequence
from operator import itemgetter
from typing import Any

import torch

import agents
import ovd_envs
from agents.episode import Episode
from agents.protocol import Completion, Request
from agents.rollout import rollout
from agents.sampling import uniforms
from agents.student import Student
from agents.transformers_backend import TransformersBackend

STUDENT = "smollm2-135m"


class Shuffled(TransformersBackend):
    """A backend that samples its requests in another order."""

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """One completion for each request, in the order that was asked for."""
        order = random.Random(len(requests)).sample(range(len(requests)), len(requests))
        replies = super().generate([requests[i] for i in order])
        return [reply for _, reply in sorted(zip(order, replies, strict=True), key=itemgetter(0))]


def batches(episodes: int) -> dict[str, Any]:
    """The share of equal episodes, and how near to an edge the others part."""
    env, options = "ovd/WorldQA-v0", {"turns": 2}
    tasks = ovd_envs.make(env, **options).unwrapped.tasks.distinct("test", episodes)
    found = []
    for kind, size in ((TransformersBackend, 32), (Shuffled, 7)):
        backend = kind.load(STUDENT, dtype="float32")
        student = Student(backend, temperature=1.0, max_tokens=32)
        found.append(
            rollout(
                student, env, tasks, env_options=options, batch_size=size, mode="lockstep", seed=1
            )
        )
    margins = [
        margin(backend.model, one, other)
        for one, other in zip(*found, strict=True)
        if [s.ids for s in one.segments] != [s.ids for s in other.segments]
    ]
    return {
        "episodes": len(tasks),
        "sampled_tokens": sum(episode.num_sampled_tokens for episode in found[0]),
        "turns": sum(len(episode.turns) for episode in found[0]),
        "share_equal": 1 - len(margins) / len(tasks),
        "margins": margins,
    }


@torch.inference_mode()
def margin(model: Any, one: Episode, other: Episode) -> float:
    """How far the number that parted two episodes is from the nearest edge between branches."""
    ids, others, mask = one.segments[0].ids, other.segments[0].ids, one.segments[0].mask
    at = next(i for i, (a, b) in enumerate(zip(ids, others, strict=False)) if a != b)
    turn = sum(mask[i] and not mask[i - 1] for i in range(1, at + 1)) - 1
    start = at
    while mask[start - 1]:
        start -= 1
    draws = uniforms((*one.seed, turn), at - start + 1)[-1]
    shares = model(torch.tensor([ids[:at]])).logits[0, -1].double().softmax(-1)
    # The branches of `agents.sampling`, from the root: where do the two tokens part?
    depth = math.ceil(math.log(len(shares), 8))
    sizes = [8 ** (depth - 1 - level) for level in range(depth)]
    level = next(n for n, size in enumerate(sizes) if ids[at] // size != others[at] // size)
    draw, size = draws[level], sizes[level]
    first = ids[at] // (8 * size) * 8 * size
    sums = [shares[first + i * size : first + (i + 1) * size].sum().item() for i in range(8)]
    return min(abs(draw - sum(sums[: i + 1]) / sum(sums)) for i in range(8))


def engines(prompts: int, tokens: int) -> dict[str, Any]:
    """Differences of log-probabilities in float32 and bfloat16."""
    rng = random.Random(0)
    questions = [f"Tell me what {rng.randrange(100)} ducks would say." for _ in range(prompts)]
    result: dict[str, Any] = {"prompts": prompts, "new_tokens": tokens}
    for dtype in ("float32", "bfloat16"):
        own: Any = agents.load_backend(STUDENT, backend="transformers", dtype=dtype)
        requests = [
            Request(own.dialect.open(question), tokens, key=(number,))
            for number, question in enumerate(questions)
        ]
        vllm: Any = agents.load_backend(STUDENT, backend="vllm", dtype=dtype)
        gaps = {
            "vllm": differences(own.model, requests, vllm.generate(requests)),
            "transformers": differences(own.model, requests, own.generate(requests)),
        }
        vllm.close()
        result[dtype] = {
            name: {"mean": statistics.fmean(found), "p99": sorted(found)[len(found) * 99 // 100]}
            for name, found in gaps.items()
        }
        result[dtype]["ratio"] = (
            result[dtype]["vllm"]["mean"] / result[dtype]["transformers"]["mean"]
        )
    return result


@torch.inference_mode()
def differences(model: Any, requests: Sequence[Request], replies: Sequence[Any]) -> list[float]:
    """|log-probability as sampled - by one forward over everything| of each sampled token."""
    found = []
    for request, reply in zip(requests, replies, strict=True):
        ids = torch.tensor([[*request.ids, *reply.ids]])
        start = len(request.ids)
        logprobs = model(ids).logits[0, start - 1 : -1].float().log_softmax(-1)
        expected = logprobs.gather(1, ids[0, start:, None])[:, 0].tolist()
        found += [abs(a - b) for a, b in zip(reply.logprobs, expected, strict=True)]
    return found


def main() -> None:
    """Measure one of the two."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("batches", "engines"))
    parser.add_argument("--episodes", type=int, default=200)
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=64)
    options = parser.parse_args()
    if options.what == "batches":
        result = batches(options.episodes)
    else:
        result = engines(options.prompts, options.tokens)
    json.dump(result, sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()
