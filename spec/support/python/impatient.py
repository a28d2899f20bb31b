"""For spec/e2e/example_spec.lua: runs examples/NAME.py, whose name is its first argument, with a client.py that finds
out at once whether the server is still there."""

import runpy
import sys

sys.path.insert(0, "examples")
import client

client.PING_INTERVAL = client.PING_TIMEOUT = 0.7
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
