"""Arrow schemas of every table of a run, in the order in which the data flows.

`SCHEMA_VERSION` stands in run.json; a run of another version is refused with a message.
Log-probabilities are natural logs; sums are over response tokens, in float64.
"""

from __future__ import annotations

import pyarrow as pa

SCHEMA_VERSION = 1

TARGET = pa.map_(pa.string(), pa.int32())
TOKENS = pa.list_(pa.int32())
LOGS = pa.list_(pa.float64())
LEVELS = pa.list_(pa.float32())

# One row a (prompt, target) pair.
PROMPTS = pa.schema(
    [
        ("group_id", pa.string()),
        ("split", pa.string()),  # train | held_out
        ("prompt", pa.string()),
        ("target", TARGET),
        ("policy_prompt_ids", TOKENS),  # with the label
        ("prior_prompt_ids", TOKENS),  # without the label
    ]
)

# One row a candidate.
CANDIDATES = pa.schema(
    [
        ("group_id", pa.string()),
        ("split", pa.string()),
        ("index", pa.int32()),  # the candidate's number in its group, counting every draw
        ("target", TARGET),
        ("policy_prompt_ids", TOKENS),
        ("prior_prompt_ids", TOKENS),
        ("prompt", pa.string()),
        ("response_ids", TOKENS),  # end token included when finish_reason is "stop"
        ("text", pa.string()),
        ("finish_reason", pa.string()),  # stop | length
        ("token_log_q", pa.list_(pa.float32())),  # re-scored, of the distribution sampled from
        ("log_q", pa.float64()),
        ("log_p_start", pa.float64()),  # re-scored, raw Q' at temperature 1
        ("sampler_token_log_q", pa.list_(pa.float32())),
        ("sampler_log_q", pa.float64()),
    ]
)

# One row a candidate. Lists follow the order of the run's attributes.
LABELS = pa.schema(
    [
        ("group_id", pa.string()),
        ("index", pa.int32()),
        ("predicted", LEVELS),  # by the attribute model, in levels
        ("measured", LEVELS),  # by the measured raters; NaN where an attribute has none
        ("log_p_attr", pa.float64()),  # log P(a|x,y) of the group's target
    ]
)

# One row a candidate.
PRIOR_SCORES = pa.schema([("group_id", pa.string()), ("index", pa.int32()), ("log_p_prior", pa.float64())])

# One row a group; lists run over its candidates.
GROUPS = pa.schema(
    [
        ("group_id", pa.string()),
        ("split", pa.string()),
        ("target", TARGET),
        ("prompt_ids", TOKENS),  # as the policy reads it
        ("index", pa.list_(pa.int32())),
        ("responses", pa.list_(TOKENS)),
        ("valid", pa.list_(pa.bool_())),  # False: cut by the length limit and dropped, or in excess of N
        ("truncated", pa.list_(pa.bool_())),
        ("log_q", LOGS),
        ("log_p_start", LOGS),
        ("log_p_attr", LOGS),
        ("log_p_prior", LOGS),
        ("log_ws", LOGS),  # -inf where not valid
        ("ess", pa.float64()),
        ("complete", pa.bool_()),  # has N valid candidates; held-out groups without stay out of the distance
    ]
)

# One row a held-out group.
EVALUATION = pa.schema(
    [
        ("group_id", pa.string()),
        ("distance_before", pa.float64()),
        ("distance_after", pa.float64()),
        ("reference_distance_after", pa.float64()),  # with NeMo's 1e-8, to compare with its logs
        ("ess", pa.float64()),
        ("retained_mass", pa.float64()),
        ("truncated_before", pa.float64()),  # share of the first N draws
        ("truncated_after", pa.float64()),  # the same under the trained model, by importance weighting
        ("complete", pa.bool_()),  # only complete groups count in the distance
    ]
)

# One row an annotated text.
ANNOTATED = pa.schema(
    [
        ("prompt", pa.string()),
        ("response", pa.string()),
        ("levels", LEVELS),  # NaN: not annotated
        ("complete", pa.bool_()),  # False: cut by the length limit, so it teaches no end token
    ]
)
