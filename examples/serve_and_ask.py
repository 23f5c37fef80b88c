"""Serve a base and query it with the `openai` package. Run: python examples/serve_and_ask.py [BASE]

Needs: pip install "onebase[serve]" openai. The server runs in a process of its own, as in production.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

import openai
from pretrain_tiny import tiny_base

if len(sys.argv) > 1:
    ref = sys.argv[1]
else:
    ref = str(Path(tempfile.mkdtemp()) / "base")
    tiny_base().save(ref)

# Port 0 takes a free port; the server prints its address to standard error.
command = [
    sys.executable,
    "-m",
    "onebase.cli",
    "serve",
    ref,
    "--port",
    "0",
    "--name",
    "tiny",
    "--device",
    "cpu",
]
server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
try:
    assert server.stderr is not None
    output = ""
    while not (match := re.search(r"Serving on (\S+)", output)):
        line = server.stderr.readline()
        if not line:
            raise SystemExit(f"the server did not start: {output}")
        output += line
    # A proxy from the environment is not used for this machine's own address.
    http = openai.DefaultHttpxClient(trust_env=False)
    client = openai.OpenAI(base_url=match[1], api_key="none", http_client=http)

    print("models:", [model.id for model in client.models.list()])
    done = client.completions.create(model="tiny", prompt="The soup", max_tokens=16, temperature=0)
    print("completion:", repr(done.choices[0].text))

    print("chat, streamed: ", end="")
    for event in client.chat.completions.create(
        model="tiny", messages=[{"role": "user", "content": "Who eats the cake?"}], max_tokens=16, stream=True
    ):
        if event.choices:
            print(event.choices[0].delta.content or "", end="", flush=True)
    print()
finally:
    server.terminate()  # running requests are finished first
    server.wait(30)
