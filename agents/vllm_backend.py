"""Runs a model in vLLM, in this process: continuous batching, exact tokens in and out."""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from agents.capabilities import VLLM
from agents.completion import check_request, complete
from agents.dialects import make_dialect
from agents.models import adapter_settings, load_tokenizer, resolve_model
from agents.protocol import Completion, Request
from agents.serve_model import rank_of_vllm
from agents.vllm_sampling import STRUCTURED_OUTPUTS, sampling_options
from agents.vllm_worker import WORKER
from ovd_envs.errors import OVDError

if TYPE_CHECKING:
    import torch


#: What vLLM reads from the environment when it is made. In this process, so that new weights need
#: no disk; threads are not bound to cores, which the trainer and the environments use as well.
_SETTINGS = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_CPU_KVCACHE_SPACE": "2",  # GiB: of SmolLM2-135M, 90,000 tokens
    "VLLM_LOGGING_LEVEL": "ERROR",
}


@dataclass(slots=True)
class _Asked:
    request: Request
    future: Future[Completion]


@dataclass(slots=True)
class _NewWeights:
    """Either all weights, by their names in the checkpoint, or the folder of an adapter."""

    weights: Iterable[tuple[str, torch.Tensor]] | TemporaryDirectory[str]
    version: int
    future: Future[None]


#: What the engine's thread is told; ``None`` ends it.
_Item = _Asked | _NewWeights | None


