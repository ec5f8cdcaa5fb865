"""Metrics of captions and attention, from arrays and strings."""

from visattn.metrics.captions import CaptionScores, CiderD, DocumentFrequencies, caption_scores
from visattn.metrics.exposure import ExposureGap, ExposureSums, teacher_forced_captions
from visattn.metrics.grounding import Grounding, coverage, entropy, grounding
from visattn.metrics.hallucination import CHAIR, Mentions, hallucination_scores
from visattn.metrics.health import Health, attention_health
from visattn.metrics.ptb import ptb_tokenize
from visattn.metrics.repeats import repeat_share, repeats_itself
from visattn.metrics.reward import CiderReward
from visattn.metrics.saliency import bootstrap_interval, rank_correlation, saco
from visattn.metrics.truth import Facts, Grammar, TruthReward, Verdict, is_truth_score, truth_scores

__all__ = [
    "CHAIR",
    "CaptionScores",
    "CiderD",
    "CiderReward",
    "DocumentFrequencies",
    "ExposureGap",
    "ExposureSums",
    "Facts",
    "Grammar",
    "Grounding",
    "Health",
    "Mentions",
    "TruthReward",
    "Verdict",
    "attention_health",
    "bootstrap_interval",
    "caption_scores",
    "coverage",
    "entropy",
    "grounding",
    "hallucination_scores",
    "is_truth_score",
    "ptb_tokenize",
    "rank_correlation",
    "repeat_share",
    "repeats_itself",
    "saco",
    "teacher_forced_captions",
    "truth_scores",
]
