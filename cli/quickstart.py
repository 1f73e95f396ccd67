"""`make start`: a single node on six local folders, and what to try next. The node itself is `storectl node start`."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from cli.serve import ENDPOINT_FILE
from cluster.secrets import CREDENTIALS_FILE

FOLDER = Path("storectl-data")
_START_SECONDS = 60.0


def main() -> int:
    """Start the node, wait until it listens, print, and stay with it; its exit status."""
    root = FOLDER.absolute()
    state = root / "storectl-state"
    listen = os.environ.get("STORECTL_NODE_LISTEN", "127.0.0.1:9000")
    root.mkdir(exist_ok=True)
    (state / ENDPOINT_FILE).unlink(missing_ok=True)
    command = [sys.executable, "-m", "cli.main", "node", "start", "--listen", listen]
    node = subprocess.Popen([*command, "--drives", f"{root}/drive{{1...6}}", "--state", str(state)])  # noqa: S603
    signal.signal(signal.SIGTERM, lambda *_: node.terminate())
    deadline = time.monotonic() + _START_SECONDS
    while not (state / ENDPOINT_FILE).exists():
        if node.poll() is not None or time.monotonic() > deadline:
            return _end(node)
        time.sleep(0.05)
    _explain(json.loads((state / ENDPOINT_FILE).read_text())["s3"], state)
    return _end(node)


def _explain(endpoint: str, state: Path) -> None:
    keys = json.loads((state / CREDENTIALS_FILE).read_text())
    shown = os.path.relpath(state)
    print(
        f"""
storectl is running: one node, six folders as drives below {FOLDER}/, erasure code 4+2.

  endpoint     {endpoint}
  access key   {keys["access_key"]}
  secret key   in {shown}/{CREDENTIALS_FILE} (mode 0600)

Three things to try, in another terminal:

  .venv/bin/storectl cluster status --state {shown}

  export AWS_ACCESS_KEY_ID=$(python3 -c 'import json; print(json.load(open("{shown}/{CREDENTIALS_FILE}"))["access_key"])')
  export AWS_SECRET_ACCESS_KEY=$(python3 -c 'import json; print(json.load(open("{shown}/{CREDENTIALS_FILE}"))["secret_key"])')
  curl --aws-sigv4 aws:amz:us-east-1:s3 --user "$AWS_ACCESS_KEY_ID:$AWS_SECRET_ACCESS_KEY" \\
       -H 'x-amz-content-sha256: UNSIGNED-PAYLOAD' -X PUT {endpoint}/my-bucket

  curl --aws-sigv4 aws:amz:us-east-1:s3 --user "$AWS_ACCESS_KEY_ID:$AWS_SECRET_ACCESS_KEY" \\
       -H 'x-amz-content-sha256: UNSIGNED-PAYLOAD' -T README.md {endpoint}/my-bucket/README.md

Ctrl-C stops it; `make start` takes the data up again.
""",
        flush=True,
    )


def _end(node: "subprocess.Popen[bytes]") -> int:
    while True:
        try:
            return node.wait()
        except KeyboardInterrupt:
            continue  # the terminal has sent the signal to the node, too: it stops gracefully


if __name__ == "__main__":
    sys.exit(main())