class VLLMBackend:
    """A causal language model in vLLM.

    A thread of its own makes the engine and feeds it: replies are sampled together as they come,
    and each is ready as soon as it has ended. New weights wait until the replies under way have
    ended, so that every reply has one version of them.
    """

    capabilities = VLLM

    def __init__(
        self,
        make_engine: Callable[[], Any],
        tokenizer: Any,
        *,
        name: str = "model",
        dialect: str = "chat",
        takes_adapters: bool = False,
        adapter: str | None = None,
        ends: frozenset[int] = frozenset(),
    ) -> None:
        self.name = name
        self.dialect = make_dialect(dialect, tokenizer)
        self.dialect.stop_ids |= ends
        self.version = 0
        self._takes_adapters = takes_adapters
        self._adapter = _adapter_request("first", 1, adapter) if adapter else None
        self._folder: TemporaryDirectory[str] | None = None  # lasts as long as its adapter
        self._number = 0
        self._inbox: queue.SimpleQueue[_Item] = queue.SimpleQueue()
        self._ended = "it was closed"
        self._lock = threading.Lock()
        self._open = True
        made: Future[Any] = Future()
        self._thread = threading.Thread(
            target=self._run, args=(make_engine, made), name="vllm", daemon=True
        )
        self._thread.start()
        self._engine = made.result()

    @classmethod
    def load(
        cls,
        name: str,
        *,
        dtype: str = "auto",
        device: str | None = None,
        batch_size: int = 64,
        dialect: str = "chat",
        lora_rank: int | None = None,
        memory: float = 0.5,
    ) -> VLLMBackend:
        """Load a model by alias, folder or hub name; at most ``batch_size`` replies at a time.

        With ``lora_rank`` the engine can ``follow`` a model whose adapters have that rank.
        ``memory`` is the share of a GPU's memory that the engine takes; without a GPU, the cache
        of keys and values has 2 GiB, or as many as VLLM_CPU_KVCACHE_SPACE says.
        Raises ``OVDError`` where vLLM is missing or cannot run the model.
        """
        _prepare_vllm()
        try:
            from vllm import EngineArgs, LLMEngine
            from vllm.config import StructuredOutputsConfig
        except ImportError as error:
            raise OVDError(
                f"backend 'vllm': vLLM cannot be imported ({error}); expected `make vllm`, or on a "
                "machine with a GPU `pip install 'ovd[vllm]'`"
            ) from error
        import torch

        from agents.transformers_backend import choose_dtype

        # vLLM would leave one thread to all of the process, the trainer included.
        os.environ.setdefault("OMP_NUM_THREADS", str(torch.get_num_threads()))
        base = place = resolve_model(name)
        adapter = adapter_settings(place)
        if adapter is not None:
            base = resolve_model(adapter["base_model_name_or_path"])
            lora_rank = lora_rank or int(adapter["r"])
        on_cpu = device == "cpu" or (device is None and not torch.cuda.is_available())
        chosen = choose_dtype(dtype, "cpu" if on_cpu else "cuda")

        def make_engine() -> LLMEngine:
            return LLMEngine.from_engine_args(
                EngineArgs(
                    model=base,
                    dtype=str(chosen).removeprefix("torch."),
                    max_num_seqs=batch_size,
                    # Compiling takes longer than most runs on a CPU.
                    enforce_eager=on_cpu,
                    # vLLM 0.32 cannot read a seeded prompt in several parts without a GPU: the
                    # random numbers that a part wastes are taken back, where a GPU can.
                    enable_chunked_prefill=False if on_cpu else None,
                    # At the sampling temperature, as every backend's.
                    logprobs_mode="processed_logprobs",
                    gpu_memory_utilization=memory,
                    worker_extension_cls=WORKER,
                    structured_outputs_config=StructuredOutputsConfig(**STRUCTURED_OUTPUTS),
                    disable_log_stats=True,
                    use_tqdm_on_load=False,
                    enable_lora=lora_rank is not None,
                    max_lora_rank=rank_of_vllm(lora_rank or 1),
                )
            )

        tokenizer, ends = load_tokenizer(name, place)
        try:
            return cls(
                make_engine,
                tokenizer,
                name=name,
                dialect=dialect,
                takes_adapters=lora_rank is not None,
                adapter=place if base != place else None,
                ends=ends,
            )
        except (OSError, ValueError, RuntimeError) as error:
            first = str(error).strip().splitlines() or [type(error).__name__]
            raise OVDError(f"model {name!r}: vLLM cannot load it ({first[0]})") from error

    @property
    def context_length(self) -> int:
        """The most tokens that an episode may have, prompt and replies together."""
        return int(self._engine.model_config.max_model_len)

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """One completion for each request, in order. Raises ``OVDError`` for a bad request."""
        return [future.result() for future in [self.submit(request) for request in requests]]

    def submit(self, request: Request) -> Future[Completion]:
        """The completion of ``request``, as soon as it has ended."""
        future: Future[Completion] = Future()
        self._tell(_Asked(request, future))
        return future

    def follow(self, model: Any, version: int) -> None:
        """Sample from the weights of ``model`` from now on, or from its adapter, if it has one.

        Waits for the replies under way. Raises ``OVDError`` where the engine runs no adapters.
        """
        weights: Iterable[tuple[str, torch.Tensor]] | TemporaryDirectory[str]
        if hasattr(model, "peft_config"):
            if not self._takes_adapters:
                raise OVDError(f"model {self.name!r}: expected an engine loaded with lora_rank")
            weights = TemporaryDirectory(prefix="ovd-adapter-")
            model.save_pretrained(weights.name)
        else:
            weights = model.named_parameters()
        future: Future[None] = Future()
        _finish_work_on(model)
        self._tell(_NewWeights(weights, version, future))
        future.result()
        _finish_work_on(model)

    def _tell(self, item: _Item) -> None:
        with self._lock:
            if not self._open:
                raise OVDError(f"model {self.name!r}: vLLM does not run any more, {self._ended}")
            self._inbox.put(item)

    def close(self) -> None:
        """End the engine's thread; what was not answered yet is refused."""
        with contextlib.suppress(OVDError):
            self._tell(None)
        self._thread.join()

    def _run(self, make_engine: Callable[[], Any], made: Future[Any]) -> None:
        """The engine's own loop: take what was asked, make a step, hand out what has ended.

        The engine is made here too. Without a GPU each thread that computes has a team of OpenMP
        threads of its own, and while there are more of them than processors they fall asleep
        between two operations, though the second team be idle.
        """
        try:
            engine = make_engine()
        except BaseException as error:  # noqa: BLE001 - told to the one who waits for it
            made.set_exception(error)
            return
        made.set_result(engine)
        backlog: deque[_Item] = deque()
        under_way: dict[str, _Asked] = {}
        try:
            while True:
                if not backlog and not under_way:
                    backlog.append(self._inbox.get())
                with contextlib.suppress(queue.Empty):
                    while True:
                        backlog.append(self._inbox.get_nowait())
                while backlog:
                    item = backlog[0]
                    if item is None:
                        return
                    if isinstance(item, _Asked):
                        self._begin(item, under_way)
                    elif under_way:
                        break  # new weights wait, and what was asked after them
                    else:
                        self._load(item)
                    backlog.popleft()
                if under_way:
                    self._step(under_way)
        except Exception as error:  # noqa: BLE001 - told to everybody who waits
            self._ended = f"its engine failed ({type(error).__name__}: {error})"
        finally:
            self._give_up([*under_way.values(), *backlog])
            # Now, and not when it is collected: that would end what the next engine stands on.
            engine.engine_core.shutdown()

    def _load(self, new: _NewWeights) -> None:
        try:
            if isinstance(new.weights, TemporaryDirectory):
                old = self._adapter
                # A number of its own each time: vLLM takes one that it knows for loaded.
                number = old.lora_int_id + 1 if old is not None else 1
                name = f"version-{new.version}-{number}"
                self._adapter = _adapter_request(name, number, new.weights.name)
                self._engine.add_lora(self._adapter)
                if old is not None:
                    self._engine.remove_lora(old.lora_int_id)  # no reply is under way with it
                self._folder = new.weights
            else:
                self._engine.collective_rpc("take_weights", kwargs={"weights": new.weights})
            self._engine.reset_prefix_cache()
        except Exception as error:
            # Half of the weights may be new: nothing is sampled from such a model.
            why = f"model {self.name!r}: vLLM did not take the new weights ({error})"
            new.future.set_exception(OVDError(why))
            raise
        self.version = new.version
        new.future.set_result(None)

    def _begin(self, asked: _Asked, under_way: dict[str, _Asked]) -> None:
        from vllm import SamplingParams
        from vllm.exceptions import VLLMClientError
        from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

        if not asked.future.set_running_or_notify_cancel():
            return
        request = asked.request
        try:
            check_request(request, self.context_length, self.capabilities)
            options = sampling_options(self.dialect, request)
            if held := options.pop("structured_outputs", None):
                options["structured_outputs"] = StructuredOutputsParams(**held)
            self._number += 1
            self._engine.add_request(
                str(self._number),
                {"prompt_token_ids": list(request.ids)},
                SamplingParams(**options, output_kind=RequestOutputKind.FINAL_ONLY),
                lora_request=self._adapter,
            )
        except (OVDError, ValueError, VLLMClientError) as error:
            why = " ".join(str(error).split())
            asked.future.set_exception(OVDError(f"model {self.name!r}: {why}"))
        else:
            under_way[str(self._number)] = asked

    def _step(self, under_way: dict[str, _Asked]) -> None:
        for output in self._engine.step():
            if not output.finished:
                continue
            asked = under_way.pop(output.request_id)
            reply = output.outputs[0]
            ids = list(reply.token_ids)
            try:
                logprobs = [step[i].logprob for i, step in zip(ids, reply.logprobs, strict=True)]
                completion = complete(
                    self.dialect, asked.request, ids, logprobs, version=self.version
                )
            except ValueError as error:
                why = f"model {self.name!r}: {error} ({reply.finish_reason})"
                asked.future.set_exception(OVDError(why))
            else:
                asked.future.set_result(completion)

    def _give_up(self, left: list[_Item]) -> None:
        """Nobody waits for ever: what is left is refused, as is all that would still come."""
        with self._lock:
            self._open = False
        with contextlib.suppress(queue.Empty):
            while True:
                left.append(self._inbox.get_nowait())
        for item in left:
            if item is not None and not item.future.done():
                why = f"model {self.name!r}: vLLM does not run any more, {self._ended}"
                item.future.set_exception(OVDError(why))


def _finish_work_on(model: Any) -> None:
    """Wait for a GPU: the engine's thread has a stream of its own, which waits for no other's.

    So weights are read when they are written, and changed again when they are read.
    """
    import torch

    device = next(model.parameters()).device
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _prepare_vllm() -> None:
    """What vLLM reads when it is imported, and silence about what is as it should be."""
    for key, value in _SETTINGS.items():
        os.environ.setdefault(key, value)
    logging.getLogger("vllm").setLevel(os.environ["VLLM_LOGGING_LEVEL"])
    for module in ("vllm", "torch"):
        warnings.filterwarnings("ignore", category=FutureWarning, module=module)


def _adapter_request(name: str, number: int, folder: str) -> Any:
    """An adapter as vLLM names it; numbers begin at 1."""
    from vllm.lora.request import LoRARequest

    return LoRARequest(name, number, folder)
