"""Put on PYTHONPATH, this makes a step's process use the runtime and the report beside it: no models, no torch."""

import sys

import fake_runtime

sys.modules["steerlm_core.runtime"] = sys.modules["steerlm_core.observe.report"] = fake_runtime
