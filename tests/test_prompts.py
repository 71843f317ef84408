"""Prompt formats: the policy sees the label, the prior never does, and a prompt's own braces stay."""

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from steerlm_core.config import PromptFormat
from steerlm_core.errors import ModelError
from steerlm_core.prompts import prompt_ids, prompt_text

TARGET = {"verbosity": 0, "mood": 4}
LABEL = "verbosity:0,mood:4"
CHAT = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}</>{% endfor %}{% if add_generation_prompt %}<bot>{% endif %}"
)
FORMATS = {
    "template": PromptFormat(with_label="Q: {prompt} [{label}] A:", without_label="Q: {prompt} A:"),
    "nemo": PromptFormat(kind="nemo", system="Be kind."),
    "chat": PromptFormat(kind="chat", system="Be kind."),
    "chat, no system": PromptFormat(kind="chat"),
    "chat, label in user": PromptFormat(kind="chat", system="Be kind.", label_in="user"),
}
TEXTS = {
    "template": (f"Q: Hi [{LABEL}] A:", "Q: Hi A:"),
    "nemo": (
        f"<extra_id_0>System\nBe kind.\n<extra_id_1>User\nHi\n<extra_id_1>Assistant\n<extra_id_2>{LABEL}\n",
        "<extra_id_0>System\nBe kind.\n<extra_id_1>User\nHi\n<extra_id_1>Assistant\n",
    ),
    "chat": (f"<system>Be kind.\n{LABEL}</><user>Hi</><bot>", "<system>Be kind.</><user>Hi</><bot>"),
    "chat, no system": (f"<system>{LABEL}</><user>Hi</><bot>", "<user>Hi</><bot>"),
    "chat, label in user": (
        f"<system>Be kind.</><user>Hi\n{LABEL}</><bot>",
        "<system>Be kind.</><user>Hi</><bot>",
    ),
}
AWKWARD = ("{label}", "{prompt}", "a {label} b {prompt} c", "{}", "{0}", "{{x}}", "{% if %}", r"\1 \g<0>", "${x}")


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    """Words are tokens; asked for special tokens, it would put <s> in front."""
    made = Tokenizer(models.WordLevel({"?": 0, "<s>": 1, "Q:": 2, "A:": 3, "Hi": 4, f"[{LABEL}]": 5}, unk_token="?"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=made, chat_template=CHAT)


@pytest.mark.parametrize("name", FORMATS)
def test_what_each_model_reads(name, tokenizer):
    policy, prior = TEXTS[name]
    assert prompt_text("Hi", TARGET, FORMATS[name], tokenizer) == policy
    assert prompt_text("Hi", None, FORMATS[name], tokenizer) == prior


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("prompt", AWKWARD)
def test_a_prompt_is_put_in_as_it_is(name, prompt, tokenizer):
    policy, prior = (text.replace("Hi", "\0") for text in TEXTS[name])
    assert prompt_text(prompt, TARGET, FORMATS[name], tokenizer) == policy.replace("\0", prompt)
    assert prompt_text(prompt, None, FORMATS[name], tokenizer) == prior.replace("\0", prompt)


@pytest.mark.parametrize("kind", ["nemo", "chat"])
def test_a_system_text_is_put_in_as_it_is(kind, tokenizer):
    text = prompt_text("Hi", TARGET, PromptFormat(kind=kind, system="{prompt} {label} {}"), tokenizer)
    assert "{prompt} {label} {}" in text


def test_other_braces_of_a_template_stay(tokenizer):
    shape = PromptFormat(with_label='{"q": "{prompt}", "{x}": "{label}"}')
    assert prompt_text("Hi", {"mood": 1}, shape, tokenizer) == '{"q": "Hi", "{x}": "mood:1"}'


def test_ids_are_those_of_the_text_without_special_tokens(tokenizer):
    assert prompt_ids("Hi", TARGET, FORMATS["template"], tokenizer) == [2, 4, 5, 3]
    assert prompt_ids("Hi", None, FORMATS["template"], tokenizer) == [2, 4, 3]


@pytest.mark.parametrize("target", [TARGET, None])
def test_chat_without_a_template_says_what_to_do(target, tokenizer):
    plain = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer)
    with pytest.raises(ModelError, match="no chat template; use kind: template"):
        prompt_text("Hi", target, FORMATS["chat"], plain)
