"""Put on PYTHONPATH, this makes a step's process use the runtime beside it: no models, no torch."""

import sys

import fake_runtime

sys.modules["steerlm_core.runtime"] = fake_runtime
