"""A real small model behind llama.cpp's own OpenAI-compatible server, as a process.

    python tests/servers/llama_server.py MODEL.gguf

prints its base URL and serves on loopback until its standard input is closed. Needs `xllamacpp`, which ships the server
of llama.cpp in a wheel.
"""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Serve."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = sys.argv[1]
    params.model_alias = {"small"}
    params.hostnames, params.port = ["127.0.0.1"], 0
    params.n_ctx, params.n_parallel = 8192, 1
    params.warmup = False
    params.verbosity = 0
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = int(os.environ.get("OMP_NUM_THREADS", "1"))
    server = xllamacpp.Server(params)
    print(f"{server.listening_address}/v1", flush=True)
    sys.stdin.read()
    os._exit(0)  # its own threads do not wait for anybody


if __name__ == "__main__":
    main()
