"""Attention maps of trained models."""

from visattn.explain.generated import Generated, generated_words
from visattn.explain.grad_cam import GradCAM
from visattn.explain.integrated import IntegratedGradients
from visattn.explain.layered import Layered, as_read
from visattn.explain.legrad import LeGrad
from visattn.explain.libraries import subject_of
from visattn.explain.libraries.timm import timm_subject
from visattn.explain.lrp import LRP
from visattn.explain.methods import METHODS, OF_CLASS
from visattn.explain.raw import Raw
from visattn.explain.recorder import Attention, record
from visattn.explain.relevance import Relevance
from visattn.explain.rollout import GradientRollout, Rollout, rollout
from visattn.explain.subject import Subject
from visattn.explain.value_norm import ValueNorm
from visattn.explain.vit import ViT
from visattn.explain.words import caption_relevance, word_relevance

__all__ = [
    "LRP",
    "METHODS",
    "OF_CLASS",
    "Attention",
    "Generated",
    "GradCAM",
    "GradientRollout",
    "IntegratedGradients",
    "Layered",
    "LeGrad",
    "Raw",
    "Relevance",
    "Rollout",
    "Subject",
    "ValueNorm",
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
