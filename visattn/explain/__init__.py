"""Attention maps of trained models."""

from visattn.explain.generated import Generated, generated_words
from visattn.explain.layered import Layered, as_read
from visattn.explain.libraries import subject_of
from visattn.explain.libraries.timm import timm_subject
from visattn.explain.raw import Raw
from visattn.explain.recorder import Attention, record
from visattn.explain.relevance import Relevance
from visattn.explain.rollout import GradientRollout, Rollout, rollout
from visattn.explain.subject import Subject
from visattn.explain.vit import ViT
from visattn.explain.words import caption_relevance, word_relevance

__all__ = [
    "Attention",
    "Generated",
    "GradientRollout",
    "Layered",
    "Raw",
    "Relevance",
    "Rollout",
    "Subject",
    "ViT",
    "as_read",
    "caption_relevance",
    "generated_words",
    "record",
    "rollout",
    "subject_of",
    "timm_subject",
    "word_relevance",
]
