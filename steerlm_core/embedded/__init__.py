"""The embedded default: a corpus, a tokenizer and a tiny model, all made by this project on this machine."""
