"""The programs that take part in the benchmark, each in a process of its own that answers one task at a time."""

import json
import os
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

Answer = dict[str, Any]

# An idle participant must not take a core from the one that is measured.
ENVIRONMENT = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0", "HF_HUB_OFFLINE": "1"}
START_SECONDS = 120


class BenchmarkError(Exception):
    """A participant failed; the message says which and how."""


class Participant:
    """A program that reads tasks from standard input and writes answers to standard output, one JSON line each."""

    def __init__(self, name: str, command: list[str]) -> None:
        self.name = name
        self._process = subprocess.Popen(
            command, env=ENVIRONMENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
        )
        self.description = self._read_answer()

    def ask(self, task: Answer) -> Answer:
        """The answer to a task."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(task) + "\n")
        self._process.stdin.flush()
        return self._read_answer()

    def close(self) -> None:
        """Ends the program."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=START_SECONDS)

    def _read_answer(self) -> Answer:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise BenchmarkError(f"{self.name} ended with status {self._process.wait()}")
        answer: Answer = json.loads(line)
        if "error" in answer:
            raise BenchmarkError(f"{self.name}: {answer['error']}")
        return answer


@dataclass(frozen=True)
class Programs:
    """What Quicksave's side needs."""

    server: Path
    client: Path
    model: Path


class Server:
    """A Quicksave server on a free port of this machine, with its benchmark client."""

    def __init__(self, programs: Programs, prompts: Path, work: Path, weights: str = "") -> None:
        self._programs = programs
        self._prompts = prompts
        self._work = work / weights
        self._work.mkdir(exist_ok=True)
        self._weights = weights
        self._process: subprocess.Popen[bytes] | None = None
        self.participant: Participant | None = None
        self.description: Answer = {}

    def start(self, threads: int) -> Participant:
        """Starts the server, again where it runs, with that many engine threads; its store stays."""
        self.stop()
        port_file = self._work / "port"
        port_file.unlink(missing_ok=True)
        flags = {
            "model": self._programs.model,
            "weights": self._weights or "bf16",
            "data": self._work / "store",
            "listen": "127.0.0.1:0",
            "port-file": port_file,
            "threads": threads,
            "max-sessions": 256,
            "default-lease": "2h",
            # A round after the first would find its prompts computed.
            "no-prefix-cache": "true",
        }
        with (self._work / "server.log").open("ab") as log:
            command = [str(self._programs.server), *(f"--{flag}={value}" for flag, value in flags.items())]
            self._process = subprocess.Popen(command, env=ENVIRONMENT, stdout=log, stderr=log)
        endpoint = f"127.0.0.1:{self._await_port(port_file)}"
        command = [str(self._programs.client), endpoint, str(self._process.pid), str(self._prompts)]
        self.participant = Participant(f"quicksave {self._weights}".strip(), command)
        self.description = self.participant.description
        return self.participant

    def stop(self) -> None:
        """Stops the server and its client."""
        if self.participant is not None:
            self.participant.close()
            self.participant = None
        if self._process is not None:
            self._process.terminate()
            self._process.wait(timeout=START_SECONDS)
            self._process = None

    def _check_alive(self) -> None:
        assert self._process is not None
        if self._process.poll() is not None:
            log = (self._work / "server.log").read_text(encoding="utf-8", errors="replace")
            raise BenchmarkError(f"quicksave-server ended with status {self._process.returncode}:\n{log[-2000:]}")

    def _await_port(self, port_file: Path) -> str:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            self._check_alive()
            if port_file.exists() and (port := port_file.read_text(encoding="ascii").strip()):
                return port
            time.sleep(0.05)
        raise BenchmarkError("quicksave-server opens no port")


class Field:
    """All participants, and the directory that they work in."""

    def __init__(self) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="quicksave-bench-")
        self.work = Path(self._directory.name)
        self.server: Server | None = None
        self.peers: list[Participant] = []
        self.more_servers: list[Server] = []
        self.more_peers: list[Participant] = []

    def __enter__(self) -> Self:
        """Nothing has started yet."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stops everyone and removes the directory."""
        for server in (self.server, *self.more_servers):
            if server is not None:
                server.stop()
        for peer in (*self.peers, *self.more_peers):
            peer.close()
        self._directory.cleanup()

    def everyone(self) -> list[Participant]:
        """Quicksave, then its peers."""
        assert self.server is not None
        assert self.server.participant is not None
        return [self.server.participant, *self.peers]
