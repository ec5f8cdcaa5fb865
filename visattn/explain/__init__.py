"""From what the layers attend to, to a map that a person can read."""

from visattn.explain.rollout import attention_rollout, class_token_map

__all__ = ["attention_rollout", "class_token_map"]
