"""Runs a model on vLLM servers: token ids in and out over HTTP, several servers behind one name.

    ovd serve-model MODEL

is how such a server is started (``agents.serve_model`` says what it must be told): its
``/inference/v1/generate`` takes and gives token ids.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import threading
import time
from collections.abc import Coroutine, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import httpx2

from agents.capabilities import VLLM_SERVER
from agents.completion import check_request, complete
from agents.dialects import make_dialect
from agents.models import load_tokenizer, resolve_model
from agents.protocol import Completion, Request
from agents.vllm_sampling import sampling_options
from ovd_envs.errors import OVDError

_T = TypeVar("_T")

#: Seconds between two tries at servers none of which answers.
_PAUSE = 1.0


class _GoneError(Exception):
    """A server that did not answer, or could not for now."""


class _StaleError(Exception):
    """A reply that was sampled from other weights than the newest."""


@dataclass(slots=True, eq=False)
class _Server:
    """One server: how busy it is, and until when it is left alone after a failure."""

    url: str
    under_way: int = 0
    rests_until: float = 0.0
    updating: asyncio.Lock = field(default_factory=asyncio.Lock)


@dataclass(slots=True, eq=False)
class _Weights:
    """Weights that the servers have been given, or those that they began with."""

    version: int = 0
    label: str = "default"
    """What vLLM calls them; of an adapter, its name."""
    adapted: bool = False
    folder: TemporaryDirectory[str] | None = None
    users: int = 0
    """Requests under way that were asked of them."""


class VLLMServerBackend:
    """A causal language model on one or several vLLM servers.

    A request goes to the server with the fewest under way. Where one fails, its requests go to
    another, or wait for it to come back, for ``patience`` seconds; each gets one completion.
    Servers that came back with the weights they began with get the newest before they are asked.

    Args:
        addresses: where the servers are, ``http://host:port``.
        tokenizer: of the model that they serve.
        name: the model's name in episodes.
        patience: seconds that a request may wait for servers that do not answer.
        timeout: seconds that one reply may take.
        ends: tokens that end a reply beside those of the tokenizer and its chat template.

    Raises:
        OVDError: where no server answers, or one cannot serve tokens.
    """

    capabilities = VLLM_SERVER

    def __init__(
        self,
        addresses: Sequence[str],
        tokenizer: Any,
        *,
        name: str = "model",
        dialect: str = "chat",
        patience: float = 300.0,
        timeout: float = 600.0,
        ends: frozenset[int] = frozenset(),
    ) -> None:
        if not addresses:
            raise OVDError("vllm-server: expected at least one address, http://HOST:PORT")
        for address in addresses:
            if "@" in address:  # it would be written down with the run's configuration
                host = address.rpartition("@")[2]
                raise OVDError(f"vllm-server: expected an address without a password, of {host}")
        self.name = name
        self.dialect = make_dialect(dialect, tokenizer)
        self.dialect.stop_ids |= ends
        self._patience = patience
        self._servers = [_Server(address.rstrip("/")) for address in addresses]
        self._weights = _Weights()
        self._leaving: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="vllm", daemon=True)
        self._thread.start()
        self._client = httpx2.AsyncClient(
            timeout=httpx2.Timeout(timeout, connect=10.0),
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=None),
            trust_env=False,
        )
        try:
            self.context_length = self._wait(self._greet())
        except BaseException:
            self.close()
            raise

    @classmethod
    def load(
        cls,
        name: str,
        *,
        dtype: str = "auto",
        device: str | None = None,
        batch_size: int = 64,
        dialect: str = "chat",
        address: str = "http://localhost:8000",
    ) -> VLLMServerBackend:
        """Servers of the model ``name`` at ``address``; several with commas between them.

        Only its tokenizer is loaded here: dtype, device and batches are the servers' own.
        """
        tokenizer, ends = load_tokenizer(name, resolve_model(name))
        return cls(address.split(","), tokenizer, name=name, dialect=dialect, ends=ends)

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """One completion for each request, in order. Raises ``OVDError`` for a bad request."""
        return [future.result() for future in [self.submit(request) for request in requests]]

    def submit(self, request: Request) -> Future[Completion]:
        """The completion of ``request``, as soon as it has ended."""
        check_request(request, self.context_length, self.capabilities)
        return asyncio.run_coroutine_threadsafe(self._ask(request), self._loop)

    def follow(self, model: Any, version: int) -> None:
        """Sample from the weights of ``model`` from now on, or from its adapter, if it has one.

        They go through a folder that the servers must be able to read. Raises ``OVDError`` where a
        server does not take them.
        """
        folder = TemporaryDirectory(prefix="ovd-weights-")
        model.save_pretrained(folder.name)
        adapted = hasattr(model, "peft_config")
        # A label of its own: a server may have had another run's weights of this version.
        label = f"version-{version}-{secrets.token_hex(4)}"
        self._wait(self._change(_Weights(version, label, adapted, folder)))

    @property
    def version(self) -> int:
        """Version of the weights that are sampled from."""
        return self._weights.version

    def close(self) -> None:
        """Give up what was not answered yet, and let the connections go."""
        if self._loop.is_closed():
            return
        self._wait(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        if self._weights.folder is not None:
            self._weights.folder.cleanup()

    async def _end(self) -> None:
        for task in self._leaving:
            task.cancel()
        await asyncio.gather(*self._leaving, return_exceptions=True)
        await self._client.aclose()

    def _wait(self, work: Coroutine[Any, Any, _T]) -> _T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _greet(self) -> int:
        """Ask every server what it serves; the smallest context of all."""
        lengths = []
        for server in self._servers:
            try:
                reply = await self._call(server, "GET", "/v1/models")
            except _GoneError as error:
                raise OVDError(
                    f"no vLLM server answers at {server.url} ({error}); start one: "
                    f"ovd serve-model {self.name}"
                ) from error
            try:
                lengths.append(int(reply["data"][0]["max_model_len"]))
            except (IndexError, KeyError, TypeError, ValueError) as error:  # some other server
                raise OVDError(
                    f"{server.url}/v1/models: tells no max_model_len; expected a server as "
                    f"`ovd serve-model {self.name}` starts it"
                ) from error
        return min(lengths)

    async def _ask(self, request: Request) -> Completion:
        body: dict[str, Any] = {
            "token_ids": list(request.ids),
            "sampling_params": sampling_options(self.dialect, request),
        }
        deadline = 0.0
        while True:
            server = self._least_busy()
            server.under_way += 1
            try:
                await asyncio.sleep(max(0.0, server.rests_until - time.monotonic()))
                with self._using() as weights:
                    if weights.adapted:
                        body["model"] = weights.label
                    reply = await self._call(server, "POST", "/inference/v1/generate", body)
                    return self._read(reply["choices"][0], request, weights)
            except _StaleError:
                await self._try_to_update(server)
            except _GoneError as error:
                now = time.monotonic()
                server.rests_until = now + _PAUSE
                # From the first failure on: a long reply that was under way had its server.
                deadline = deadline or now + self._patience
                if now >= deadline:
                    raise OVDError(
                        f"model {self.name!r}: no server has answered for {self._patience:g} s "
                        f"({error})"
                    ) from error
            finally:
                server.under_way -= 1

    def _least_busy(self) -> _Server:
        """Of the servers that are not resting, the one with the fewest requests under way."""
        now = time.monotonic()
        return min(self._servers, key=lambda s: (max(0.0, s.rests_until - now), s.under_way))

    def _read(self, choice: dict[str, Any], request: Request, weights: _Weights) -> Completion:
        if choice.get("finish_reason") == "abort":
            raise _GoneError("the request was aborted")
        if not weights.adapted:  # an adapter's version is its name, which was asked for
            versions = {span["version"] for span in choice.get("weight_versions") or ()}
            if versions - {weights.label} or (weights.version and not versions):
                raise _StaleError
        ids = choice["token_ids"]
        logprobs = [entry["logprob"] for entry in choice["logprobs"]["content"]]
        try:
            return complete(self.dialect, request, ids, logprobs, version=weights.version)
        except ValueError as error:
            raise OVDError(
                f"model {self.name!r}: {error} (the server says {choice.get('finish_reason')!r})"
            ) from error

    @contextlib.contextmanager
    def _using(self) -> Iterator[_Weights]:
        """The newest weights, for a request that is asked of them; the last out lets go of them."""
        weights = self._weights
        weights.users += 1
        try:
            yield weights
        finally:
            weights.users -= 1
            self._let_go(weights)

    async def _change(self, new: _Weights) -> None:
        """Sample from ``new`` from now on."""
        before, self._weights = self._weights, new
        try:
            await self._update_all()
        finally:
            self._let_go(before)
        # Whoever follows often must not be ahead of what is let go of.
        await asyncio.gather(*self._leaving, return_exceptions=True)

    def _let_go(self, weights: _Weights) -> None:
        """Of weights that are neither the newest nor in use: a folder, and an adapter's name."""
        if weights.users or weights is self._weights or weights.folder is None:
            return
        task = self._loop.create_task(self._unload(weights))
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    async def _unload(self, weights: _Weights) -> None:
        if weights.adapted:
            named = {"lora_name": weights.label}
            calls = (
                self._call(server, "POST", "/v1/unload_lora_adapter", named)
                for server in self._servers
            )
            # One that has gone, or that came back, has no old adapter any more.
            await asyncio.gather(*calls, return_exceptions=True)
        if weights.folder is not None:
            weights.folder.cleanup()

    async def _update_all(self) -> None:
        """Give every server that answers the newest weights; the others get them when they do."""
        results = await asyncio.gather(
            *(self._update(server) for server in self._servers), return_exceptions=True
        )
        for result in results:
            if isinstance(result, BaseException) and not isinstance(result, _GoneError):
                raise result

    async def _try_to_update(self, server: _Server) -> None:
        """As ``_update``, for a server that may have gone in the meantime."""
        try:
            await self._update(server)
        except _GoneError:
            server.rests_until = time.monotonic() + _PAUSE

    async def _update(self, server: _Server) -> None:
        """Give ``server`` the newest weights, once, whoever asks; replies under way end first."""
        async with server.updating:
            weights = self._weights
            if weights.folder is None:
                raise OVDError(f"{server.url}: serves other weights than those of the beginning")
            label, folder = weights.label, weights.folder.name
            if weights.adapted:
                adapter = {"lora_name": label, "lora_path": folder, "load_inplace": True}
                await self._call(server, "POST", "/v1/load_lora_adapter", adapter)
                return
            if (await self._call(server, "GET", "/weight_info"))["weight_version"] == label:
                return
            await self._call(server, "POST", "/pause?mode=wait")
            try:
                take = {"method": "take_weights", "kwargs": {"path": folder}}
                await self._call(server, "POST", "/collective_rpc", take)
                await self._call(server, "POST", "/reset_prefix_cache")
                named = {"new_version": label}
                await self._call(server, "POST", "/update_weight_version", named)
            finally:
                await self._call(server, "POST", "/resume")

    async def _call(
        self, server: _Server, method: str, path: str, body: dict[str, Any] | None = None
    ) -> Any:
        """What ``server`` answers. Raises ``_GoneError`` where another try may help."""
        try:
            reply = await self._client.request(method, server.url + path, json=body)
        except httpx2.TransportError as error:
            raise _GoneError(f"{server.url}: {str(error) or type(error).__name__}") from error
        except httpx2.InvalidURL as error:
            raise OVDError(f"{server.url!r}: not an address ({error})") from error
        if reply.status_code == 429 or reply.status_code >= 500:
            raise _GoneError(f"{server.url}: status {reply.status_code}")
        if reply.status_code == 404 and body and body.get("model"):
            raise _StaleError  # it does not know the adapter
        if reply.status_code >= 400:
            said = " ".join(reply.text.split())[:200]
            raise OVDError(
                f"{server.url}{path}: status {reply.status_code} ({said}); expected a server "
                f"as `ovd serve-model {self.name}` starts it"
            )
        # Of an adapter vLLM says in plain words that it came or went.
        is_json = reply.headers.get("content-type", "").startswith("application/json")
        return reply.json() if is_json and reply.content else None
