"""Attention maps of trained models."""

from visattn.explain.layered import Layered, as_read
from visattn.explain.pretrained import timm_subject
from visattn.explain.raw import Raw
from visattn.explain.recorder import Attention, record
from visattn.explain.relevance import Relevance
from visattn.explain.rollout import GradientRollout, Rollout, rollout
from visattn.explain.subject import Subject
from visattn.explain.vit import ViT
from visattn.explain.words import caption_relevance, word_relevance

__all__ = [
    "Attention",
    "GradientRollout",
    "Layered",
    "Raw",
    "Relevance",
    "Rollout",
    "Subject",
    "ViT",
    "as_read",
    "caption_relevance",
    "record",
    "rollout",
    "timm_subject",
    "word_relevance",
]
