"""One file a step, in the order of the data: each reads what the steps before wrote and leaves a manifest."""
