"""The card of an exported model: what it is, how to prompt it, how well it follows."""

from __future__ import annotations

from pathlib import Path

from transformers import AutoTokenizer

from steerlm_core.prompts import prompt_text
from steerlm_core.report.markdown import markdown_table, steering_section
from steerlm_core.report.run_view import RunView
from steerlm_core.report.words import reason


def model_card(view: RunView, folder: Path) -> str:
    """Return the card of the best model of a run, in Markdown.

    Args:
        view: The run.
        folder: Folder of the model, for its tokenizer.
    """
    config = view.config
    target = {spec.name: (spec.low + spec.high + 1) // 2 for spec in config.attributes}
    prompt = prompt_text("PROMPT", target, config.prompts.format, AutoTokenizer.from_pretrained(folder))
    levels = [[spec.name, f"{spec.low} to {spec.high}", spec.description] for spec in config.attributes]
    made = f"`{config.models.prior}` by iterative SteerLM v2, run `{view.run_id}`"
    sections = [
        f"# {config.name}",
        f"A language model steered by attributes, made from {made}. {reason(view)}",
        f"## Attributes\n\n{markdown_table(('attribute', 'levels', 'a high level means'), levels)}",
        f"## How to prompt it\n\nThe label in its place, for the prompt `PROMPT`:\n\n```text\n{prompt}\n```",
    ]
    if view.confirmation:
        sections.append(f"## How well it follows\n\n{steering_section(view.confirmation)}")
    return "\n\n".join(sections) + "\n"
