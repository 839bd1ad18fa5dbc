"""Tokens a second: the transformers backend beside `model.generate` and TRL, rollouts beside vLLM.

    python benchmarks/generation.py transformers     # 15 minutes on 2 cores
    python benchmarks/generation.py trl              # 2 minutes
    python benchmarks/generation.py vllm             # 10 minutes; needs `make vllm`

Both sides of a ratio run in this process, one after the other, on the same prompts, sampled at
temperature 1, with as many new tokens for each prompt. `transformers`: one turn of 32 prompts, and
four turns whose observations have 500 tokens, where the other side is a loop of `model.generate`
over the whole conversation. `trl`: the same 32 prompts through the generation of a `GRPOTrainer`,
where a reply ends at its end of turn or at the limit, and ours does too. `vllm`: episodes through
`agents.rollout`, and in turn the prompts and lengths of all their turns at once through `vllm.LLM`,
in a process of its own; medians of three. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

import torch

import agents
import ovd_envs
from agents.episode import Episode
from agents.models import resolve_model
from agents.protocol import Request
from agents.rollout import rollout
from agents.student import Student
from agents.transformers_backend import TransformersBackend

STUDENT = "smollm2-135m"


def in_transformers(rows: int, tokens: int) -> dict[str, Any]:
    """Ratios of tokens a second, ours to `model.generate`'s."""
    backend = agents.load_backend(STUDENT, backend="transformers", batch_size=rows)
    assert isinstance(backend, TransformersBackend)
    backend.dialect.stop_ids = frozenset()  # replies of equal length on both sides
    prompts = [backend.dialect.open(question) for question in questions_of(rows)]
    observation = backend.dialect.encode(" ".join(["rain fell on the old town again"] * 80))[:500]
    result = {"rows": rows, "new_tokens": tokens, "dtype": str(backend.model.dtype)}
    for name, turns in (("one_turn", 1), ("four_turns", 4)):
        seconds: dict[str, list[float]] = {"ours": [], "generate": []}
        for _ in range(3):
            seconds["ours"].append(ours(backend, prompts, observation, turns, tokens // turns))
            seconds["generate"].append(plain(backend, prompts, observation, turns, tokens // turns))
        best = {side: min(times) for side, times in seconds.items()}
        count = rows * (tokens // turns) * turns
        result[name] = {
            **{f"{side}_tokens_per_second": count / s for side, s in best.items()},
            "ratio": best["generate"] / best["ours"],
            "seconds": seconds,
        }
    return result


def ours(
    backend: TransformersBackend,
    prompts: list[list[int]],
    observation: list[int],
    turns: int,
    tokens: int,
) -> float:
    """Seconds of some turns through the backend."""
    began = time.perf_counter()
    conversations = [list(prompt) for prompt in prompts]
    names = [f"session-{number}" for number in range(len(prompts))]
    for turn in range(turns):
        requests = [
            Request(ids, tokens, key=(number, turn), session=names[number])
            for number, ids in enumerate(conversations)
        ]
        for ids, completion in zip(conversations, backend.generate(requests), strict=True):
            assert len(completion.ids) == tokens
            ids += [*completion.ids, *observation]
    backend.release(names)
    return time.perf_counter() - began


@torch.inference_mode()
def plain(
    backend: TransformersBackend,
    prompts: list[list[int]],
    observation: list[int],
    turns: int,
    tokens: int,
) -> float:
    """Seconds of the same through `model.generate`: the whole conversation at each turn."""
    began = time.perf_counter()
    conversations = [list(prompt) for prompt in prompts]
    for _ in range(turns):
        width = max(map(len, conversations))
        ids = torch.tensor([[0] * (width - len(c)) + c for c in conversations])
        mask = torch.tensor([[0] * (width - len(c)) + [1] * len(c) for c in conversations])
        out = backend.model.generate(
            input_ids=ids,
            attention_mask=mask,
            do_sample=True,
            top_k=0,
            min_new_tokens=tokens,
            max_new_tokens=tokens,
            pad_token_id=0,
        )
        for conversation, row in zip(conversations, out[:, width:].tolist(), strict=True):
            conversation += [*row, *observation]
    return time.perf_counter() - began


def questions_of(rows: int) -> list[str]:
    """Short questions, all different in most cases."""
    rng = random.Random(0)
    return [f"What is {rng.randrange(10, 99)} + {rng.randrange(10, 99)}?" for _ in range(rows)]


def in_trl(rows: int, tokens: int) -> dict[str, Any]:
    """The ratio of tokens a second, ours to that of TRL's `GRPOTrainer` without vLLM."""
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    backend = agents.load_backend(STUDENT, backend="transformers", batch_size=rows)
    assert isinstance(backend, TransformersBackend)
    questions = questions_of(rows)
    prompts = [backend.dialect.open(question) for question in questions]
    with tempfile.TemporaryDirectory() as folder:
        trainer = GRPOTrainer(
            model=resolve_model(STUDENT),
            reward_funcs=lambda completions, **_: [0.0] * len(completions),
            args=GRPOConfig(
                output_dir=folder,
                per_device_train_batch_size=rows,
                num_generations=8,
                max_completion_length=tokens,
                temperature=1.0,
                bf16=backend.model.dtype == torch.bfloat16,
                model_init_kwargs={"dtype": str(backend.model.dtype).removeprefix("torch.")},
                use_cpu=not torch.cuda.is_available(),
                report_to=[],
            ),
            train_dataset=Dataset.from_list([{"prompt": question} for question in questions]),
        )
        speeds: dict[str, list[float]] = {"ours": [], "trl": []}
        for repeat in range(3):
            began = time.perf_counter()
            replies = backend.generate(
                [Request(ids, tokens, key=(repeat, n)) for n, ids in enumerate(prompts)]
            )
            count = sum(len(reply.ids) for reply in replies)
            speeds["ours"].append(count / (time.perf_counter() - began))
            began = time.perf_counter()
            replies, *_ = trainer._generate_single_turn(prompts, None, {}, 8)
            count = sum(len(ids) for ids in replies)
            speeds["trl"].append(count / (time.perf_counter() - began))
    return {
        "rows": rows,
        "limit": tokens,
        "dtype": str(backend.model.dtype),
        "trl": version("trl"),
        "tokens_per_second": speeds,
        "ratio": statistics.median(speeds["ours"]) / statistics.median(speeds["trl"]),
    }


def in_vllm(episodes: int, batch: int) -> dict[str, Any]:
    """Ratios of tokens a second: rollouts here to `vllm.LLM` in a process of its own."""
    backend: Any = agents.load_backend(STUDENT, backend="vllm", batch_size=batch)
    student = Student(backend, temperature=1.0, max_tokens=64)
    command = [sys.executable, __file__, "alone", "--rows", str(batch)]
    peer = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert peer.stdin is not None
    assert peer.stdout is not None
    result: dict[str, Any] = {"episodes": episodes, "batch": batch}
    for env, options in (("ovd/Math-v0", {"level": "word-1"}), ("ovd/WorldQA-v0", {"turns": 3})):
        tasks = ovd_envs.make(env, **options).unwrapped.tasks.distinct("test", episodes)
        speeds: dict[str, list[float]] = {"rollout": [], "vllm": []}
        for repeat in range(4):
            backend._engine.reset_prefix_cache()
            began = time.perf_counter()
            done = rollout(student, env, tasks, env_options=options, batch_size=batch, seed=repeat)
            seconds = time.perf_counter() - began
            asked = [ask for episode in done for ask in asked_of(episode)]
            count = sum(length for _, length in asked)
            speeds["rollout"].append(count / seconds)
            peer.stdin.write(json.dumps(asked) + "\n")
            peer.stdin.flush()
            speeds["vllm"].append(count / float(peer.stdout.readline()))
        speeds = {side: values[1:] for side, values in speeds.items()}  # the first warms up
        result[env] = {
            "tokens": count,
            "requests": len(asked),
            "tokens_per_second": speeds,
            "ratio": statistics.median(speeds["rollout"]) / statistics.median(speeds["vllm"]),
        }
    peer.stdin.close()
    peer.wait()
    backend.close()
    return result


def asked_of(episode: Episode) -> Iterator[tuple[list[int], int]]:
    """(the prompt of a turn, how many tokens were sampled) for each turn."""
    for segment in episode.segments:
        starts = [i for i, m in enumerate(segment.mask) if m and not segment.mask[i - 1]]
        for start in starts:
            yield segment.ids[:start], [*segment.mask[start:], 0].index(0)


def alone(batch: int) -> None:
    """Read prompts and lengths, a line of JSON each time; write `vllm.LLM`'s seconds for them."""
    from agents.vllm_backend import _prepare_vllm

    _prepare_vllm()
    from vllm import LLM, SamplingParams

    # As `VLLMBackend.load` has it, where speed hangs on it.
    llm = LLM(
        resolve_model(STUDENT),
        dtype="bfloat16",
        max_num_seqs=batch,
        enforce_eager=True,
        enable_chunked_prefill=False,
        logprobs_mode="processed_logprobs",
        disable_log_stats=True,
    )
    for line in sys.stdin:
        prompts = [{"prompt_token_ids": ids} for ids, _ in json.loads(line)]
        params = [
            SamplingParams(max_tokens=length, seed=n, ignore_eos=True, logprobs=0, detokenize=False)
            for n, (_, length) in enumerate(json.loads(line))
        ]
        llm.reset_prefix_cache()
        began = time.perf_counter()
        llm.generate(prompts, params, use_tqdm=False)
        print(time.perf_counter() - began, flush=True)


def main() -> None:
    """Measure one of the two."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("engine", choices=("transformers", "trl", "vllm", "alone"))
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--episodes", type=int, default=128)
    options = parser.parse_args()
    if options.engine == "alone":
        alone(options.rows)
        return
    if options.engine == "transformers":
        result = in_transformers(options.rows, options.tokens)
    elif options.engine == "trl":
        result = in_trl(options.rows, options.tokens)
    else:
        result = in_vllm(options.episodes, options.rows)
    json.dump(result, sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()
