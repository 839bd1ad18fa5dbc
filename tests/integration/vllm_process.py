"""``vllm serve`` as a process: started, killed, started again at the same address."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import httpx2

from agents.serve_model import server_command


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class VLLMProcess:
    """A server of ``model`` on the loopback address; what it says goes to ``log``."""

    def __init__(self, model: str, log: Path) -> None:
        self.model, self.log = model, log
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> VLLMProcess:
        command, environment = server_command(
            self.model,
            host="127.0.0.1",
            port=self.port,
            lora_rank=4,
            more=[
                *("--enforce-eager", "--dtype", "float32"),
                *("--max-num-seqs", "16", "--max-model-len", "2048"),
            ],
        )
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                command, stdout=out, stderr=out, env=environment, start_new_session=True
            )
        return self

    def wait(self, seconds: float = 240) -> VLLMProcess:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            assert self.process is not None
            if self.process.poll() is not None:
                break
            try:
                if httpx2.get(f"{self.url}/health", trust_env=False).status_code == 200:
                    return self
            except httpx2.TransportError:
                pass
            time.sleep(0.5)
        raise AssertionError("vllm serve did not start:\n" + self.log.read_text()[-3000:])

    def kill(self) -> None:
        """Kill the server and its engine, as a machine that goes away."""
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None
