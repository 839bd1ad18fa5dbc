"""What the backends of this package can do, where it is read without loading one.

Torch takes seconds to import, and ``ovd envs`` lists what each can do at once.
"""

from __future__ import annotations

from agents.protocol import Capabilities

TRANSFORMERS = Capabilities(token_ids=True, logprobs=True, next_token_logprobs=True, follow=True)
VLLM = Capabilities(token_ids=True, logprobs=True, schema=True, follow=True, submit=True)
VLLM_SERVER = Capabilities(token_ids=True, logprobs=True, schema=True, follow=True, submit=True)
#: An agent rather than a backend: see ``agents.openai_backend``.
OPENAI = Capabilities(schema=True, submit=True)
