"""Write every component's README.md from its signature, its docstring and its metadata.

python -m tools.component_readmes
"""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import yaml

COMPONENTS = Path(__file__).resolve().parent.parent / "components"
_LONGEST_LINE = 120


def component_folders() -> list[Path]:
    """Return the folder of every component."""
    return sorted(path.parent for path in COMPONENTS.glob("*/*/component.py"))


def readme(folder: Path) -> str:
    """Return the README that a component should have."""
    function = _function(folder)
    summary, sections = _sections(ast.get_docstring(function) or "")
    metadata = yaml.safe_load((folder / "metadata.yaml").read_text())
    parts = [f"# {folder.name}", summary, "## Parameters", _parameters(function, sections.get("Args", ""))]
    if "Returns" in sections:
        parts += ["## Returns", f"`{_source(function.returns)}`: {_joined(sections['Returns'])}"]
    parts += ["## Use", _example(folder, function), "## Metadata", _facts(metadata)]
    return "<!-- Generated from component.py by `make compile`. -->\n\n" + "\n\n".join(parts) + "\n"


def _function(folder: Path) -> ast.FunctionDef:
    tree = ast.parse((folder / "component.py").read_text())
    return next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == folder.name)


def _sections(docstring: str) -> tuple[str, dict[str, str]]:
    """Split a Google docstring into its text and its sections."""
    text, *rest = re.split(r"^(Args|Returns|Raises):\n", docstring, flags=re.MULTILINE)
    return text.strip(), dict(zip(rest[::2], rest[1::2], strict=True))


def _parameters(function: ast.FunctionDef, section: str) -> str:
    # An entry starts at the section's indent; deeper lines continue it.
    entries = dict(re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", section, flags=re.MULTILINE))
    defaults = [None] * (len(function.args.args) - len(function.args.defaults)) + function.args.defaults
    rows = ["| parameter | type | default | |", "|---|---|---|---|"]
    for argument, default in zip(function.args.args, defaults, strict=True):
        about = _joined(entries[argument.arg])
        rows.append(f"| `{argument.arg}` | `{_source(argument.annotation)}` | {_source(default)} | {about} |")
    return "\n".join(rows)


def _example(folder: Path, function: ast.FunctionDef) -> str:
    given = [arg.arg for arg in function.args.args if not _source(arg.annotation).startswith("dsl.Output")]
    arguments = ", ".join(f"{name}={name}" for name in given)
    call = f"task = {folder.name}({arguments})"
    if len(call) > _LONGEST_LINE:
        call = f"task = {folder.name}(\n" + "".join(f"    {name}={name},\n" for name in given) + ")"
    module = f"components.{folder.parent.name}.{folder.name}"
    return f"```python\nfrom {module} import {folder.name}\n\n{call}\n```"


def _facts(metadata: dict[str, Any]) -> str:
    needs = ", ".join(f"{need['name']} {need['version']}" for need in metadata["dependencies"]["kubeflow"])
    verified = f"{metadata['lastVerified']:%Y-%m-%d}"
    return "\n".join(
        f"- {name}: {value}"
        for name, value in {
            "stability": metadata["stability"],
            "needs": f"Kubeflow {needs}, and an image that holds kfp and steerlm_core",
            "tags": ", ".join(metadata["tags"]),
            "last verified": verified,
        }.items()
    )


def _source(node: ast.expr | None) -> str:
    return ast.unparse(node) if node else ""


def _joined(text: str) -> str:
    return " ".join(text.split())


if __name__ == "__main__":
    for component in component_folders():
        (component / "README.md").write_text(readme(component))
