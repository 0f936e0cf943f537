"""The cases of attention between tokens, and what replaces it."""

from .case import Case, Input

TOKENS = (Input((2, 7, 12)),)

CASES = (
    Case("SelfAttention", "blocks.vit", TOKENS, (None,), {"dim": 12, "num_heads": 3}),
    Case(
        "SelfAttention, every option",
        "blocks.vit",
        (*TOKENS, Input((2, 1, 7, 7), kind="mask"), Input((1, 3, 7, 7))),
        (None,),
        {
            "dim": 12,
            "num_heads": 3,
            "attn_head_dim": 5,
            "dim_out": 11,
            "qkv_bias": True,
            "qk_norm": True,
            "scale_norm": True,
            "proj_bias": False,
            "gated": True,
            "attn_drop": 0.2,
            "proj_drop": 0.1,
        },
    ),
)
