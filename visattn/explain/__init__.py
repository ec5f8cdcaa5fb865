"""Attention maps of trained models."""

from visattn.explain.pretrained import timm_subject
from visattn.explain.raw import Raw
from visattn.explain.relevance import Relevance
from visattn.explain.rollout import GradientRollout, Rollout, rollout
from visattn.explain.subject import Subject
from visattn.explain.vit import ViT
from visattn.explain.words import word_relevance

__all__ = [
    "GradientRollout",
    "Raw",
    "Relevance",
    "Rollout",
    "Subject",
    "ViT",
    "rollout",
    "timm_subject",
    "word_relevance",
]
