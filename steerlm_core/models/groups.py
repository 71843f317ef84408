"""The unit of all model work: one prompt with its N responses, as token ids."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TokenGroup:
    """A prompt and the responses to it.

    Attributes:
        prompt: Token ids of the prompt as the model in question reads it (policy: with label).
        responses: Token ids of each response; the end token is the last one of a complete
            response. Groups may have different numbers of responses; none is empty.
    """

    prompt: tuple[int, ...]
    responses: tuple[tuple[int, ...], ...]

    @property
    def packed_tokens(self) -> int:
        """Tokens of the group as one shared-prefix row: P + sum of response lengths."""
        return len(self.prompt) + sum(len(response) for response in self.responses)

    @property
    def padded_tokens(self) -> int:
        """Tokens of the group as padded rows: N * (P + longest response)."""
        return len(self.responses) * (len(self.prompt) + max(len(response) for response in self.responses))
