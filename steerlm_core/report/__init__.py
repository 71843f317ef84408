"""A run to look at and to send: one HTML file without any network, and a summary in Markdown.

run root ─► read ─► data ─┬─► sections (figures, tables) ─► html
└─► markdown
"""
