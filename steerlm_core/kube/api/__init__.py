"""The cluster's API: a client, where things stand in it, how a set of objects is kept current, this process's pod."""
