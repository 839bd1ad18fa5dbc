"""Models behind an API that speaks OpenAI's chat completions: messages in, text out.

OpenAI, vLLM, llama.cpp, Ollama, LiteLLM and many others offer it. It gives no exact tokens, so such
a model can act, demonstrate and be evaluated, and cannot be trained.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from agents.capabilities import OPENAI
from agents.protocol import Act
from agents.vllm_sampling import seed_of
from ovd_envs.errors import OVDError

if TYPE_CHECKING:
    from openai import OpenAI
    from openai.types.chat import ChatCompletionMessageParam

    from agents.episode import Episode

OPENAI_ADDRESS = "https://api.openai.com/v1"
KEY = "OPENAI_API_KEY"

#: What stands for a key where none is needed: the client wants one.
NO_KEY = "none"

#: Tries after the first, by the client: it waits longer each time, or as Retry-After says.
_RETRIES = 6


class OpenAIStudent:
    """An agent whose messages a chat API writes; its episodes have no tokens of their own.

    The conversation is sent anew at each turn: observations as user messages, its own messages as
    the assistant's. At most ``batch_size`` requests are under way at a time.

    Args:
        client: where to ask.
        model: the model's name there.
        temperature: of sampling; 0 is greedy.
        max_tokens: most tokens of one message.
        schema: a JSON schema that each message is held to.
    """

    capabilities = OPENAI

    def __init__(
        self,
        client: OpenAI,
        model: str,
        *,
        temperature: float = 1.0,
        max_tokens: int = 256,
        batch_size: int = 64,
        schema: Mapping[str, Any] | None = None,
    ) -> None:
        self.name = self.model = model
        self.client = client
        self.temperature = temperature
        self.max_tokens = max_tokens
        self.schema = schema
        self._pool = ThreadPoolExecutor(batch_size, thread_name_prefix="openai")

    @classmethod
    def load(
        cls,
        name: str,
        *,
        temperature: float = 1.0,
        max_tokens: int = 256,
        batch_size: int = 64,
        address: str = OPENAI_ADDRESS,
    ) -> OpenAIStudent:
        """The model ``name`` at ``address``: see ``connect``."""
        return cls(
            connect(address),
            name,
            temperature=temperature,
            max_tokens=max_tokens,
            batch_size=batch_size,
        )

    def act(self, episodes: Sequence[Episode]) -> list[Act]:
        """The next message of each episode. Raises ``OVDError`` where the API gives none."""
        return list(self._pool.map(self._ask, episodes))

    def submit(self, episode: Episode) -> Future[Act]:
        """As ``act``, for one episode: its message as soon as it is there."""
        return self._pool.submit(self._ask, episode)

    def _ask(self, episode: Episode) -> Act:
        import openai

        # Newer models of OpenAI refuse the one name, other servers do not know the other.
        at_openai = str(self.client.base_url).startswith(OPENAI_ADDRESS)
        limit = "max_completion_tokens" if at_openai else "max_tokens"
        options: dict[str, Any] = {limit: self.max_tokens}
        if self.schema is not None:
            held = {"name": "reply", "strict": True, "schema": dict(self.schema)}
            options["response_format"] = {"type": "json_schema", "json_schema": held}
        try:
            reply = self.client.chat.completions.create(
                model=self.model,
                messages=messages_of(episode),
                temperature=self.temperature,
                seed=seed_of((*episode.seed, len(episode.turns))),
                **options,
            )
        except openai.OpenAIError as error:
            why = without_key(" ".join(str(error).split()), self.client.api_key)[:300]
            raise OVDError(f"model {self.model!r} at {self.client.base_url}: {why}") from error
        if not reply.choices:
            raise OVDError(f"model {self.model!r} at {self.client.base_url}: an empty reply")
        choice = reply.choices[0]
        stop = "length" if choice.finish_reason == "length" else "end_of_turn"
        return Act(choice.message.content or "", stop)


def messages_of(episode: Episode) -> list[ChatCompletionMessageParam]:
    """The conversation up to the agent's next message, as chat APIs take it."""
    messages: list[ChatCompletionMessageParam] = []
    if episode.system is not None:
        messages.append({"role": "system", "content": episode.system})
    messages.append({"role": "user", "content": episode.observation})
    for turn in episode.turns:
        messages.append({"role": "assistant", "content": turn.action})
        messages.append({"role": "user", "content": turn.observation})
    return messages


def connect(address: str = OPENAI_ADDRESS) -> OpenAI:
    """A client for the API at ``address``; its key comes from the environment, ``OPENAI_API_KEY``.

    Raises ``OVDError`` where the address is none, or is elsewhere and there is no key.
    """
    from openai import OpenAI

    key = find_key(address)
    return OpenAI(base_url=address, api_key=key or NO_KEY, max_retries=_RETRIES)


def find_key(address: str, variable: str = KEY) -> str:
    """The key for the API at ``address``, from the environment; empty where none is needed.

    Raises ``OVDError`` where the address is none or carries a password, which would be written
    down with it, and where it is elsewhere and there is no key.
    """
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise OVDError(f"backend 'openai': expected an address, http(s)://HOST/v1, got {address!r}")
    if "@" in parts.netloc:
        raise OVDError(
            f"backend 'openai': expected an address without a password, of {parts.hostname}; "
            f"a key comes from the environment ({variable})"
        )
    # Files of secrets end in a line feed; a header of it is refused with the key in the complaint.
    key = os.environ.get(variable, "").strip()
    # A variable that was named is meant to be there.
    needed = variable != KEY or parts.hostname not in ("localhost", "127.0.0.1", "::1")
    if not key and needed:
        raise OVDError(f"backend 'openai': {parts.hostname} needs a key; set {variable}")
    return key


def without_key(text: str, key: str) -> str:
    """``text`` with the key, should a server quote it, blotted out."""
    return text if key in ("", NO_KEY) else text.replace(key, "[key]")
