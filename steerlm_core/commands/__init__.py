"""The commands of `steerlm`, one file for each idea. Heavy imports stand inside the functions: help must be quick."""
